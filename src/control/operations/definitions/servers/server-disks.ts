import { Fault, fault } from '#base/fault.ts'
import { sleep } from '#base/clock.ts'
import { setDiskState, takeDiskOut } from '#control/resources/servers.ts'
import type { Transaction } from '#control/store/store.ts'
import type { ServerInfo } from '#wire/site/servers.ts'
import { operation, step, type StepContext } from '../../operation.ts'
import { defineServer, raiseGeneration, theServer } from './server-definition.ts'

/* Disks come to servers and leave them.
 *
 * The request has put the disk's row into the state `attaching` or `detaching` and raised the generation; the operation gives the agent
 * the new definition and waits until the guest has the disk, or has let go of it. Only then another server may have it.
 *
 * When attaching fails, nobody knows whether the guest has the disk. So it does not become available: it is `detaching` then,
 * and free when its agent has said that the guest does not have it (power-sync.ts). When detaching fails it is attached again.
 */

export const DISK_NOT_TAKEN = fault({
  code: 'DISK_NOT_TAKEN',
  retry: 'never',
  text: 'The guest did not get the disk.',
  hint: "Look at the reason, and at the log of the site's agent; attach the disk while the server is off.",
})
export const DISK_NOT_RELEASED = fault({
  code: 'DISK_NOT_RELEASED',
  retry: 'never',
  text: 'The guest does not let go of the disk.',
  hint: 'Unmount the disk in the guest and repeat, or detach it while the server is off.',
})

export interface DiskInput {
  readonly volume: string
}

/** A guest that takes part has done it in less than a second. One that boots does not listen for a while. */
const TAKE_MS = 20_000
const RELEASE_MS = 60_000
const POLL_MS = 200
/** A guest that boots forgets what it was asked; the definition again is the question again. */
const ASK_AGAIN_MS = 3_000

export const attachDisk = operation<DiskInput>('server.attach', {
  version: 1,
  steps: [
    step('plug', {
      act: async (ctx) => {
        const { volume } = ctx.input
        const has = (info: ServerInfo) =>
          info.power === 'off' || info.disks.some((disk) => disk.volume === volume)
        const info = await defineUntil(ctx, has, TAKE_MS)
        if (has(info)) return
        const why = info.reason ?? 'no reason was given'
        throw new Fault(DISK_NOT_TAKEN, `attaching ${volume} to ${ctx.resourceId}: ${why}`)
      },
      record: (tx, ctx) => setState(tx, ctx, 'attached'),
    }),
  ],
  failed: async (tx, ctx) => {
    await setState(tx, ctx, 'detaching')
    await raiseGeneration(tx, ctx.resourceId)
  },
})

export const detachDisk = operation<DiskInput>('server.detach', {
  version: 1,
  steps: [
    step('unplug', {
      act: async (ctx) => {
        const { volume } = ctx.input
        const info = await defineUntil(ctx, (one) => released(one, volume), RELEASE_MS)
        if (released(info, volume)) return
        throw new Fault(DISK_NOT_RELEASED, `detaching ${volume} from ${ctx.resourceId}`)
      },
      record: (tx, ctx) =>
        takeDiskOut(tx, ctx.resourceId, ctx.input.volume, ctx.services.clock.wallMs()),
    }),
  ],
  failed: async (tx, ctx) => {
    await setState(tx, ctx, 'attached')
    await raiseGeneration(tx, ctx.resourceId)
  },
})

/** The guest does not have the volume, and its definition does not name it. */
export const released = (info: ServerInfo, volume: string): boolean =>
  !info.releasing.includes(volume) && !info.disks.some((disk) => disk.volume === volume)

const setState = (tx: Transaction, ctx: StepContext<DiskInput>, state: 'attached' | 'detaching') =>
  setDiskState(tx, ctx.resourceId, ctx.input.volume, state, ctx.services.clock.wallMs())

/** Gives the agent the definition and looks until the answer is as it should be, or the time is over. */
async function defineUntil(
  ctx: StepContext<DiskInput>,
  done: (info: ServerInfo) => boolean,
  limitMs: number,
): Promise<ServerInfo> {
  const { services, signal, resourceId: server } = ctx
  const giveUpMs = services.clock.bootMs() + limitMs
  const { az } = await theServer(services.store.db, server)
  for (;;) {
    const askedMs = services.clock.bootMs()
    let info = await defineServer(services, server, { signal })
    while (!done(info) && services.clock.bootMs() < askedMs + ASK_AGAIN_MS) {
      await sleep(services.clock, POLL_MS, signal)
      info = await services.sites.command(az, 'server.show', { server }, { signal })
    }
    if (done(info) || services.clock.bootMs() >= giveUpMs) return info
  }
}
