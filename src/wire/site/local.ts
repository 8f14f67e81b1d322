import Type, { type Static } from 'typebox'
import { SessionStatus } from './witness.ts'

/**
 * What an agent takes at the door in its own data directory (`agent.sock`, mode 0600): one JSON line asks, one answers. For the operator at
 * the host, when no control plane answers. Whoever may open the socket may read and write the volumes' files as well, so
 * the door asks for no other proof.
 */
export const LocalAsk = Type.Union([
  Type.Object({ command: Type.Literal('sessions') }),
  /** Break-glass. `confirm`: the session once more. Repeating it is harmless. */
  Type.Object({
    command: Type.Literal('promote'),
    session: Type.String({ minLength: 1, maxLength: 64 }),
    confirm: Type.String(),
    force: Type.Boolean(),
  }),
])
export type LocalAsk = Static<typeof LocalAsk>

export const LocalSessions = Type.Object({
  site: Type.String(),
  agent: Type.String(),
  /** False: the last report to the control plane failed. */
  control_reached: Type.Boolean(),
  sessions: Type.Array(SessionStatus),
})
export type LocalSessions = Static<typeof LocalSessions>
