import { Fault, fault, isFault } from '#base/fault.ts'
import { deletePort, movePort, portsOf } from '#control/resources/networks.ts'
import { deleteServerRow, disksOf, takeDiskOut } from '#control/resources/servers.ts'
import { addChore } from '#control/resources/surroundings.ts'
import {
  attachmentsOf,
  deleteVolumeRow,
  moveVolume,
  readVolume,
  readVolumes,
} from '#control/resources/volumes.ts'
import { refusalCode, SITE_REFUSED } from '#control/sites/client.ts'
import type { Transaction } from '#control/store/store.ts'
import { VOLUME_MOVES, type VolumeStatus } from '#domain/volume.ts'
import { childrenStep, operation, step, type StepContext } from '../../operation.ts'
import { type RemovalChore, theServer } from './server-definition.ts'
import { endTask, faultText } from './servers.ts'
import { unlessSilent } from '../protection/session.ts'

/* The end of a server.
 *
 *     remove           the agent ends the guest and forgets it; then its disks are nobody's, its own ports are gone
 *     delete_volumes   those disks that go with it; then the row
 *
 * A silent site does not hold it up: it is told when it comes back. Until then its guest may still run there with the disks, which are
 * at that site only; `defineServer` gives none of them to another guest before.
 */

export const DISK_IN_MOTION = fault({
  code: 'DISK_IN_MOTION',
  retry: 'later',
  text: 'A disk of the server is being extended.',
  hint: 'It is repeated by itself.',
})

export interface DeleteServer {
  /** Also disks that were not marked to go with the server. */
  readonly deleteVolumes: boolean
}

interface Removed {
  readonly told: boolean
  /** Disks that go with it. */
  readonly volumes: readonly string[]
}

type Ending = 'gone' | 'owed' | 'refused'

export const deleteServer = operation<DeleteServer>('server.delete', {
  version: 1,
  steps: [
    step<DeleteServer, Removed>('remove', {
      act: async (ctx) => {
        const { services, signal, resourceId: server } = ctx
        const { az } = await theServer(services.store.db, server)
        const volumes = await services.store.read((db) => goingWith(db, ctx))
        const told = await unlessSilent(ctx, az, () =>
          services.sites.command(az, 'server.remove', { server }, { signal }),
        )
        return { told, volumes }
      },
      record: (tx, ctx, removed) => recordRemoved(tx, ctx, removed),
    }),
    step<DeleteServer, Record<string, Ending>>('delete_volumes', {
      act: async (ctx) => {
        const { az } = await theServer(ctx.services.store.db, ctx.resourceId)
        const endings: Record<string, Ending> = {}
        for (const volume of removedOf(ctx).volumes) {
          endings[volume] = await deleteVolumeAt(ctx, az, volume)
        }
        return endings
      },
      record: async (tx, ctx, endings) => {
        const now = ctx.services.clock.wallMs()
        for (const [volume, ending] of Object.entries(endings)) {
          const row = await readVolume(tx, volume)
          if (row?.status !== 'deleting') continue
          if (ending === 'refused') {
            await moveVolume(tx, volume, 'error_deleting', now)
            continue
          }
          if (ending === 'owed') {
            const chore = { site: row.az, command: 'volume.delete', request: { volume } }
            await addChore(tx, chore, now)
          }
          await deleteVolumeRow(tx, volume)
        }
        await deleteServerRow(tx, ctx.resourceId)
      },
    }),
  ],
  failed: async (tx, ctx, failure) => {
    const now = ctx.services.clock.wallMs()
    const removed = ctx.results['remove'] as Removed | undefined
    for (const volume of removed?.volumes ?? []) {
      const row = await readVolume(tx, volume)
      if (row?.status === 'deleting') await moveVolume(tx, volume, 'error_deleting', now)
    }
    await endDeletion(tx, ctx, faultText(ctx, failure, removed === undefined))
  },
})

const removedOf = (ctx: StepContext<DeleteServer>) => ctx.results['remove'] as Removed

/** Waits for operations on several servers, which were submitted together with it. */
export const deleteServers = operation<Record<string, never>>('server.delete-many', {
  version: 1,
  steps: [childrenStep('servers', { submit: async () => {} })],
  failed: async () => {},
})

/** Disks of the server that are to be deleted: no pair has them, and no other server. */
async function goingWith(
  db: Parameters<typeof disksOf>[0],
  ctx: StepContext<DeleteServer>,
): Promise<string[]> {
  const disks = (await disksOf(db, [ctx.resourceId])).get(ctx.resourceId) ?? []
  const rows = await readVolumes(
    db,
    disks.map((disk) => disk.volume),
  )
  const going: string[] = []
  for (const disk of disks) {
    const row = rows.get(disk.volume)
    if (row === undefined) continue
    if (row.status === 'extending') {
      throw new Fault(DISK_IN_MOTION, `deleting server ${ctx.resourceId}: ${disk.volume}`)
    }
    const marked = ctx.input.deleteVolumes || disk.delete_with_server === 1
    if (marked && row.pair === null && attachmentsOf(row).length === 1) going.push(row.id)
  }
  return going
}

async function recordRemoved(
  tx: Transaction,
  ctx: StepContext<DeleteServer>,
  { told, volumes }: Removed,
): Promise<void> {
  const { resourceId: server } = ctx
  const now = ctx.services.clock.wallMs()
  const { az } = await theServer(tx, server)
  const disks = (await disksOf(tx, [server])).get(server) ?? []
  if (!told) {
    const request: RemovalChore = { server, volumes: disks.map(({ volume }) => volume) }
    await addChore(tx, { site: az, command: 'server.remove', request }, now)
  }
  for (const { volume } of disks) {
    await takeDiskOut(tx, server, volume, now)
    // Its creation was overtaken while it waited, and will find no server.
    if ((await readVolume(tx, volume))?.status === 'creating') {
      await moveVolume(tx, volume, 'error', now)
    }
    const row = await readVolume(tx, volume)
    if (row === undefined || row.pair !== null || !volumes.includes(volume)) continue
    if (VOLUME_MOVES[row.status as VolumeStatus].includes('deleting')) {
      await moveVolume(tx, volume, 'deleting', now)
    }
  }
  for (const port of (await portsOf(tx, [server])).get(server) ?? []) {
    if (port.delete_with_server === 1) await deletePort(tx, port.id)
    else await movePort(tx, port.id, null, 0)
  }
}

async function deleteVolumeAt(
  ctx: StepContext<DeleteServer>,
  az: string,
  volume: string,
): Promise<Ending> {
  const { sites, log } = ctx.services
  try {
    const told = await unlessSilent(ctx, az, () =>
      sites.command(az, 'volume.delete', { volume }, { signal: ctx.signal }),
    )
    return told ? 'gone' : 'owed'
  } catch (error) {
    if (refusalCode(error) === 'VOLUME_UNKNOWN') return 'gone'
    if (!isFault(error, SITE_REFUSED)) throw error
    log.warn(
      { err: error, volume, server: ctx.resourceId },
      'a disk stays although its server goes',
    )
    return 'refused'
  }
}

/** It was not deleted after all, and may be asked to again. */
async function endDeletion(
  tx: Transaction,
  ctx: StepContext<DeleteServer>,
  text: string,
): Promise<void> {
  await endTask(tx, ctx, { status: 'error', fault: text }, { deleting: true })
}
