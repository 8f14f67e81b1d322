import type { Principal } from './principal.ts'

/** Turns credentials into a caller. */
export interface Authenticator {
  byToken(token: string): Promise<Principal | Denial>
  bySignature(request: SignedRequest): Promise<Principal | Denial>
}

/** Why nobody is behind the credentials. Always answered with 401. */
export interface Denial {
  /** For the caller. Does not tell a wrong password from an unknown user. */
  readonly denied: string
  /** The gateway's code for refused signatures; null: the dialect's own. */
  readonly code: string | null
}

export const isDenial = (outcome: Principal | Denial): outcome is Denial => 'denied' in outcome

/** Everything a signature covers, exactly as received. */
export interface SignedRequest {
  readonly method: string
  /** Path and query as on the wire, not decoded. */
  readonly target: string
  /** Names in lower case; several headers of one name joined as Node does. */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>
  readonly body: Uint8Array
  /** `:project_id` of the route; null when it has none. */
  readonly projectInPath: string | null
  /** Address of the client: failures are counted by it. */
  readonly source: string
}
