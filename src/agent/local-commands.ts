import { chmod } from 'node:fs/promises'
import { join } from 'node:path'
import { Compile } from 'typebox/compile'
import { Fault, fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { openDoor, PATH_TOO_LONG } from '#base/system/door.ts'
import type { SessionHost } from '#agent/replication/types.ts'
import { LocalAsk, type LocalSessions } from '#wire/site/local.ts'

/* The agent's door for the operator at its host: what runs here, and break-glass. It needs neither control plane nor network.
 *
 * The socket lies in the data directory (mode 0700) and is itself of mode 0600. The data directory is held by this process alone
 * (lock of the volumes), so a socket found there is a dead one.
 */

export const LOCAL_REQUEST = fault({
  code: 'LOCAL_REQUEST',
  retry: 'never',
  text: 'The agent was asked for something that it does not do at its own host.',
  hint: 'Use `holdfast agent sessions` and `holdfast agent promote` of the release that runs as the agent.',
})
export const LOCAL_ONLY = fault({
  code: 'LOCAL_ONLY',
  retry: 'never',
  text: 'Break-glass is taken at the host of the surviving site only.',
  hint: 'Run `holdfast agent promote SESSION --force` there. Where a control plane answers, fail the group over instead.',
})

const SOCKET = 'agent.sock'
const asks = Compile(LocalAsk)

export interface LocalCommandsOptions {
  readonly dataDir: string
  readonly site: string
  readonly agent: string
  readonly sessions: SessionHost
  readonly controlReached: () => boolean
  readonly log: Log
}

/** A data directory whose name is too long for a socket in it leaves the agent without a door; the log says so. */
export async function openLocalDoor(
  options: LocalCommandsOptions,
): Promise<{ close(): Promise<void> }> {
  const { dataDir, log } = options
  const path = join(dataDir, SOCKET)
  try {
    const door = await openDoor(path, (request) => answer(options, request))
    await chmod(path, 0o600)
    return door
  } catch (error) {
    if (!isFault(error, PATH_TOO_LONG)) throw error
    log.error({ err: error }, 'this agent has no local door: break-glass is not possible here')
    return { close: async () => {} }
  }
}

async function answer(options: LocalCommandsOptions, request: unknown): Promise<object> {
  const { site, agent, sessions, log } = options
  if (!asks.Check(request)) throw new Fault(LOCAL_REQUEST, 'reading a local request')
  switch (request.command) {
    case 'sessions': {
      const shown: LocalSessions = {
        site,
        agent,
        control_reached: options.controlReached(),
        sessions: sessions.statuses(),
      }
      return shown
    }
    case 'promote': {
      const { session, confirm, force } = request
      if (confirm !== session) {
        throw new Fault(LOCAL_REQUEST, `promoting ${session}: it was not confirmed by its name`)
      }
      log.warn(
        { session, force },
        'break-glass: an operator at this host makes this site the writer',
      )
      return await sessions.command('session.promote', { session, force })
    }
  }
}
