import { S3Client, S3ServiceException } from '@aws-sdk/client-s3'
import { assert, BrokenInvariant } from '#base/assert.ts'
import { type Clock, sleep } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { VAULT_DAMAGED, VAULT_STORE_FAILED, VAULT_STORE_REFUSED } from '../faults.ts'
import { isObjectKey, type ObjectKey } from '../object-store.ts'

/* Requests to a bucket. What a server answers that is busy, restarted or out of reach passes, so it is asked again, at growing intervals and not for ever; what it
 * refuses is told at once. A request that was asked again may have been carried out before: whoever sends one has to know what that means. */

/** Between two attempts: doubled each time, and up to a half less by chance, so that many clients do not come back at once. */
const RETRY_MS_MIN = 200
const RETRY_MS_MAX = 10_000
/** A server that has answered before is asked for so long, and so many times at least. */
export const GIVE_UP_MS = 60_000
/** One that never has is more likely the wrong address than in trouble. */
export const ATTEMPTS_MIN = 3
const CONNECT_MS = 10_000
const SILENCE_MS = 60_000

export interface S3Address {
  readonly bucket: string
  /** Without slash at its ends; may be empty. */
  readonly prefix: string
  readonly endpoint?: string
  readonly region: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string
  /** The bucket was made with object lock, and locks are to be kept by the server as well. */
  readonly objectLock?: boolean
  /** Objects of more bytes go in parts. Default 64 MiB. */
  readonly partsAbove?: number
}

export interface S3Deps {
  readonly clock: Clock
  /** 0 to 1; default Math.random. */
  readonly random?: () => number
  /** Longest silence within a request or its answer, in ms. Default 60 s. */
  readonly silenceMs?: number
}

export interface Requests {
  readonly bucket: string
  readonly client: S3Client
  /** The name of an object in the bucket, and back. */
  full(key: ObjectKey): string
  /** What names in the bucket begin with, for keys that begin with `prefix`. */
  below(prefix: string): string
  key(full: string): ObjectKey
  /**
   * The answer of `act`, which is called again while what it throws passes; `again`: an earlier attempt may have been carried out.
   * Throws VAULT_STORE_FAILED, VAULT_STORE_REFUSED, VAULT_DAMAGED (a range beyond the end), what Faults `act` throws, and at once what is a mistake in the code.
   */
  ask<T>(doing: string, key: string, act: (again: boolean) => Promise<T>): Promise<T>
  close(): void
}

export function createRequests(
  address: S3Address,
  { clock, random, silenceMs = SILENCE_MS }: S3Deps,
): Requests {
  const chance = random ?? Math.random
  const begin = address.prefix === '' ? '' : `${address.prefix}/`
  const closing = new AbortController()
  let answered = false
  const client = new S3Client({
    region: address.region,
    forcePathStyle: address.endpoint !== undefined,
    ...(address.endpoint === undefined ? {} : { endpoint: address.endpoint }),
    credentials: {
      accessKeyId: address.accessKeyId,
      secretAccessKey: address.secretAccessKey,
      ...(address.sessionToken === undefined ? {} : { sessionToken: address.sessionToken }),
    },
    // Asked again below, where it is known what that means. By itself the client waits for an answer for ever.
    maxAttempts: 1,
    requestHandler: { connectionTimeout: CONNECT_MS, socketTimeout: silenceMs },
  })
  return {
    bucket: address.bucket,
    client,
    full(key) {
      assert(isObjectKey(key), `${key} is an object key`)
      return `${begin}${key}`
    },
    below: (prefix) => `${begin}${prefix}`,
    key: (full) => full.slice(begin.length),
    async ask(doing, key, act) {
      const startedMs = clock.bootMs()
      for (let attempt = 1; ; attempt++) {
        try {
          const answer = await act(attempt > 1)
          answered = true
          return answer
        } catch (error) {
          if (error instanceof Fault || isOurs(error)) throw error
          answered ||= statusOf(error) !== undefined
          const enough =
            attempt >= ATTEMPTS_MIN && (!answered || clock.bootMs() - startedMs >= GIVE_UP_MS)
          if (enough || closing.signal.aborted || !passes(error)) {
            throw failed(doing, key, error, attempt)
          }
          await sleep(clock, retryMs(attempt, chance()), closing.signal).catch(() => {
            throw failed(doing, key, error, attempt)
          })
        }
      }
    },
    close() {
      closing.abort()
      client.destroy()
    },
  }
}

const retryMs = (attempt: number, chance: number): number =>
  Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** (attempt - 1)) * (0.5 + chance / 2)

export const statusOf = (error: unknown): number | undefined => {
  const told = (error as { readonly $metadata?: { readonly httpStatusCode?: number } } | null)
    ?.$metadata?.httpStatusCode
  return typeof told === 'number' ? told : undefined
}

/** When the server said this, by its own clock, in whole seconds told in ms since 1970. */
export function saidAtMs(error: unknown): number | undefined {
  const date = error instanceof S3ServiceException ? error.$response?.headers['date'] : undefined
  const ms = Date.parse(date ?? '')
  return Number.isNaN(ms) ? undefined : ms
}

/** 409: another request for the same key is being carried out. 500 to 504 and 429: busy. 408: its patience was over. */
const PASSING = new Set([408, 409, 429, 500, 502, 503, 504])

function passes(error: unknown): boolean {
  const status = statusOf(error)
  // The line was cut, or nothing was said for too long, at any moment up to the last byte of an answer.
  if (status === undefined || (status >= 200 && status < 300)) return true
  // The client has learned by how much its clock is wrong, and signs with the server's time from now on.
  const { $metadata } = error as { readonly $metadata?: { readonly clockSkewCorrected?: boolean } }
  if ($metadata?.clockSkewCorrected === true) return true
  return PASSING.has(status) || nameOf(error) === 'RequestTimeout'
}

/** A mistake in our own code, or the client's, before anything was sent. What the runtime refuses to send, as a bad address, has a code. */
const isOurs = (error: unknown): boolean =>
  error instanceof BrokenInvariant ||
  (error instanceof TypeError && statusOf(error) === undefined && !('code' in error))

const nameOf = (error: unknown): string =>
  error instanceof S3ServiceException || error instanceof Error ? error.name : ''

export const isMissing = (error: unknown): boolean =>
  statusOf(error) === 404 && nameOf(error) !== 'NoSuchBucket'

/** undefined: the server answered with one of these errors. */
export async function answerUnless<T>(
  is: (error: unknown) => boolean,
  answer: Promise<T>,
): Promise<T | undefined> {
  try {
    return await answer
  } catch (error) {
    if (is(error)) return undefined
    throw error
  }
}

const REFUSALS = /^(ExpiredToken|InvalidToken|RequestExpired|RequestTimeTooSkewed)$/

function failed(doing: string, key: string, error: unknown, attempts: number): Fault {
  const status = statusOf(error)
  if (status === 416) {
    return new Fault(VAULT_DAMAGED, `${doing}: it is too short`, { object: key }, error)
  }
  const said = error instanceof Error ? `${error.name} ${error.message}` : String(error)
  const text = `${doing}: ${said}${attempts > 1 ? `, after ${attempts} attempts` : ''}`
  const refused = status === 401 || status === 403 || REFUSALS.test(nameOf(error))
  const kind = refused ? VAULT_STORE_REFUSED : VAULT_STORE_FAILED
  return new Fault(kind, text, { object: key }, error)
}
