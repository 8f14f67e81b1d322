import type { RequestServices } from '#control/operations/definitions/requests.ts'
import type { SiteClient } from '#control/sites/client.ts'

/** What the handlers of both server APIs work with. */
export interface ComputeServices extends RequestServices {
  /** Commands to the agents: the console of a server is read from its site. */
  readonly commands: SiteClient
  /** Scheme, host and port of links when a request does not tell. */
  readonly publicUrl: string
}
