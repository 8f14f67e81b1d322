import { Fault } from '#base/fault.ts'
import type { RetryPolicy } from './operation.ts'

/** What to do about an error that ended a try. */
export type Verdict =
  | { readonly kind: 'fail'; readonly code: string; readonly message: string }
  | { readonly kind: 'retry'; readonly pauseMs: number; readonly message: string }

/** Code of failures that no catalogue entry describes. */
export const UNEXPECTED = 'OPERATION_UNEXPECTED'

/** Longest pause that a fault may ask for by `retryAfterMs`: a lease, a restart; not an hour by mistake. */
const ASKED_PAUSE_MOST_MS = 60_000

/**
 * Faults say themselves whether repeating can help. Errors outside the catalogue are repeated as well: most
 * are sockets and disks, and a mistake of ours only costs the same few tries.
 *
 * @param attempt tries begun, this one included
 * @param chance 0 to 1: spreads the pauses by a fifth up and down, so that many operations do not return at once
 */
export function judge(
  error: unknown,
  attempt: number,
  policy: RetryPolicy,
  chance: number,
): Verdict {
  const message = error instanceof Error ? error.message : String(error)
  const fault = error instanceof Fault ? error : null
  const code = fault?.code ?? UNEXPECTED
  if (fault?.kind.retry === 'never' || attempt >= policy.attemptsMax) {
    return { kind: 'fail', code, message }
  }
  if (fault?.kind.retry === 'now') return { kind: 'retry', pauseMs: 0, message }
  const doubled = policy.pauseFirstMs * 2 ** Math.min(attempt - 1, 30)
  const spread = Math.min(doubled, policy.pauseMostMs) * (0.8 + 0.4 * chance)
  const asked = fault?.detail.retryAfterMs
  const pauseMs = Math.max(
    spread,
    typeof asked === 'number' ? Math.min(asked, ASKED_PAUSE_MOST_MS) : 0,
  )
  return { kind: 'retry', pauseMs: Math.round(pauseMs), message }
}
