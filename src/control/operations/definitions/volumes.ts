import {
  deleteVolumeRow,
  moveVolume,
  readVolume,
  updateVolume,
} from '#control/resources/volumes.ts'
import { attachmentsOf } from '#control/resources/volumes.ts'
import { GIB } from '#domain/volume.ts'
import { operation, step } from '../operation.ts'
import { ownerOf } from './session.ts'

/** Operations on single volumes. The row exists since the request was accepted. */
export interface CreateVolume {
  readonly az: string
  readonly sizeGb: number
}

export const createVolume = operation<CreateVolume>('volume.create', {
  version: 1,
  steps: [
    step('create', {
      act: (ctx) =>
        ctx.services.sites.command(
          ctx.input.az,
          'volume.create',
          {
            volume: ctx.resourceId,
            size_bytes: ctx.input.sizeGb * GIB,
            serving: 'standalone',
            owner: ownerOf(ctx),
          },
          { signal: ctx.signal },
        ),
      record: (tx, ctx) => moveVolume(tx, ctx.resourceId, 'available', ctx.services.clock.wallMs()),
    }),
  ],
  failed: (tx, ctx) => moveVolume(tx, ctx.resourceId, 'error', ctx.services.clock.wallMs()),
})

export interface DeleteVolume {
  readonly az: string
}

export const deleteVolume = operation<DeleteVolume>('volume.delete', {
  version: 1,
  steps: [
    step('delete', {
      act: (ctx) =>
        ctx.services.sites.command(
          ctx.input.az,
          'volume.delete',
          { volume: ctx.resourceId },
          { signal: ctx.signal },
        ),
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
