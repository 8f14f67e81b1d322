import { Refusal } from '../http/refusal.ts'

/** The codes of the service, as far as this server emits them, with the HTTP status published for each; some refusals are 500 by contract. */
export const CSBS_CODES = {
  'CSBS.0001': [400, 'A user may have 32 policies.'],
  'CSBS.1001': [500, 'The policy is being run by hand just now.'],
  'CSBS.2003': [400, 'The backup is being made, restored, copied or deleted just now.'],
  'CSBS.2004': [400, 'The policy is running just now.'],
  'CSBS.3000': [404, 'There is no such policy.'],
  'CSBS.3001': [404, 'There is no such backup.'],
  'CSBS.4000': [400, 'The state of the backup does not allow a restore.'],
  'CSBS.6000': [400, 'There is no such server.'],
  'CSBS.6003': [400, 'Only servers are backed up.'],
  'CSBS.6004': [400, 'A server belongs to another policy already.'],
  'CSBS.6005': [400, 'The state of the server does not allow a backup.'],
  'CSBS.6007': [400, 'The server has no disk to back up.'],
  'CSBS.6013': [400, 'Only servers are restored.'],
  'CSBS.6014': [400, 'A target disk is not attached to the target server.'],
  'CSBS.6015': [400, 'The state of the server does not allow a restore.'],
  'CSBS.6017': [400, 'A disk backup that is named is not part of the backup.'],
  'CSBS.6018': [400, 'Every disk backup has to be mapped, each to a disk of its own.'],
  'CSBS.6020': [400, 'The target server has no disk.'],
  'CSBS.6021': [400, 'A target disk is shared.'],
  'CSBS.6023': [500, 'The backup of a data disk is mapped to a system disk.'],
  'CSBS.6024': [400, 'A target disk is smaller than the backup.'],
  'CSBS.6025': [400, 'The backup and the server are in different zones.'],
  'CSBS.6030': [500, 'A scheduled run of the policy is active.'],
  'CSBS.6031': [400, 'A replication that somebody asked for is active.'],
  'CSBS.6032': [500, 'The policy has no server that can be backed up now.'],
  'CSBS.7000': [400, 'At most ten tags.'],
  'CSBS.7001': [404, 'There is no such tag.'],
  'CSBS.8007': [400, 'The backup is used by an image.'],
  'CSBS.9001': [400, 'A parameter is invalid.'],
  'CSBS.9006': [400, 'The quota is used up.'],
  'CSBS.9007': [400, 'The name of the policy is taken.'],
  'CSBS.9998': [500, 'A part of the service does not answer. Repeat the request.'],
  'CSBS.9999': [500, 'Internal error. The log of the control plane has more under the request id.'],
} as const satisfies Record<string, readonly [number, string]>

export type CsbsCode = keyof typeof CSBS_CODES

export function refuse(code: CsbsCode, message?: string): Refusal {
  const [status, text] = CSBS_CODES[code]
  return new Refusal(status, code, message ?? text)
}

/** The same code with another status: what the older API answers, and what the published codes have no number for. */
export const refuseAs = (status: number, code: CsbsCode, message?: string): Refusal =>
  new Refusal(status, code, message ?? CSBS_CODES[code][1])

export const invalid = (message: string): Refusal => refuse('CSBS.9001', message)

type Said = Pick<Refusal, 'status' | 'code' | 'message'>

export const flatError = ({ code, message }: Said) => ({ error_code: code, error_msg: message })

/** One client takes the first member whatever it is called, and calls a method of its value: so the fault comes first. */
export const faultError = ({ status, code, message }: Said) => ({
  [FAULT_NAMES[status] ?? 'computeFault']: {
    code: status,
    message,
    ...(status === 413 ? { retryAfter: '0' } : {}),
  },
  error_code: code,
  error_msg: message,
})

const FAULT_NAMES: Readonly<Record<number, string>> = {
  400: 'badRequest',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'itemNotFound',
  405: 'badMethod',
  409: 'conflictingRequest',
  413: 'overLimit',
  415: 'badMediaType',
  501: 'notImplemented',
  503: 'serviceUnavailable',
}

/** How both dialects spell what happens to all of them. */
export const BACKUP_COMMON = {
  unauthenticated: { status: 401, code: 'APIGW.0301' },
  foreign_project: { status: 403, code: 'CSBS.9001' },
  forbidden: { status: 403, code: 'CSBS.9001' },
  malformed_body: { status: 400, code: 'CSBS.9001' },
  invalid_input: { status: 400, code: 'CSBS.9001' },
  too_large: { status: 413, code: 'CSBS.9001' },
  unknown_path: { status: 404, code: 'CSBS.9001' },
  method_not_allowed: { status: 405, code: 'CSBS.9001' },
  too_many_requests: { status: 429, code: 'CSBS.9998' },
  unavailable: { status: 503, code: 'CSBS.9998' },
  internal: { status: 500, code: 'CSBS.9999' },
} as const
