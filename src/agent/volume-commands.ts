import { unreachable } from '#base/assert.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { ExportTable } from '#agent/nbd/exports.ts'
import { localDevice } from '#agent/nbd/local-device.ts'
import { VOLUME_BUSY } from '#agent/replication/faults.ts'
import { SNAPSHOT_BUSY } from '#agent/snapshots/faults.ts'
import { VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import type { Serving, VolumeRecord, VolumeStore } from '#agent/volumes/volume-store.ts'
import type { CommandRequest, VolumeInfo } from '#wire/site/commands.ts'

/* Volumes outside sessions: created, deleted, grown, and switched between plain serving and refusing. What a session
 * serves belongs to the session; these commands refuse to touch it. */

export interface VolumeCommands {
  /** Puts the exports of every volume in place after a start. Volumes of sessions refuse until their session serves. */
  start(): Promise<void>
  create(request: CommandRequest<'volume.create'>): Promise<VolumeInfo>
  delete(request: CommandRequest<'volume.delete'>): Promise<Record<string, never>>
  extend(request: CommandRequest<'volume.extend'>): Promise<VolumeInfo>
  show(request: CommandRequest<'volume.show'>): Promise<VolumeInfo>
  serve(request: CommandRequest<'volume.serve'>): Promise<VolumeInfo>
}

export function volumeCommands(volumes: VolumeStore, exports: ExportTable): VolumeCommands {
  function known(id: string): VolumeRecord {
    const record = volumes.record(id)
    if (record === undefined) throw new Fault(VOLUME_UNKNOWN, `looking up volume ${id}`)
    return record
  }

  function refuseBusy(record: VolumeRecord, doing: string): void {
    if (record.serving.mode !== 'session') return
    throw new Fault(VOLUME_BUSY, `${doing} volume ${record.id}`, {
      session: record.serving.session,
    })
  }

  async function apply(record: VolumeRecord): Promise<void> {
    if (record.failed !== null) return exports.refuse(record.id, `failed: ${record.failed}`)
    switch (record.serving.mode) {
      case 'standalone': {
        try {
          exports.serve(record.id, localDevice(await volumes.open(record.id)))
        } catch (error) {
          // A rollback that was cut off and could not be finished at the start, for want of space say.
          if (!isFault(error, SNAPSHOT_BUSY)) throw error
          exports.refuse(record.id, 'it is half rolled back to a snapshot: repeat the rollback')
        }
        return
      }
      case 'standby':
        return exports.refuse(record.id, record.serving.reason)
      case 'session':
        return exports.refuse(record.id, 'its replication session is not ready at this site')
      default:
        return unreachable(record.serving)
    }
  }

  async function info(record: VolumeRecord): Promise<VolumeInfo> {
    const volume = record.failed === null ? await volumes.open(record.id) : undefined
    const left = record.serving.mode === 'standby' ? record.serving.left : undefined
    return {
      volume: record.id,
      size_bytes: record.sizeBytes,
      serving: record.serving.mode,
      allocated_bytes: (await volume?.allocatedBytes()) ?? 0,
      failed: volume?.failed ?? record.failed,
      connections: exports.connectionCount(record.id),
      ...(left?.torn === true ? { torn: true } : {}),
    }
  }

  return {
    async start() {
      for (const record of volumes.list()) await apply(record)
    },
    async create({ volume, size_bytes, serving, owner }) {
      const existed = volumes.record(volume) !== undefined
      const record = await volumes.create(volume, size_bytes, plain(serving, NOT_IN_USE), owner)
      if (!existed) await apply(record)
      return await info(record)
    },
    async delete({ volume }) {
      const record = volumes.record(volume)
      if (record === undefined) return {}
      refuseBusy(record, 'deleting')
      exports.remove(volume, 'the volume was deleted')
      await volumes.delete(volume)
      return {}
    },
    async extend({ volume, size_bytes }) {
      known(volume)
      return await info(await volumes.extend(volume, size_bytes))
    },
    async show({ volume }) {
      return await info(known(volume))
    },
    async serve({ volume, serving, reason }) {
      const before = known(volume)
      refuseBusy(before, 'switching')
      const wanted = plain(serving, reason)
      if (before.serving.mode === 'standalone' && serving === 'standalone')
        return await info(before)
      // Refusing starts before it is recorded, serving after: a crash in between errs towards refusing.
      if (serving === 'standby') exports.refuse(volume, reason)
      const record = await volumes.setServing(volume, wanted)
      if (serving === 'standalone') await apply(record)
      return await info(record)
    },
  }
}

const NOT_IN_USE = 'the volume is a standby copy and is not in use at this site'

function plain(serving: 'standalone' | 'standby', reason: string): Serving {
  return serving === 'standalone' ? { mode: 'standalone' } : { mode: 'standby', reason }
}
