import type { RequestServices } from '#control/operations/definitions/requests.ts'

/** What the handlers of this dialect work with. */
export interface NeutronServices extends Pick<RequestServices, 'store' | 'clock' | 'sites'> {
  /** Scheme, host and port of links when a request does not tell. */
  readonly publicUrl: string
}
