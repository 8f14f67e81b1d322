import type { Clock } from '#base/clock.ts'
import type { Store } from '#control/store/store.ts'
import { callerOf } from './caller.ts'
import {
  findDomain,
  findProject,
  findProjectByName,
  findUser,
  findUserByName,
  type Db,
  type Reference,
} from './directory.ts'
import type { Passwords } from './passwords.ts'
import type { Principal } from './principal.ts'
import { throttle } from './throttle.ts'
import { findToken, issueToken, revokeToken, type Token, type TokenScope } from './tokens.ts'

/* Tokens against a password or against another token. */

export type Credential =
  | {
      readonly method: 'password'
      readonly user: { readonly id: string } | { readonly name: string; readonly domain: Reference }
      readonly password: string
    }
  | { readonly method: 'token'; readonly token: string }

/** `default`: the user's default project if there is one that may be used, else none. */
export type WantedScope =
  | { readonly kind: 'default' | 'none' }
  | { readonly kind: 'domain'; readonly domain: Reference }
  | { readonly kind: 'project'; readonly id: string }
  /** Without a domain: the user's. */
  | { readonly kind: 'project'; readonly name: string; readonly domain: Reference | null }

/** A token and everything that may be said about it. */
export interface TokenView {
  readonly token: Token
  readonly caller: Principal
}

export interface IssuedToken extends TokenView {
  /** The token itself; shown once. */
  readonly secret: string
}

/** Always answered with 401. */
export interface LoginDenied {
  readonly denied: string
  /** Seconds after which a repeat makes sense; null: it does not. */
  readonly retryAfterS: number | null
  /** True: not worth an audit row, since the rows before it already say that somebody is guessing. */
  readonly throttled: boolean
  /** Id of the user that was meant, for the audit log; null: no user has that name. */
  readonly user: string | null
}

export interface Logins {
  /** `source` is the client's address. Faults: LOGINS_BUSY. */
  issue(
    credential: Credential,
    scope: WantedScope,
    source: string,
  ): Promise<IssuedToken | LoginDenied>
  describe(token: string): Promise<TokenView | null>
  /** Ends the token and all that were made from it. False: it was not valid. */
  revoke(token: string): Promise<boolean>
}

const MINUTES = 60_000
/** One guesser at one user. */
const BY_USER_AND_SOURCE = { failuresMax: 5, lockMs: 5 * MINUTES }
/** Many guessers at one user. Higher, because it can be used to lock the user out. */
const BY_USER = { failuresMax: 50, lockMs: 5 * MINUTES }
/** One guesser at many users. */
const BY_SOURCE = { failuresMax: 50, lockMs: 5 * MINUTES }

export function createLogins(options: {
  readonly store: Store
  readonly clock: Clock
  readonly passwords: Passwords
  readonly tokenLifetimeMs: number
}): Logins {
  const { store, clock, passwords, tokenLifetimeMs } = options
  const limits = [
    { count: throttle(clock, BY_USER_AND_SOURCE), key: (u: string, s: string) => `${u} ${s}` },
    { count: throttle(clock, BY_USER), key: (u: string) => u },
    { count: throttle(clock, BY_SOURCE), key: (_: string, s: string) => s },
  ]

  type Proof = Pick<Token, 'user' | 'parent' | 'methods' | 'expiresAt'>

  async function proveByPassword(
    credential: Extract<Credential, { method: 'password' }>,
    source: string,
  ): Promise<Proof | LoginDenied> {
    const named = nameOf(credential.user)
    const before = throttled(named, source)
    if (before !== null) return before
    const user = await userOf(store.db, credential.user)
    const right = await passwords.verify(user?.password_hash ?? null, credential.password)
    // Guesses that were made side by side learn nothing once enough of them have failed, not even that one was right.
    const meanwhile = throttled(named, source)
    if (meanwhile !== null) return meanwhile
    if (!right || user === undefined || user.enabled === 0) {
      for (const { count, key } of limits) count.fail(key(named, source))
      return deny('The user or the password is wrong.', user?.id ?? null)
    }
    for (const { count, key } of limits.slice(0, 2)) count.succeed(key(named, source))
    const expiresAt = clock.wallMs() + tokenLifetimeMs
    return { user: user.id, parent: null, methods: ['password'], expiresAt }
  }

  function throttled(named: string, source: string): LoginDenied | null {
    const lockedForS = Math.max(
      ...limits.map(({ count, key }) => count.lockedForS(key(named, source))),
    )
    if (lockedForS === 0) return null
    const denied = `Too many failed logins. Repeat in ${lockedForS} seconds.`
    return { denied, retryAfterS: lockedForS, throttled: true, user: null }
  }

  async function proveByToken(secret: string): Promise<Proof | LoginDenied> {
    const token = await findToken(store.db, secret, clock.wallMs())
    if (token === null) {
      return deny('The token is unknown or has ended.', null)
    }
    const methods = [...new Set(['token', ...token.methods])]
    // The end does not move: otherwise a token could be kept alive for ever.
    return { user: token.user, parent: token.auditId, methods, expiresAt: token.expiresAt }
  }

  return {
    async issue(credential, wanted, source) {
      const proof =
        credential.method === 'password'
          ? await proveByPassword(credential, source)
          : await proveByToken(credential.token)
      if ('denied' in proof) return proof
      return await store.write(async (tx) => {
        const scope = await resolveScope(tx, proof.user, wanted)
        const caller = await callerOf(tx, { user: proof.user, scope, by: 'token', accessKey: null })
        if ('gone' in caller) {
          const denied =
            caller.gone === 'user'
              ? 'The user or the password is wrong.'
              : 'The scope does not exist, or the user has no role in it.'
          return deny(denied, proof.user)
        }
        const { secret, token } = await issueToken(tx, {
          ...proof,
          scope,
          issuedAt: clock.wallMs(),
        })
        return { secret, token, caller }
      })
    },

    async describe(secret) {
      const token = await findToken(store.db, secret, clock.wallMs())
      if (token === null) return null
      const { user, scope } = token
      const caller = await callerOf(store.db, { user, scope, by: 'token', accessKey: null })
      return 'gone' in caller ? null : { token, caller }
    },

    async revoke(secret) {
      return await store.write(async (tx) => {
        const token = await findToken(tx, secret, clock.wallMs())
        if (token === null) return false
        await revokeToken(tx, token.auditId)
        return true
      })
    },
  }
}

const deny = (denied: string, user: string | null): LoginDenied => ({
  denied,
  retryAfterS: null,
  throttled: false,
  user,
})

type UserReference = Extract<Credential, { method: 'password' }>['user']

/** What failures are counted under: as the caller spells the user, whether it exists or not. */
const nameOf = (user: UserReference): string =>
  JSON.stringify('id' in user ? user.id : [user.name, user.domain])

async function userOf(db: Db, wanted: UserReference) {
  if ('id' in wanted) return await findUser(db, wanted.id)
  const domain = await findDomain(db, wanted.domain)
  return domain === undefined ? undefined : await findUserByName(db, domain.id, wanted.name)
}

/** The scope asked for. One that does not exist comes out as an id that nothing has, and is refused like any foreign one. */
async function resolveScope(db: Db, userId: string, wanted: WantedScope): Promise<TokenScope> {
  const nothing = ''
  switch (wanted.kind) {
    case 'none':
      return { kind: 'none' }
    case 'domain': {
      const domain = await findDomain(db, wanted.domain)
      return { kind: 'domain', id: domain?.id ?? nothing }
    }
    case 'project': {
      if ('id' in wanted) return { kind: 'project', id: wanted.id }
      const user = await findUser(db, userId)
      const domain =
        wanted.domain === null ? user?.domain : (await findDomain(db, wanted.domain))?.id
      const project = await findProjectByName(db, domain ?? nothing, wanted.name)
      return { kind: 'project', id: project?.id ?? nothing }
    }
    case 'default': {
      const user = await findUser(db, userId)
      const id = user?.default_project ?? null
      const project = id === null ? undefined : await findProject(db, id)
      if (project === undefined) return { kind: 'none' }
      const scope: TokenScope = { kind: 'project', id: project.id }
      const caller = await callerOf(db, { user: userId, scope, by: 'token', accessKey: null })
      return 'gone' in caller ? { kind: 'none' } : scope
    }
  }
}
