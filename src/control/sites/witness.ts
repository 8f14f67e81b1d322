import type { Ownership, OwnershipAnswer, OwnershipRequest } from '#domain/ownership.ts'
import type { Transaction } from '#control/store/store.ts'

/** Keeps the ownership records and answers for them. */
export interface Witness {
  /** The record as it stands, or null for a session that was never registered. */
  record(session: string): Promise<Ownership | null>
  /** Registers a session in state closed, epoch 0. Again with the same sites: no change. */
  register(tx: Transaction, session: string, writer: string, replica: string): Promise<void>
  /** Forgets a closed session. Its history of changes stays. */
  forget(tx: Transaction, session: string): Promise<void>
  /** Decides, persists and only then answers. Null: unknown session. Repeating an attempt gives the same answer. */
  ask(session: string, request: OwnershipRequest, askedBy: string): Promise<OwnershipAnswer | null>
  /**
   * `ask` for operations: returns the new record or throws OWNERSHIP_REFUSED (never worth repeating) or
   * OWNERSHIP_WAIT (lease held, history not yet trusted; carries `retryAfterMs`).
   */
  change(session: string, request: OwnershipRequest, askedBy: string): Promise<Ownership>
  /** An operator vouches that the record is complete although not both sites have reported. */
  trust(session: string, askedBy: string): Promise<void>
}
