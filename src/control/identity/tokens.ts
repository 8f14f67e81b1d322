import { createHash, randomBytes } from 'node:crypto'
import { fromJson, toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type { TokenRow } from '#control/store/tables/identity.ts'
import type { Db } from './directory.ts'

/* Tokens: 32 random bytes, known to their holder only. The database has their hash; so a copy of it, or a look
 * over somebody's shoulder at it, opens nothing. What a token may do is looked up anew at every use. */

export type TokenScope =
  | { readonly kind: 'project'; readonly id: string }
  | { readonly kind: 'domain'; readonly id: string }
  | { readonly kind: 'none' }

export interface Token {
  readonly auditId: string
  /** Audit id of the token it was made from; null: from a password. */
  readonly parent: string | null
  readonly user: string
  readonly scope: TokenScope
  readonly methods: readonly string[]
  readonly issuedAt: number
  readonly expiresAt: number
}

/** Longer ones were never made here. */
const TOKEN_CHARACTERS_MAX = 255

const hashOf = (token: string): string => createHash('sha256').update(token).digest('hex')

/** Stores a new token and returns it; nobody can read it again. Drops tokens that have ended. */
export async function issueToken(
  tx: Transaction,
  token: Omit<Token, 'auditId'>,
): Promise<{ readonly secret: string; readonly token: Token }> {
  const secret = `hf-${randomBytes(32).toString('base64url')}`
  const auditId = randomBytes(16).toString('base64url')
  await tx.deleteFrom('tokens').where('expires_at', '<=', token.issuedAt).execute()
  await tx
    .insertInto('tokens')
    .values({
      hash: hashOf(secret),
      audit_id: auditId,
      parent: token.parent,
      user_id: token.user,
      scope: token.scope.kind,
      scope_id: token.scope.kind === 'none' ? null : token.scope.id,
      methods: toJson(token.methods),
      issued_at: token.issuedAt,
      expires_at: token.expiresAt,
    })
    .execute()
  return { secret, token: { ...token, auditId } }
}

/** The token as it was issued, or null when it is unknown, revoked or has ended. */
export async function findToken(db: Db, secret: string, nowMs: number): Promise<Token | null> {
  if (secret.length > TOKEN_CHARACTERS_MAX) return null
  const row = await db
    .selectFrom('tokens')
    .selectAll()
    .where('hash', '=', hashOf(secret))
    .where('expires_at', '>', nowMs)
    .executeTakeFirst()
  return row === undefined ? null : toToken(row)
}

function toToken(row: TokenRow): Token {
  const { scope, scope_id: id } = row
  return {
    auditId: row.audit_id,
    parent: row.parent,
    user: row.user_id,
    scope:
      (scope === 'project' || scope === 'domain') && id !== null
        ? { kind: scope, id }
        : { kind: 'none' },
    methods: fromJson<string[]>(row.methods),
    issuedAt: row.issued_at,
    expiresAt: row.expires_at,
  }
}

/**
 * Ends a token and every token made from it: a stolen token may have been exchanged for others. Durable when the
 * transaction is.
 */
export async function revokeToken(tx: Transaction, auditId: string): Promise<void> {
  let generation = [auditId]
  while (generation.length > 0) {
    const children = await tx
      .selectFrom('tokens')
      .select('audit_id')
      .where('parent', 'in', generation)
      .execute()
    await tx.deleteFrom('tokens').where('audit_id', 'in', generation).execute()
    generation = children.map((child) => child.audit_id)
  }
}

export async function revokeTokensOfUser(tx: Transaction, user: string): Promise<void> {
  await tx.deleteFrom('tokens').where('user_id', '=', user).execute()
}
