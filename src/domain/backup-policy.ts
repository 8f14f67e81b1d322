import { nextAfter, type Recurrence } from './recurrence.ts'

/* When policies run.
 *
 * A schedule carries the instant that it waits for. Whoever finds it due decides with `decideDue`, and stores the next one with the
 * operation in one transaction; so every instant is used once, whoever looks and however often.
 *
 * An instant is missed when nobody looked within the window, and passed over when the policy is at work already: a run by hand moves
 * the scheduled one to its next instant, and a run that takes longer than its interval is not begun twice.
 */

export const POLICIES_PER_USER_MAX = 32
export const SERVERS_PER_POLICY_MAX = 64
/** Seconds that a run may begin late. */
export const WINDOW_DEFAULT_S = 900
export const WINDOW_MAX_S = 1_800

export interface Schedule {
  readonly rule: Recurrence
  /** When it was made; survives changes of the rule. */
  readonly anchorMs: number
  /** No instant behind it; null: for ever. */
  readonly endMs: number | null
  readonly windowMs: number
}

export type Due =
  | { readonly kind: 'wait'; readonly nextAt: number | null }
  /** `at` is used for a run, or dropped; the schedule waits for `nextAt` from now on. */
  | { readonly kind: 'run'; readonly at: number; readonly nextAt: number | null }
  | {
      readonly kind: 'drop'
      readonly at: number
      readonly nextAt: number | null
      readonly why: 'late' | 'manual-run' | 'scheduled-run'
    }

/** The first instant after `afterMs`; null: there is none, or the end comes first. */
export function nextInstant(schedule: Schedule, afterMs: number): number | null {
  const at = nextAfter(schedule.rule, schedule.anchorMs, afterMs)
  return at === null || (schedule.endMs !== null && at > schedule.endMs) ? null : at
}

/** `waitsFor`: the instant of the schedule. `running`: who is at work under the policy just now. */
export function decideDue(
  schedule: Schedule,
  waitsFor: number | null,
  nowMs: number,
  running: 'nobody' | 'manual' | 'scheduled',
): Due {
  if (waitsFor === null || waitsFor > nowMs) return { kind: 'wait', nextAt: waitsFor }
  if (nowMs - waitsFor > schedule.windowMs) {
    // The window is shorter than the distance of instants: at most one of those behind is still within it.
    const nextAt = nextInstant(schedule, nowMs - schedule.windowMs - 1)
    return { kind: 'drop', at: waitsFor, nextAt, why: 'late' }
  }
  const nextAt = nextInstant(schedule, nowMs)
  if (running === 'nobody') return { kind: 'run', at: waitsFor, nextAt }
  const why = running === 'manual' ? 'manual-run' : 'scheduled-run'
  return { kind: 'drop', at: waitsFor, nextAt, why }
}

/**
 * What a schedule is to wait for that waits for too late an instant, or for none: somebody looked while the clock was wrong, ahead by months perhaps, and has
 * put it right since. undefined: nothing is wrong. Waiting for the second instant from now is right: a clock that is set back by seconds
 * does not bring the first one, which was used, again.
 */
export function strayed(
  schedule: Schedule,
  waitsFor: number | null,
  nowMs: number,
): number | undefined {
  const first = nextInstant(schedule, nowMs)
  const second = first === null ? null : nextInstant(schedule, first)
  if (first === null || second === null) return undefined
  return waitsFor === null || waitsFor > second ? first : undefined
}

/** `UTC+08:00` as minutes ahead of UTC; null: not of that form, or beyond what zones are. */
export function zoneMinutes(text: string): number | null {
  const match = /^UTC([+-])(\d{2}):(\d{2})$/.exec(text)
  if (match === null) return null
  const minutes = Number(match[2]) * 60 + Number(match[3])
  if (Number(match[3]) > 59 || minutes > 14 * 60) return null
  return match[1] === '-' ? -minutes : minutes
}
