import { Fault, isFault } from '#base/fault.ts'
import { knock, NOBODY_THERE } from '#base/system/door.ts'
import type { LocalAsk, LocalSessions } from '#wire/site/local.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import { AGENT_ABSENT, AGENT_REFUSED } from './faults.ts'

export type { LocalSessions } from '#wire/site/local.ts'
export type { SessionStatus } from '#wire/site/witness.ts'

/* An agent's door at its own host, for when no control plane answers. */

/** Code of a refusal of the agent, or null for other errors. */
export function agentRefusal(error: unknown): string | null {
  if (!isFault(error, AGENT_REFUSED)) return null
  return typeof error.detail['code'] === 'string' ? error.detail['code'] : null
}

/** `socket`: `agent.sock` in the agent's data directory. Throws AGENT_ABSENT, AGENT_REFUSED. */
export async function agentSessions(socket: string): Promise<LocalSessions> {
  return (await ask(socket, { command: 'sessions' })) as LocalSessions
}

/** Break-glass; settles when the volumes may be written at this site. */
export async function promoteSession(
  socket: string,
  session: string,
  force: boolean,
): Promise<SessionStatus> {
  return (await ask(socket, {
    command: 'promote',
    session,
    confirm: session,
    force,
  })) as SessionStatus
}

async function ask(socket: string, request: LocalAsk): Promise<unknown> {
  let reply: unknown
  try {
    reply = await knock(socket, request)
  } catch (error) {
    if (isFault(error, NOBODY_THERE)) {
      throw new Fault(AGENT_ABSENT, `asking at ${socket}`, { socket }, error)
    }
    throw error
  }
  if (typeof reply === 'object' && reply !== null && 'error' in reply) {
    const code = 'code' in reply ? String(reply.code) : ''
    throw new Fault(AGENT_REFUSED, `${code}: ${String(reply.error)}`, { code })
  }
  return reply
}
