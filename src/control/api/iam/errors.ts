import { STATUS_CODES } from 'node:http'
import type { Dialect } from '../http/dialect.ts'
import { Refusal } from '../http/refusal.ts'

/* Keystone's envelope: `{"error":{"code":401,"title":"Unauthorized","message":"..."}}`, where the code is the HTTP status.
 * Refused signatures carry the gateway's own members as well, since clients that sign read those. */

const status = (of: number) => ({ status: of, code: String(of) })

export const IAM_COMMON: Dialect['common'] = {
  unauthenticated: status(401),
  foreign_project: status(403),
  forbidden: status(403),
  malformed_body: status(400),
  invalid_input: status(400),
  too_large: status(413),
  unknown_path: status(404),
  method_not_allowed: status(405),
  too_many_requests: status(429),
  unavailable: status(503),
  internal: status(500),
}

export function errorBody(refusal: Refusal, requestId: string): unknown {
  const { status: code, message } = refusal
  const error = { code, title: STATUS_CODES[code] ?? 'Error', message }
  return refusal.code.startsWith('APIGW.')
    ? { error, error_code: refusal.code, error_msg: message, request_id: requestId }
    : { error }
}

/** A refusal of this dialect. */
export const refuse = (
  code: 400 | 401 | 403 | 404 | 409,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): Refusal => new Refusal(code, String(code), message, headers)
