import type { Clock } from '#base/clock.ts'

/* Counts failures by name and locks the name for a while. Kept in memory: a restart forgets it, and several control
 * planes count apart. Both only help a guesser who can restart or multiply the server. */

export interface Throttle {
  /** Seconds until `name` may try again; 0: now. */
  lockedForS(name: string): number
  /** One more failure in a row. */
  fail(name: string): void
  /** Forgets the failures of `name`. */
  succeed(name: string): void
}

export interface ThrottleOptions {
  /** Failures in a row, each within `lockMs` of the one before, that lock a name. */
  readonly failuresMax: number
  readonly lockMs: number
}

/** Beyond it the names that failed longest ago are forgotten. */
const NAMES_MAX = 20_000

export function throttle(clock: Clock, { failuresMax, lockMs }: ThrottleOptions): Throttle {
  const names = new Map<string, { failures: number; lastMs: number }>()
  return {
    lockedForS(name) {
      const known = names.get(name)
      if (known === undefined || known.failures < failuresMax) return 0
      return Math.max(0, Math.ceil((known.lastMs + lockMs - clock.bootMs()) / 1000))
    },
    fail(name) {
      const nowMs = clock.bootMs()
      const known = names.get(name)
      const inRow = known !== undefined && nowMs - known.lastMs < lockMs
      names.delete(name)
      names.set(name, { failures: (inRow ? known.failures : 0) + 1, lastMs: nowMs })
      if (names.size > NAMES_MAX) {
        const [oldest] = names.keys()
        if (oldest !== undefined) names.delete(oldest)
      }
    },
    succeed(name) {
      names.delete(name)
    },
  }
}
