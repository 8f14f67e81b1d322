import type { RequestServices } from '#control/operations/definitions/requests.ts'

/** What the handlers of this dialect work with. */
export type VpcServices = Pick<RequestServices, 'store' | 'clock' | 'sites'>
