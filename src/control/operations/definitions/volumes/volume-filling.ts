import { sleep } from '#base/clock.ts'
import { addChore } from '#control/resources/surroundings.ts'
import { moveVolume } from '#control/resources/volumes.ts'
import { GIB } from '#domain/volume.ts'
import { operation, step, type StepContext } from '../../operation.ts'
import { ownerOf } from '../protection/session.ts'
import { tellLimit } from './volumes.ts'

/* A new volume with content. The row exists since the request was accepted.
 *
 *     snapshot   clone it ─► grow
 *     volume     take a snapshot of its own ─► clone that ─► grow ─► delete the snapshot
 *     image      an empty volume ─► fill it
 *
 * Clones and fills go on at the site by themselves and are asked for until they are done; a site that was restarted begins anew. Nobody is told of
 * the volume's name before it is available, and a volume whose making failed can only be deleted.
 */

export type VolumeSource =
  | { readonly kind: 'snapshot'; readonly snapshot: string; readonly volume: string }
  | { readonly kind: 'volume'; readonly volume: string }
  /** `content`: the name under which agents know the image. */
  | { readonly kind: 'image'; readonly content: string }

export interface CreateFilledVolume {
  readonly az: string
  readonly sizeGb: number
  readonly source: VolumeSource
}

/** Between two questions how far it is. The agent waits a little itself. */
const POLL_MS = 200
/** A command that takes a snapshot flushes ahead first. */
const SNAPSHOT_MS = 280_000

type Context = StepContext<CreateFilledVolume>

export const createFilledVolume = operation<CreateFilledVolume>('volume.create-filled', {
  version: 1,
  steps: [
    step('take', {
      act: async (ctx) => {
        const { source, az } = ctx.input
        if (source.kind !== 'volume') return
        const request = { snapshot: ctx.id, volumes: [source.volume] }
        const options = { signal: ctx.signal, timeoutMs: SNAPSHOT_MS }
        await ctx.services.sites.command(az, 'snapshot.create', request, options)
      },
    }),
    step('fill', {
      weight: 10,
      act: async (ctx) => {
        const { source } = ctx.input
        if (source.kind === 'image') await fillFrom(ctx, source.content)
        else await cloneFrom(ctx, source)
      },
    }),
    step('settle', {
      act: async (ctx) => {
        const { source, az, sizeGb } = ctx.input
        const volume = ctx.resourceId
        const grown = { volume, size_bytes: sizeGb * GIB }
        await ctx.services.sites.command(az, 'volume.extend', grown, { signal: ctx.signal })
        if (source.kind === 'volume') {
          const request = { snapshot: ctx.id }
          const options = { signal: ctx.signal, timeoutMs: SNAPSHOT_MS }
          await ctx.services.sites.command(az, 'snapshot.delete', request, options)
        }
        await tellLimit(ctx)
      },
      record: (tx, ctx) => moveVolume(tx, ctx.resourceId, 'available', ctx.services.clock.wallMs()),
    }),
  ],
  failed: async (tx, ctx) => {
    const now = ctx.services.clock.wallMs()
    await moveVolume(tx, ctx.resourceId, 'error', now)
    const { source, az: site } = ctx.input
    if (source.kind !== 'volume') return
    await addChore(tx, { site, command: 'snapshot.delete', request: { snapshot: ctx.id } }, now)
  },
})

async function cloneFrom(
  ctx: Context,
  source: Exclude<VolumeSource, { kind: 'image' }>,
): Promise<void> {
  const { services, signal, resourceId, input } = ctx
  const snapshot = source.kind === 'snapshot' ? source.snapshot : ctx.id
  const request = { snapshot, volume: source.volume, new_volume: resourceId, owner: ownerOf(ctx) }
  for (;;) {
    const info = await services.sites.command(input.az, 'snapshot.clone', request, { signal })
    if (info.state === 'cloned') return
    await ctx.progress((100 * info.copied_bytes) / Math.max(1, info.total_bytes))
    await sleep(services.clock, POLL_MS, signal)
  }
}

async function fillFrom(ctx: Context, image: string): Promise<void> {
  const { services, signal, resourceId: volume, input } = ctx
  const empty = {
    volume,
    size_bytes: input.sizeGb * GIB,
    serving: 'standalone' as const,
    owner: ownerOf(ctx),
  }
  await services.sites.command(input.az, 'volume.create', empty, { signal })
  const request = { volume, image, fill: ctx.id }
  for (;;) {
    const info = await services.sites.command(input.az, 'volume.fill', request, { signal })
    if (info.state === 'filled') return
    await ctx.progress(Math.min(100, (100 * info.done_bytes) / Math.max(1, info.total_bytes)))
    await sleep(services.clock, POLL_MS, signal)
  }
}
