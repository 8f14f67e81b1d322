import { sleep } from '#base/clock.ts'
import type { ServerInfo } from '#wire/site/servers.ts'
import type { StepContext } from '../../operation.ts'
import { defineServer, theServer } from '../servers/server-definition.ts'

/** A guest that takes part does so in less than a second. One that boots does not listen for a while. */
const POLL_MS = 100

/**
 * Gives a server's agent the definition of now and looks until what it says of the guest is as it should be, or the time is over.
 * Answers what it said last. Faults: those of `defineServer`.
 */
export async function defineUntil(
  ctx: StepContext<unknown>,
  server: string,
  done: (info: ServerInfo) => boolean,
  limitMs: number,
): Promise<ServerInfo> {
  const { services, signal } = ctx
  const giveUpMs = services.clock.bootMs() + limitMs
  const { az } = await theServer(services.store.db, server)
  let info = await defineServer(services, server, { signal })
  while (!done(info) && services.clock.bootMs() < giveUpMs) {
    await sleep(services.clock, POLL_MS, signal)
    info = await services.sites.command(az, 'server.show', { server }, { signal })
  }
  return info
}
