import {
  deleteVolumeRow,
  moveVolume,
  readVolume,
  updateVolume,
} from '#control/resources/volumes.ts'
import { attachmentsOf } from '#control/resources/volumes.ts'
import { orderLimit } from '#control/resources/volume-limits.ts'
import { GIB } from '#domain/volume.ts'
import { wireLimit } from '../../limit-sync.ts'
import { refusalCode } from '#control/sites/client.ts'
import { childrenStep, operation, step, type StepContext, StepWaits } from '../../operation.ts'
import { isReadOrWritten } from '../backup/backup-turns.ts'
import { ownerOf } from '../protection/session.ts'

/** Operations on single volumes. The row exists since the request was accepted. */

/** Parents of operations on several volumes have a resource of their own, so that they queue behind nothing. */
export const VOLUME_BATCH = 'volume-batch'

export interface CreateVolume {
  readonly az: string
  readonly sizeGb: number
}

export const createVolume = operation<CreateVolume>('volume.create', {
  version: 1,
  steps: [
    step('create', {
      act: async (ctx) => {
        await ctx.services.sites.command(
          ctx.input.az,
          'volume.create',
          {
            volume: ctx.resourceId,
            size_bytes: ctx.input.sizeGb * GIB,
            serving: 'standalone',
            owner: ownerOf(ctx),
          },
          { signal: ctx.signal },
        )
        await tellLimit(ctx)
      },
      record: (tx, ctx) => moveVolume(tx, ctx.resourceId, 'available', ctx.services.clock.wallMs()),
    }),
  ],
  failed: (tx, ctx) => moveVolume(tx, ctx.resourceId, 'error', ctx.services.clock.wallMs()),
})

/** Between two looks whether the backup or restore of a disk that is to be deleted has ended. */
const BACKUP_PAUSE_MS = 5_000

export interface DeleteVolume {
  readonly az: string
}

export const deleteVolume = operation<DeleteVolume>('volume.delete', {
  version: 1,
  steps: [
    step('delete', {
      act: async (ctx) => {
        const { services, resourceId: volume, signal } = ctx
        // Asked first: by the time of the refusal the backup, or the restore, may be over.
        const atWork = await isReadOrWritten(services.store.db, volume)
        try {
          await services.sites.command(ctx.input.az, 'volume.delete', { volume }, { signal })
        } catch (error) {
          const held = ['VOLUME_HAS_SNAPSHOTS', 'VOLUME_BUSY'].includes(refusalCode(error) ?? '')
          if (atWork && held) throw new StepWaits(BACKUP_PAUSE_MS)
          throw error
        }
      },
      record: (tx, ctx) => deleteVolumeRow(tx, ctx.resourceId),
    }),
  ],
  failed: (tx, ctx) =>
    moveVolume(tx, ctx.resourceId, 'error_deleting', ctx.services.clock.wallMs()),
})

export interface ExtendVolume {
  readonly az: string
  readonly newSizeGb: number
}

export const extendVolume = operation<ExtendVolume>('volume.extend', {
  version: 1,
  steps: [
    step('grow', {
      act: (ctx) =>
        ctx.services.sites.command(
          ctx.input.az,
          'volume.extend',
          { volume: ctx.resourceId, size_bytes: ctx.input.newSizeGb * GIB },
          { signal: ctx.signal },
        ),
      record: async (tx, ctx) => {
        const now = ctx.services.clock.wallMs()
        const row = await readVolume(tx, ctx.resourceId)
        if (row === undefined) return
        await updateVolume(tx, row.id, { size_gb: ctx.input.newSizeGb }, now)
        await moveVolume(tx, row.id, attachmentsOf(row).length > 0 ? 'in-use' : 'available', now)
      },
    }),
  ],
  failed: (tx, ctx) =>
    moveVolume(tx, ctx.resourceId, 'error_extending', ctx.services.clock.wallMs()),
})

/** Waits for the creation of several volumes, which was submitted together with it. */
export const createVolumes = operation<Record<string, never>>('volume.create-many', {
  version: 1,
  steps: [childrenStep('volumes', { submit: async () => {} })],
  failed: async () => {},
})

export interface RetypeVolume {
  readonly from: string
  readonly to: string
}

/**
 * The row has the new type since the request; the site learns here what that means. A site that refuses leaves the old type; unless the disk
 * has become one of a pair meanwhile, whose other disk has the new one: then that stays, and is brought to the site like any limit.
 */
export const retypeVolume = operation<RetypeVolume>('volume.retype', {
  version: 1,
  steps: [step('limit', { act: tellLimit })],
  failed: async (tx, ctx) => {
    const row = await readVolume(tx, ctx.resourceId)
    if (row?.volume_type !== ctx.input.to || row.pair !== null) return
    const back = { volume_type: ctx.input.from }
    await updateVolume(tx, row.id, back, ctx.services.clock.wallMs())
  },
})

/** Brings the standing order of a volume to its site: whether it may be written. */
export const limitVolume = operation<Record<string, never>>('volume.limit', {
  version: 1,
  steps: [step('limit', { act: tellLimit })],
  failed: async () => {},
})

/**
 * What clients may do with a volume, told to its site now: how much per second, and whether they may change it. Volumes that have no limit and
 * never had one need no order.
 */
export async function tellLimit(
  ctx: StepContext<unknown>,
  volume: string = ctx.resourceId,
): Promise<void> {
  const { store, sites, clock } = ctx.services
  const order = await store.write(async (tx) => {
    const row = await readVolume(tx, volume)
    return row === undefined ? null : await orderLimit(tx, row, clock.wallMs())
  })
  if (order === null || order.revision === 0) return
  const request = { limits: [wireLimit(order)] }
  await sites.command(order.az, 'volume.limit', request, { signal: ctx.signal })
}
