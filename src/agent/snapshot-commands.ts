import { assert } from '#base/assert.ts'
import { Fault } from '#base/fault.ts'
import type { CommandAnswer, CommandRequest } from '#wire/site/commands.ts'
import type { SnapshotInfo, SnapshotMoment } from '#wire/site/snapshots.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import type { ExportTable } from '#agent/nbd/exports.ts'
import { localDevice } from '#agent/nbd/local-device.ts'
import { NOT_CONSISTENT, VOLUME_BUSY } from '#agent/replication/faults.ts'
import { SNAPSHOT_BUSY, SNAPSHOT_UNKNOWN } from '#agent/snapshots/faults.ts'
import type { Snapshot, SnapshotPurpose, Snapshots } from '#agent/snapshots/snapshots.ts'
import { VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import { forgetLeftCopy, type VolumeStore } from '#agent/volumes/volume-store.ts'

/* Snapshots of the volumes of this site that users take, or drills.
 *
 * A snapshot of volumes that a session serves notes the session's number at its moment. At a replica it is one of a prefix of the group's
 * writes, and therefore refused while the replica is none. What is half written is no snapshot either. Both are looked at when it is asked for, and
 * again at its moment: flushing ahead takes a while, and a restore or a resync may have begun meanwhile.
 *
 * A rollback changes blocks behind the back of whoever replicates the volume, so it is refused while a session has one of them. Clients of plain
 * volumes are disconnected first and find the old content when they come back. When it cannot be done, they stay refused until it is repeated.
 */

export interface SnapshotCommands {
  create(request: CommandRequest<'snapshot.create'>): Promise<CommandAnswer<'snapshot.create'>>
  list(request: CommandRequest<'snapshot.list'>): CommandAnswer<'snapshot.list'>
  delete(request: CommandRequest<'snapshot.delete'>): Promise<Record<string, never>>
  rollback(request: CommandRequest<'snapshot.rollback'>): Promise<SnapshotInfo>
  /** Throws SNAPSHOT_BUSY while one of the volumes is being set back: nobody may serve or change it meanwhile. */
  refuseWhileRolling(ids: readonly string[]): void
}

export interface SnapshotCommandsParts {
  readonly snapshots: Snapshots
  readonly volumes: VolumeStore
  readonly exports: ExportTable
  readonly statuses: () => readonly SessionStatus[]
  /** Throws while one of the volumes is half written: it is filled, or restored from a backup. */
  readonly refuseWhileHalf: (volumes: readonly string[]) => void
}

export function snapshotCommands(parts: SnapshotCommandsParts): SnapshotCommands {
  const { snapshots, volumes, exports, statuses, refuseWhileHalf } = parts

  /** The snapshot of this id, if commands may name it: kept copies and divergence records are the sessions' own. */
  function own(id: string): Snapshot | undefined {
    const found = snapshots.show(id)
    return found !== undefined && NAMED.has(found.purpose) ? found : undefined
  }

  const sessionsOf = (ids: readonly string[]): SessionStatus[] =>
    statuses().filter(({ members }) => members.some(({ volume }) => ids.includes(volume)))

  function refuseUnfit(ids: readonly string[]): void {
    refuseWhileHalf(ids)
    const torn = sessionsOf(ids).find((one) => one.role !== 'writer' && !one.consistent)
    if (torn !== undefined) {
      throw new Fault(NOT_CONSISTENT, `snapshot of volumes of session ${torn.session}`)
    }
  }

  const rolling = new Set<string>()

  function refuseWhileRolling(ids: readonly string[]): void {
    const busy = ids.find((id) => rolling.has(id))
    if (busy !== undefined) throw new Fault(SNAPSHOT_BUSY, `volume ${busy}`, { volume: busy })
  }

  async function serveAgain(id: string): Promise<void> {
    const record = volumes.record(id)
    if (record === undefined || record.serving.mode === 'session') return
    if (record.failed !== null) exports.refuse(id, `failed: ${record.failed}`)
    else if (record.serving.mode === 'standby') exports.refuse(id, record.serving.reason)
    else exports.serve(id, localDevice(await volumes.open(id)))
  }

  return {
    async create({ snapshot, volumes: ids, purpose = 'user' }) {
      for (const id of ids) {
        if (volumes.record(id) === undefined) throw new Fault(VOLUME_UNKNOWN, `volume ${id}`)
      }
      refuseUnfit(ids)
      let moments: SnapshotMoment[] = []
      const taken = await snapshots.take({
        id: snapshot,
        purpose,
        volumes: ids,
        atMoment: () => {
          refuseUnfit(ids)
          moments = sessionsOf(ids).map(({ session, epoch, sequence }) => ({
            session,
            epoch,
            sequence,
          }))
        },
      })
      return { info: infoOf(taken), moments }
    },
    list({ snapshot }) {
      const all = snapshots.list().filter(({ purpose }) => NAMED.has(purpose))
      const found = snapshot === undefined ? all : all.filter(({ id }) => id === snapshot)
      return { snapshots: found.map(infoOf) }
    },
    async delete({ snapshot }) {
      if (own(snapshot) !== undefined) await snapshots.delete(snapshot)
      return {}
    },
    async rollback({ snapshot }) {
      const found = own(snapshot)
      if (found === undefined) throw new Fault(SNAPSHOT_UNKNOWN, `snapshot ${snapshot}`)
      const ids = found.volumes.map(({ volume }) => volume)
      for (const id of ids) {
        const serving = volumes.record(id)?.serving
        if (serving?.mode !== 'session') continue
        throw new Fault(VOLUME_BUSY, `rolling back volume ${id}`, { session: serving.session })
      }
      refuseWhileRolling(ids)
      for (const id of ids) rolling.add(id)
      try {
        for (const id of ids) {
          // What clients have sent is carried out first: nothing of it may come after the rollback.
          await exports.hold(id)
          exports.refuse(id, 'the volume is being rolled back to a snapshot')
        }
        for (const id of ids) await forgetLeftCopy(volumes, id)
        await snapshots.rollback(snapshot)
      } finally {
        // One that was cut off half way stays refused, until it is repeated or the agent is started again.
        const half = snapshots.show(snapshot)?.state === 'rolling_back'
        if (!half) for (const id of ids) await serveAgain(id)
        for (const id of ids) rolling.delete(id)
      }
      const after = snapshots.show(snapshot)
      assert(after !== undefined, 'a snapshot stays when it is rolled back to')
      return infoOf(after)
    },
    refuseWhileRolling,
  }
}

const NAMED: ReadonlySet<SnapshotPurpose> = new Set(['user', 'drill'])

const infoOf = (one: Snapshot): SnapshotInfo => ({
  snapshot: one.id,
  purpose: one.purpose,
  state: one.state,
  reason: one.reason,
  taken_at: one.takenMs,
  stall_ms: one.stallMs,
  volumes: one.volumes.map(({ volume, kind, sizeBytes, keptBytes }) => ({
    volume,
    kind,
    size_bytes: sizeBytes,
    kept_bytes: keptBytes,
  })),
})
