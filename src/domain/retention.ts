/**
 * Which backups a policy lets go. A pure function of the items of one server under one policy, the rule, and the time.
 *
 * Only what a schedule made is counted or removed. Of that:
 *
 *     permanent, or neither a count nor an age is set      nothing goes
 *     count n                                              all but the newest n available ones may go
 *     age d                                                what is older than d whole days may go
 *     both                                                 what violates either
 *     slots                                                the last of each day, week, month or year, the newest k of a kind, stay all the same
 *
 * Zero and below switch a rule off: clients send 0 for "not set", and taken at its word it would remove everything. Items
 * that an image was made of neither count nor go. A keeper of a slot stays whatever its age is: a yearly backup that an age of 30
 * days removed would be no yearly backup.
 *
 * Failed runs of the schedule: the newest ten of the last 30 days stay, so that somebody can look at them.
 */

export interface RetentionRule {
  readonly permanent: boolean
  /** 0 and below: off. */
  readonly maxBackups: number
  readonly maxDays: number
  /** How many of each kind of slot; 0: none. */
  readonly slots: Readonly<Record<SlotKind, number>>
  /** Minutes that the clock of slots is ahead of UTC. */
  readonly zoneMinutes: number
}

export type SlotKind = 'day' | 'week' | 'month' | 'year'

/** From the shortest to the longest: what keeps a backup is named by the longest. */
export const SLOT_KINDS: readonly SlotKind[] = ['day', 'week', 'month', 'year']

export interface RetainedItem {
  readonly id: string
  /** ms since 1970. */
  readonly createdAt: number
  readonly status: string
  readonly scheduled: boolean
  readonly images: number
}

export const FAILED_MAX = 10
export const FAILED_MAX_MS = 30 * 86_400_000

const DAY_MS = 86_400_000

export interface RetentionOutcome {
  /** Ids to be removed, oldest first. */
  readonly remove: readonly string[]
  /** Of those that stay: the longest slot that keeps it. */
  readonly kept: ReadonlyMap<string, SlotKind>
}

export function retained(
  items: readonly RetainedItem[],
  rule: RetentionRule,
  nowMs: number,
): RetentionOutcome {
  const scheduled = items.filter((item) => item.scheduled && item.images === 0)
  const available = scheduled.filter(({ status }) => status === 'available').sort(newestFirst)
  const kept = slotKeepers(available, rule)
  const remove = [
    ...available.filter((item, place) => !kept.has(item.id) && violates(item, place, rule, nowMs)),
    ...failedToRemove(scheduled, nowMs),
  ]
  return {
    remove: remove
      .sort(newestFirst)
      .reverse()
      .map(({ id }) => id),
    kept,
  }
}

/** `place`: how many newer ones there are. */
function violates(
  item: RetainedItem,
  place: number,
  { permanent, maxBackups, maxDays }: RetentionRule,
  nowMs: number,
): boolean {
  if (permanent) return false
  if (maxBackups > 0 && place >= maxBackups) return true
  return maxDays > 0 && Math.floor((nowMs - item.createdAt) / DAY_MS) > maxDays
}

/** When the age rule lets an item go at the earliest, ms since 1970; null: it does not. */
export const expiryOf = (createdAt: number, rule: RetentionRule): number | null =>
  rule.permanent || rule.maxDays <= 0 ? null : createdAt + (rule.maxDays + 1) * DAY_MS

function slotKeepers(
  available: readonly RetainedItem[],
  rule: RetentionRule,
): ReadonlyMap<string, SlotKind> {
  const kept = new Map<string, SlotKind>()
  for (const kind of SLOT_KINDS) {
    const seen = new Set<string>()
    for (const item of available) {
      const slot = slotOf(item.createdAt + rule.zoneMinutes * 60_000, kind)
      if (seen.has(slot)) continue
      if (seen.size >= rule.slots[kind]) break
      seen.add(slot)
      kept.set(item.id, kind)
    }
  }
  return kept
}

/** Weeks begin on Monday. */
function slotOf(localMs: number, kind: SlotKind): string {
  const date = new Date(localMs)
  switch (kind) {
    case 'day':
      return date.toISOString().slice(0, 10)
    case 'week':
      return String(Math.floor((Math.floor(localMs / DAY_MS) + 3) / 7))
    case 'month':
      return date.toISOString().slice(0, 7)
    case 'year':
      return String(date.getUTCFullYear())
  }
}

function failedToRemove(scheduled: readonly RetainedItem[], nowMs: number): RetainedItem[] {
  return scheduled
    .filter(({ status }) => status === 'error')
    .sort(newestFirst)
    .filter((item, place) => place >= FAILED_MAX || nowMs - item.createdAt > FAILED_MAX_MS)
}

const newestFirst = (one: RetainedItem, other: RetainedItem): number =>
  other.createdAt - one.createdAt || (one.id < other.id ? 1 : -1)
