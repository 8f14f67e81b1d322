/**
 * Since when something is as it is shown. Pure.
 *
 * What is shown of replication follows from rows, from the record, and from what sites say or no longer say. The first two carry their times. The
 * third changes without a trace: a site falls silent, a link comes back. So what was shown last is kept with its time, and whoever looks
 * compares. Then nobody is ever shown something else under a time at which somebody was shown this, which is what
 * a client relies on that asks for changes since it looked last.
 */
export interface Stamp {
  /** What is compared. */
  readonly shown: string
  /** Wall clock, ms. */
  readonly changedAt: number
}

/** `recordedAt`: the latest time that a row or a record gives. Answers the time to show, and whether it has to be kept before it is shown. */
export function stampOf(
  last: Stamp | null,
  shown: string,
  recordedAt: number,
  nowMs: number,
): { readonly changedAt: number; readonly keep: boolean } {
  if (last === null) return { changedAt: recordedAt, keep: true }
  const later = recordedAt > last.changedAt
  if (last.shown === shown) return { changedAt: later ? recordedAt : last.changedAt, keep: later }
  if (later) return { changedAt: recordedAt, keep: true }
  // Nothing that is recorded explains it. A clock that was set back must not take the time back with it.
  return { changedAt: Math.max(nowMs, last.changedAt + 1), keep: true }
}
