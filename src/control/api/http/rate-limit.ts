import type { Clock } from '#base/clock.ts'

/** A token bucket for each caller. */
export interface RateLimit {
  /** Takes one; false: the caller has to wait. */
  take(caller: string): boolean
}

export interface RateLimitOptions {
  /** Requests that a caller may make at once after a pause. */
  readonly burst: number
  /** Requests per second in the long run. */
  readonly perSecond: number
}

/**
 * Far above what pollers need, even many behind one address (a client that sees 429 sleeps for a minute), and still a
 * bound on what one runaway script can take.
 */
export const DEFAULT_RATE: RateLimitOptions = { burst: 5_000, perSecond: 1_000 }

/** Callers remembered. Beyond it the ones that have been silent longest are forgotten, which gives them a full bucket. */
const CALLERS_MAX = 10_000

export function rateLimit(clock: Clock, options: RateLimitOptions = DEFAULT_RATE): RateLimit {
  const buckets = new Map<string, { left: number; atMs: number }>()
  return {
    take(caller) {
      const nowMs = clock.bootMs()
      const bucket = buckets.get(caller) ?? { left: options.burst, atMs: nowMs }
      const gained = ((nowMs - bucket.atMs) / 1000) * options.perSecond
      const left = Math.min(options.burst, bucket.left + gained)
      const allowed = left >= 1
      // Deleted and set again, so that the map stays in order of last use.
      buckets.delete(caller)
      buckets.set(caller, { left: allowed ? left - 1 : left, atMs: nowMs })
      if (buckets.size > CALLERS_MAX) {
        const [oldest] = buckets.keys()
        if (oldest !== undefined) buckets.delete(oldest)
      }
      return allowed
    },
  }
}
