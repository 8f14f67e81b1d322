import { createHash } from 'node:crypto'
import type { Clock } from '#base/clock.ts'
import type { Store } from '#control/store/store.ts'
import type { Authenticator, Denial, SignedRequest } from './authenticator.ts'
import { callerOf } from './caller.ts'
import { findUser } from './directory.ts'
import type { SecretBox } from './secret-box.ts'
import { type Authorization, parseAuthorization, parseSdkDate, signatureFits } from './signature.ts'
import { throttle } from './throttle.ts'
import { findToken, type TokenScope } from './tokens.ts'

/* Tokens and signatures to callers. The arithmetic of signatures is in signature.ts; here are keys, time, replay and
 * the project. */

/** How far the client's clock may be off. Also how long a used signature has to be remembered. */
export const DATE_TOLERANCE_MS = 15 * 60_000
/** As the public service documents it. */
const BY_KEY = { failuresMax: 5, lockMs: 5 * 60_000 }
const BY_SOURCE = { failuresMax: 100, lockMs: 5 * 60_000 }

/** Codes of the gateway that checks signatures in the public service. */
const WRONG = 'APIGW.0301'
const TOO_OLD = 'APIGW.0303'

const SAFE = new Set(['GET', 'HEAD', 'OPTIONS'])

export function createAuthenticator(options: {
  readonly store: Store
  readonly clock: Clock
  readonly box: SecretBox
}): Authenticator {
  const { store, clock, box } = options
  const failuresOfKey = throttle(clock, BY_KEY)
  const failuresOfSource = throttle(clock, BY_SOURCE)

  async function useOnce(authorization: Authorization, signedAtMs: number): Promise<boolean> {
    const { accessKey, signature } = authorization
    const hash = createHash('sha256').update(`${accessKey}:${signature}`).digest('hex')
    const nowMs = clock.wallMs()
    return await store.write(async (tx) => {
      await tx.deleteFrom('used_signatures').where('expires_at', '<', nowMs).execute()
      const { numInsertedOrUpdatedRows } = await tx
        .insertInto('used_signatures')
        .values({ hash, expires_at: signedAtMs + DATE_TOLERANCE_MS })
        .onConflict((conflict) => conflict.doNothing())
        .executeTakeFirstOrThrow()
      return numInsertedOrUpdatedRows === 1n
    })
  }

  return {
    async byToken(secret) {
      const token = await findToken(store.db, secret, clock.wallMs())
      if (token === null) return deny('The token is unknown, revoked or has ended.', null)
      const { user, scope } = token
      const caller = await callerOf(store.db, { user, scope, by: 'token', accessKey: null })
      return 'gone' in caller ? deny('The token is no longer valid for its scope.', null) : caller
    },

    async bySignature(request) {
      const authorization = parseAuthorization(request.headers['authorization'] as string)
      if (authorization === null) {
        return deny('The Authorization header is not one of SDK-HMAC-SHA256.', WRONG)
      }
      const sdkDate = request.headers['x-sdk-date']
      const signedAtMs = typeof sdkDate === 'string' ? parseSdkDate(sdkDate) : null
      if (typeof sdkDate !== 'string' || signedAtMs === null) {
        return deny('X-Sdk-Date is missing or not of the form yyyymmddThhmmssZ.', WRONG)
      }
      if (!authorization.signedHeaders.includes('x-sdk-date')) {
        return deny('X-Sdk-Date is not among the signed headers.', WRONG)
      }
      if (Math.abs(clock.wallMs() - signedAtMs) > DATE_TOLERANCE_MS) {
        return deny('X-Sdk-Date is more than 15 minutes away from the time here.', TOO_OLD)
      }
      if (authorization.scope !== null && !sdkDate.startsWith(authorization.scope.date)) {
        return deny('The date of the Credential is not the one of X-Sdk-Date.', WRONG)
      }

      const { accessKey } = authorization
      const lockedForS = Math.max(
        failuresOfKey.lockedForS(accessKey),
        failuresOfSource.lockedForS(request.source),
      )
      if (lockedForS > 0) {
        return deny(`Too many wrong signatures. Repeat in ${lockedForS} seconds.`, WRONG)
      }
      const key = await store.db
        .selectFrom('access_keys')
        .selectAll()
        .where('id', '=', accessKey)
        .executeTakeFirst()
      // An unknown key takes the same work, so that time does not tell which keys exist.
      const secret = key === undefined ? 'nobody' : box.open(key.sealed_secret, key.id)
      const fits = signatureFits(request, authorization, sdkDate, secret)
      if (!fits || key === undefined || key.enabled === 0) {
        failuresOfKey.fail(accessKey)
        failuresOfSource.fail(request.source)
        return deny('Incorrect IAM authentication information: key or signature.', WRONG)
      }
      failuresOfKey.succeed(accessKey)
      if (!SAFE.has(request.method) && !(await useOnce(authorization, signedAtMs))) {
        return deny('This signature was used before. Sign again with a new X-Sdk-Date.', WRONG)
      }

      const wanted = await projectWanted(request, key.user_id, key.project)
      const allowed = key.project === null || key.project === wanted
      const scope: TokenScope =
        wanted === null || !allowed ? { kind: 'none' } : { kind: 'project', id: wanted }
      const credential = { user: key.user_id, by: 'signature', accessKey: key.id } as const
      let caller = await callerOf(store.db, { ...credential, scope })
      // A right signature for a foreign project is somebody without a project, which the route then refuses.
      if ('gone' in caller && caller.gone === 'scope') {
        caller = await callerOf(store.db, { ...credential, scope: { kind: 'none' } })
      }
      if ('gone' in caller) return deny('The user of the access key is disabled.', WRONG)
      return key.project === null ? caller : { ...caller, domainRole: null }
    },
  }

  /** X-Project-Id may be unsigned; it only chooses among the projects in which the key may act. */
  async function projectWanted(
    request: SignedRequest,
    user: string,
    ofKey: string | null,
  ): Promise<string | null> {
    const named = request.headers['x-project-id']
    if (typeof named === 'string' && named !== '') return named
    return (
      request.projectInPath ?? ofKey ?? (await findUser(store.db, user))?.default_project ?? null
    )
  }
}

const deny = (denied: string, code: string | null): Denial => ({ denied, code })
