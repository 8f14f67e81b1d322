import type { Clock } from '#base/clock.ts'
import type { Store } from '#control/store/store.ts'
import type { OperationEngine } from '../engine.ts'
import type { SyncSources } from './protection/sync-views.ts'

/**
 * What the dialects call to change something: each request checks everything in one transaction, stores the
 * transient state and submits the operation, or refuses and changes nothing. Dialects turn refusals into their own codes.
 */
export interface RequestServices extends SyncSources {
  readonly store: Store
  readonly operations: OperationEngine
  readonly clock: Clock
  /** Sites of this region. */
  readonly sites: readonly string[]
}

export type Outcome<Accepted, Refusal> =
  | ({ readonly ok: true } & Accepted)
  | { readonly ok: false; readonly refusal: Refusal }

export const refused = <Refusal>(refusal: Refusal): { readonly ok: false; refusal: Refusal } => ({
  ok: false,
  refusal,
})
