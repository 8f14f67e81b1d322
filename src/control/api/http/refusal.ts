/**
 * A request that is answered with an error on purpose. Handlers throw it; the dialect of the route puts it into its
 * own envelope. The message is for the caller: it names what is wrong and never contains a secret.
 */
export class Refusal extends Error {
  override readonly name = 'Refusal'
  /** HTTP status. */
  readonly status: number
  /** The dialect's code, e.g. `SDRS.0202`. */
  readonly code: string
  readonly headers: Readonly<Record<string, string>>

  constructor(
    status: number,
    code: string,
    message: string,
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(message)
    this.status = status
    this.code = code
    this.headers = headers
  }
}

/** Refusals that any route can meet, before or around its handler. Every dialect says how it spells each. */
export type CommonRefusal =
  /** No token and no signature, or a wrong, expired or revoked one. Always 401. */
  | 'unauthenticated'
  /** The project in the path is not the one the caller is bound to. */
  | 'foreign_project'
  /** The caller's role does not allow it. */
  | 'forbidden'
  /** The body is not JSON, or not text. */
  | 'malformed_body'
  /** A member, parameter or path segment has a wrong type or value. */
  | 'invalid_input'
  | 'too_large'
  /** No such path, or an address that cannot be read. */
  | 'unknown_path'
  | 'method_not_allowed'
  | 'too_many_requests'
  /** The state database cannot be reached, or is overloaded. */
  | 'unavailable'
  /** A mistake of ours; the log has more. */
  | 'internal'

export const COMMON_REFUSALS: readonly CommonRefusal[] = [
  'unauthenticated',
  'foreign_project',
  'forbidden',
  'malformed_body',
  'invalid_input',
  'too_large',
  'unknown_path',
  'method_not_allowed',
  'too_many_requests',
  'unavailable',
  'internal',
]
