import type { ServerRequestRefusal } from '#control/operations/definitions/servers/server-requests.ts'
import { REFUSALS } from '../compute/refusals.ts'
import { Refusal } from '../http/refusal.ts'

/** Codes of this service, as far as this server emits them. Clients go by the status; one reads the code on paths that are not served here. */
export const ECS_CODES = {
  'Ecs.0000': [400, 'The request is malformed.'],
  'Ecs.0001': [403, 'The quota is used up.'],
  'Ecs.0002': [401, 'The token is missing, wrong or expired.'],
  'Ecs.0003': [403, 'Your role or project does not allow this operation.'],
  'Ecs.0005': [400, 'A parameter of the request is wrong.'],
  'Ecs.0010': [400, 'The address is not one of the subnet.'],
  'Ecs.0012': [409, 'The subnet has no address left.'],
  'Ecs.0100': [409, 'The state of the server does not allow this.'],
  'Ecs.0103': [400, 'The disk is not available.'],
  'Ecs.0104': [400, 'The server has no place for another disk.'],
  'Ecs.0110': [400, 'The disk that a server boots from is detached only while it is off.'],
  'Ecs.0114': [404, 'There is no such server.'],
  'Ecs.0404': [404, 'There is no such resource.'],
  'Ecs.0405': [405, 'The method is not possible here.'],
  'Ecs.0429': [429, 'Too many requests.'],
  'Ecs.0500': [500, 'Internal error. The log of the control plane has more under the request id.'],
  'Ecs.0501': [501, 'This operation is not offered by this server.'],
  'Ecs.0503': [503, 'A part of the service does not answer. Repeat the request.'],
} as const satisfies Record<string, readonly [number, string]>

export type EcsCode = keyof typeof ECS_CODES

export function refuse(code: EcsCode, message?: string): Refusal {
  const [status, text] = ECS_CODES[code]
  return new Refusal(status, code, message ?? text)
}

export const badRequest = (message: string): Refusal => refuse('Ecs.0005', message)

/** Refusals of the inventory that have a code of their own; the others have the one of their status. */
const OWN: Readonly<Partial<Record<ServerRequestRefusal, EcsCode>>> = {
  SERVER_UNKNOWN: 'Ecs.0114',
  VOLUME_NOT_AVAILABLE: 'Ecs.0103',
  TOO_MANY_DISKS: 'Ecs.0104',
  SERVER_ROOT_DISK: 'Ecs.0110',
  ADDRESS_OUTSIDE: 'Ecs.0010',
  SUBNET_FULL: 'Ecs.0012',
}

const BY_STATUS = { 400: 'Ecs.0005', 403: 'Ecs.0001', 404: 'Ecs.0404', 409: 'Ecs.0100' } as const

export function refusalOf(refusal: ServerRequestRefusal): Refusal {
  const [status, message] = REFUSALS[refusal]
  return new Refusal(status, OWN[refusal] ?? BY_STATUS[status], message)
}

export const common = (code: EcsCode) => ({ status: ECS_CODES[code][0], code })

export const errorBody = ({ code, message }: Pick<Refusal, 'code' | 'message'>) => ({
  error: { code, message },
})
