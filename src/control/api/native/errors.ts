import Type from 'typebox'
import type { Fault } from '#base/fault.ts'
import {
  ACCESS_KEYS_FULL,
  ACCESS_KEY_UNKNOWN,
  LAST_ADMINISTRATOR,
  NAME_TAKEN,
  NAME_UNFIT,
  PASSWORD_UNFIT,
  PROJECT_IN_USE,
  PROJECT_UNKNOWN,
  USER_UNKNOWN,
} from '#control/identity/manage.ts'
import { OPERATION_NOT_CANCELLABLE, OPERATION_UNKNOWN } from '#control/operations/engine.ts'
import {
  ARBITRATION_NOT_NOW,
  ARBITRATION_PENDING,
} from '#control/operations/definitions/protection/arbitration.ts'
import { OWNERSHIP_UNKNOWN } from '#control/sites/witness.ts'
import type { Dialect } from '../http/dialect.ts'
import { Refusal } from '../http/refusal.ts'

/* Our own envelope: `{"error":{"code":"NAME_TAKEN","message":"...","hint":"..."},"request_id":"req-..."}`. Codes
 * are those of the project's catalogue of faults, and a few that only a request can cause. */

export const NATIVE_COMMON: Dialect['common'] = {
  unauthenticated: { status: 401, code: 'UNAUTHENTICATED' },
  foreign_project: { status: 403, code: 'FOREIGN_PROJECT' },
  forbidden: { status: 403, code: 'FORBIDDEN' },
  malformed_body: { status: 400, code: 'MALFORMED_BODY' },
  invalid_input: { status: 400, code: 'INVALID_INPUT' },
  too_large: { status: 413, code: 'BODY_TOO_LARGE' },
  unknown_path: { status: 404, code: 'UNKNOWN_PATH' },
  method_not_allowed: { status: 405, code: 'METHOD_NOT_ALLOWED' },
  too_many_requests: { status: 429, code: 'TOO_MANY_REQUESTS' },
  unavailable: { status: 503, code: 'UNAVAILABLE' },
  internal: { status: 500, code: 'INTERNAL' },
}

/** A refusal that says what to do next. */
class HintedRefusal extends Refusal {
  readonly hint: string

  constructor(status: number, code: string, message: string, hint: string) {
    super(status, code, message)
    this.hint = hint
  }
}

const STATUS_OF_FAULT: Readonly<Record<string, number>> = {
  [USER_UNKNOWN.code]: 404,
  [PROJECT_UNKNOWN.code]: 404,
  [ACCESS_KEY_UNKNOWN.code]: 404,
  [OPERATION_UNKNOWN.code]: 404,
  [NAME_TAKEN.code]: 409,
  [PROJECT_IN_USE.code]: 409,
  [LAST_ADMINISTRATOR.code]: 409,
  [ACCESS_KEYS_FULL.code]: 409,
  [OPERATION_NOT_CANCELLABLE.code]: 409,
  [ARBITRATION_NOT_NOW.code]: 409,
  [ARBITRATION_PENDING.code]: 503,
  [OWNERSHIP_UNKNOWN.code]: 409,
  [NAME_UNFIT.code]: 400,
  [PASSWORD_UNFIT.code]: 400,
}

/** Faults that a caller can do something about. */
export function refusalOfFault({ kind }: Fault): Refusal | null {
  const status = STATUS_OF_FAULT[kind.code]
  return status === undefined ? null : new HintedRefusal(status, kind.code, kind.text, kind.hint)
}

export const refuse = (
  status: 400 | 404 | 409 | 503,
  code: string,
  message: string,
  hint: string,
) => new HintedRefusal(status, code, message, hint)

export function errorBody(refusal: Refusal, requestId: string): unknown {
  const { code, message } = refusal
  const hint = refusal instanceof HintedRefusal ? { hint: refusal.hint } : {}
  return { error: { code, message, ...hint }, request_id: requestId }
}

/** The same as a schema, for the document. */
export const ErrorBody = Type.Object(
  {
    error: Type.Object({
      code: Type.String(),
      message: Type.String(),
      hint: Type.Optional(Type.String({ description: 'What to do next.' })),
    }),
    request_id: Type.String(),
  },
  { description: 'Refused; the code says why.' },
)
