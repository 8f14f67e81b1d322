/** What a caller may do in a scope. Each role includes the ones below it. */
export type Role = 'admin' | 'operator' | 'reader'

/** From the weakest to the strongest. */
export const ROLES: readonly Role[] = ['reader', 'operator', 'admin']

export const isRole = (text: string): text is Role => (ROLES as readonly string[]).includes(text)

/** True when `held` is `wanted` or stronger; nobody holds anything with null. */
export const atLeast = (held: Role | null, wanted: Role): boolean =>
  held !== null && ROLES.indexOf(held) >= ROLES.indexOf(wanted)

/** The stronger of two roles. */
export const stronger = (a: Role | null, b: Role | null): Role | null =>
  a === null ? b : b === null ? a : atLeast(a, b) ? a : b

/** An id with the name that it has now. */
export interface Named {
  readonly id: string
  readonly name: string
}

/**
 * Who makes a request, and where. Looked up anew for every request, so that a disabled user, a withdrawn role or a
 * revoked token has no effect on any request after it.
 */
export interface Principal {
  readonly user: Named
  /** The user's domain. */
  readonly domain: Named
  /** The project that the token or the signature is bound to; null: none (domain scope or unscoped). */
  readonly project: Named | null
  /** The strongest role in `project`, or in the domain for a domain-scoped token; null when unscoped. */
  readonly role: Role | null
  /**
   * The strongest role that was granted on the whole domain, which every project of it inherits. Null also when the
   * credential was made for one project only.
   */
  readonly domainRole: Role | null
  /** How the caller proved who they are. */
  readonly by: 'token' | 'signature'
  /** The access key of a signature; null for tokens. */
  readonly accessKey: string | null
}
