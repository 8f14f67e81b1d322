import type { Session, SessionEffect, SessionEvent } from '#agent/replication/session/session.ts'
import type { Plan } from '../world/plan.ts'

/** A mistake, and within how many seeds it must be found. */
export interface Plant extends Plan {
  /** What was done wrong, in a sentence. */
  readonly about: string
  /** Seeds from 1 within which it must be found. */
  readonly foundWithin: number
}

type Handle = (event: SessionEvent) => readonly SessionEffect[]

/** Puts `around` between the shell and the session's decisions. */
export function wrapHandle(
  session: Session,
  around: (event: SessionEvent, handle: Handle) => readonly SessionEffect[],
): void {
  const handle = session.handle.bind(session)
  session.handle = (event) => around(event, handle)
}
