import type { RequestServices } from '#control/operations/definitions/requests.ts'
import type { Log } from '#base/log.ts'
import type { Witness } from '#control/sites/witness.ts'

/** What the handlers of this dialect work with. */
export interface EvsServices extends RequestServices {
  /** Scheme, host and port of links when a request does not tell. */
  readonly publicUrl: string
  /** The ownership records, for what an action would do. */
  readonly witness: Witness
  readonly log: Log
}
