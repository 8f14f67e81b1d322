import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import type { SiteClient } from '#control/sites/client.ts'
import type { Witness } from '#control/sites/witness.ts'
import type { Store } from '#control/store/store.ts'

/** What steps may use; built by the composition root, replaced by fakes in tests. */
export interface OperationServices {
  readonly store: Store
  readonly clock: Clock
  readonly log: Log
  /** Commands to the agents of a site. */
  readonly sites: SiteClient
  /** What the agents last said about themselves and their sessions. */
  readonly agents: AgentRegistry
  /** The ownership records. */
  readonly witness: Witness
}
