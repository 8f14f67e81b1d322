import { Refusal } from '../http/refusal.ts'

/** The first member of an error's body names its class; clients print the message under it. */
const CLASSES: Readonly<Record<number, string>> = {
  400: 'badRequest',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'itemNotFound',
  405: 'badMethod',
  406: 'computeFault',
  409: 'conflictingRequest',
  413: 'overLimit',
  429: 'overLimit',
  501: 'notImplemented',
  503: 'serviceUnavailable',
}

/** This API has no codes of its own below the status. */
const code = (status: number): string => CLASSES[status] ?? 'computeFault'

export const refuse = (status: number, message: string): Refusal =>
  new Refusal(status, code(status), message)

export const badRequest = (message: string): Refusal => refuse(400, message)

/** Also for a name in the place of an id: clients look for a name that way first. */
export const notFound = (message = 'There is no such resource.'): Refusal => refuse(404, message)

/** Published, and not offered by this server. */
export const notOffered = (what: string): Refusal =>
  refuse(501, `${what} is not offered by this server.`)

export const common = (status: number) => ({ status, code: code(status) })

export const errorBody = ({ status, message }: Pick<Refusal, 'status' | 'message'>) => ({
  [code(status)]: { code: status, message },
})
