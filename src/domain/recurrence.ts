import ICAL from 'ical.js'

/**
 * When something repeats, as an RFC 5545 recurrence rule. Two forms are taken: the calendar text of a backup policy
 * (`backupRecurrence`), and a bare rule with a time zone for everything else (`recurrence`).
 *
 * A rule has an anchor, the moment that it was made. The anchor fixes the phase of INTERVAL and fills in what the rule leaves out, and it
 * survives a change of the rule: a cycle of 7 days that becomes one of 5 days on its third day is due two days later. Seconds
 * are always zero, so that a rule means the same whenever it was made.
 *
 * ical.js reads the text. It does not expand it: see docs/decisions/0196-own-expansion-of-recurrence-rules.md.
 */

/** Of a backup policy's calendar text, in characters. */
export const PATTERN_LENGTH_MAX = 10_240
/** At least this far apart, and so at most 24 a day. */
export const INSTANTS_APART_MS = 3_600_000
export const INSTANTS_PER_DAY_MAX = 24
/** Days, weeks or months. */
export const INTERVAL_MAX = 30

export interface Recurrence {
  readonly frequency: Frequency
  /** Every so many days, weeks or months, 1-30. */
  readonly interval: number
  /** As in RFC 5545; empty: not said. With MONTHLY a day may carry its place in the month: `1SU`, `-1FR`. */
  readonly days: readonly string[]
  /** 1-31, or -1 to -31 from the end of the month. */
  readonly monthDays: readonly number[]
  readonly months: readonly number[]
  /** Ascending, each once. */
  readonly hours: readonly number[]
  readonly minutes: readonly number[]
  /** No instant after this one, ms since 1970; null: for ever. */
  readonly untilMs: number | null
  /** IANA name in whose clock days begin and hours are counted. */
  readonly zone: string
}

export type Frequency = 'DAILY' | 'WEEKLY' | 'MONTHLY'

export type RecurrenceRefusal =
  | 'LENGTH'
  | 'SYNTAX'
  /** A part that is not taken, or not together with the others. */
  | 'PARTS'
  | 'INTERVAL'
  /** More than 24 instants a day, or less than an hour apart. */
  | 'DENSITY'
  | 'ZONE'

export type Parsed =
  | { readonly ok: true; readonly rule: Recurrence }
  | { readonly ok: false; readonly refusal: RecurrenceRefusal }

const refused = (refusal: RecurrenceRefusal): Parsed => ({ ok: false, refusal })

/**
 * The calendar text of a backup policy: VCALENDAR, one VEVENT, one RRULE with FREQ DAILY or WEEKLY, BYDAY, BYHOUR, BYMINUTE and, with DAILY, INTERVAL.
 * Lines may end in CRLF or LF; text in which backslashes stand for control characters is decoded first. All instants are in UTC.
 */
export function backupRecurrence(pattern: string): Parsed {
  if (pattern.length > PATTERN_LENGTH_MAX) return refused('LENGTH')
  const text = ruleOfCalendar(unescape(pattern))
  if (text === null) return refused('SYNTAX')
  const parts = partsOf(text)
  if (parts === null) return refused('SYNTAX')
  const taken = ['FREQ', 'INTERVAL', 'BYDAY', 'BYHOUR', 'BYMINUTE']
  if ([...parts.keys()].some((name) => !taken.includes(name))) return refused('PARTS')
  if (parts.get('FREQ') === 'MONTHLY') return refused('PARTS')
  if (parts.get('FREQ') === 'WEEKLY' && (parts.get('INTERVAL') ?? '1') !== '1') {
    return refused('INTERVAL')
  }
  return checked(text, parts, 'UTC')
}

/**
 * A bare rule, `FREQ=MONTHLY;BYDAY=1SU;BYHOUR=3` (a leading `RRULE:` is fine): FREQ DAILY, WEEKLY or MONTHLY, INTERVAL 1-30, BYDAY,
 * BYMONTHDAY, BYMONTH, BYHOUR, BYMINUTE and UNTIL. The clock of `zone` counts; an hour that it leaves out is taken as
 * if it had not, one that it repeats is taken the first time.
 */
export function recurrence(text: string, zone = 'UTC'): Parsed {
  if (text.length > PATTERN_LENGTH_MAX) return refused('LENGTH')
  if (!isZone(zone)) return refused('ZONE')
  const rule = text.trim().replace(/^RRULE:/i, '')
  const parts = partsOf(rule)
  if (parts === null) return refused('SYNTAX')
  return checked(rule, parts, zone)
}

const isOneOf = <T extends string>(text: string | undefined, all: readonly T[]): text is T =>
  all.some((one) => one === text)

/** Karbor's clients send the text with its control characters spelled out. */
const unescape = (text: string): string =>
  /[\r\n]/.test(text.trim())
    ? text
    : text.replace(
        /\\(r|n|t|\\)/g,
        (_, one: string) => ({ r: '\r', n: '\n', t: '\t' })[one] ?? '\\',
      )

function ruleOfCalendar(text: string): string | null {
  try {
    const calendar = new ICAL.Component(ICAL.parse(text.trim()) as unknown[])
    if (calendar.name !== 'vcalendar') return null
    const events = calendar.getAllSubcomponents('vevent')
    const rules = events.flatMap((event) => event.getAllProperties('rrule'))
    const value = rules[0]?.getFirstValue()
    if (events.length !== 1 || rules.length !== 1 || !(value instanceof ICAL.Recur)) return null
  } catch {
    return null
  }
  // The text itself: what the library does not know it would leave out without a word.
  const unfolded = text.replace(/\r?\n[ \t]/g, '')
  return /^RRULE:(.+)$/im.exec(unfolded)?.[1]?.trim() ?? null
}

function partsOf(text: string): Map<string, string> | null {
  const parts = new Map<string, string>()
  for (const part of text.replace(/;$/, '').split(';')) {
    const match = /^([A-Z]+)=([^=]+)$/.exec(part.trim().toUpperCase())
    if (match?.[1] === undefined || match[2] === undefined || parts.has(match[1])) return null
    parts.set(match[1], match[2])
  }
  return parts
}

const PARTS = [
  'FREQ',
  'INTERVAL',
  'BYDAY',
  'BYMONTHDAY',
  'BYMONTH',
  'BYHOUR',
  'BYMINUTE',
  'UNTIL',
] as const

function checked(text: string, parts: ReadonlyMap<string, string>, zone: string): Parsed {
  if ([...parts.keys()].some((name) => !isOneOf(name, PARTS))) return refused('PARTS')
  const frequency = parts.get('FREQ')
  if (!isOneOf(frequency, ['DAILY', 'WEEKLY', 'MONTHLY'])) return refused('PARTS')
  const interval = Number(parts.get('INTERVAL') ?? '1')
  if (!Number.isInteger(interval) || interval < 1 || interval > INTERVAL_MAX) {
    return refused('INTERVAL')
  }
  let recur: ICAL.Recur
  try {
    recur = ICAL.Recur.fromString(text.toUpperCase().replace(/;$/, ''))
  } catch {
    return refused('SYNTAX')
  }
  const until = recur.until
  const rule: Recurrence = {
    frequency,
    interval,
    days: unique(recur.getComponent('BYDAY')),
    monthDays: unique(recur.getComponent('BYMONTHDAY')),
    months: ascending(recur.getComponent('BYMONTH')),
    hours: ascending(recur.getComponent('BYHOUR')),
    minutes: ascending(recur.getComponent('BYMINUTE')),
    untilMs: null,
    zone,
  }
  if (!areTogether(rule)) return refused('PARTS')
  if (!isSparse(rule)) return refused('DENSITY')
  if (until === null || until === undefined) return { ok: true, rule }
  const last = { ...wallOf(until), ...(until.isDate ? { hour: 23, minute: 59 } : {}) }
  const untilMs = until.zone === ICAL.Timezone.utcTimezone ? utcMs(last) : momentOf(last, zone)
  return { ok: true, rule: { ...rule, untilMs } }
}

function areTogether(rule: Recurrence): boolean {
  const placed = rule.days.some((day) => day.length > 2)
  if (placed && rule.frequency !== 'MONTHLY') return false
  if (rule.days.some((day) => !/^([+-]?[1-5])?(MO|TU|WE|TH|FR|SA|SU)$/.test(day))) return false
  if (rule.monthDays.length > 0 && (rule.frequency !== 'MONTHLY' || rule.days.length > 0)) {
    return false
  }
  if (rule.monthDays.includes(0)) return false
  // Months and an interval together may leave nothing to wait for.
  return rule.months.length === 0 || rule.interval === 1
}

/** Not more than one minute of an hour can be an hour from the next; from one day to the next the distance is that of the same clock. */
function isSparse({ hours, minutes }: Recurrence): boolean {
  const each = (hours.length === 0 ? [0] : hours).flatMap((hour) =>
    (minutes.length === 0 ? [0] : minutes).map((minute) => (hour * 60 + minute) * 60_000),
  )
  const first = each[0] ?? 0
  const following = [...each.slice(1), first + DAY_MS]
  return (
    each.length <= INSTANTS_PER_DAY_MAX &&
    each.every((at, index) => (following[index] ?? 0) - at >= INSTANTS_APART_MS)
  )
}

const unique = <T>(values: T[] | undefined): T[] => [...new Set(values ?? [])]
const ascending = (values: number[] | undefined): number[] =>
  unique(values).sort((one, other) => one - other)

const DAY_MS = 86_400_000

/** Every rule that is ever due again is so within 40 years: a 29th of February each 30 months, across a year 2100. */
const DAYS_LOOKED_AT = 50 * 366

/**
 * The first instant that is after `afterMs` and after the anchor, ms since 1970; null when there is none. Costs the same however long ago
 * the anchor is.
 */
export function nextAfter(rule: Recurrence, anchorMs: number, afterMs: number): number | null {
  const after = Math.max(anchorMs, afterMs)
  const anchor = wallAt(anchorMs, rule.zone)
  // A day early: what a zone's clock repeats may lie before.
  const first = Math.max(dayNumber(anchor), dayNumber(wallAt(after, rule.zone)) - 1)
  const hours = rule.hours.length > 0 ? rule.hours : [anchor.hour]
  const minutes = rule.minutes.length > 0 ? rule.minutes : [anchor.minute]
  for (let number = first; number < first + DAYS_LOOKED_AT; number += 1) {
    const day = wallAt(number * DAY_MS, 'UTC')
    if (!isDue(rule, anchor, day)) continue
    for (const hour of hours) {
      for (const minute of minutes) {
        const at = momentOf({ ...day, hour, minute }, rule.zone)
        if (rule.untilMs !== null && at > rule.untilMs) return null
        if (at > after) return at
      }
    }
  }
  return null
}

/** Whether the rule names the day, which is not before the anchor's. What the rule leaves out, the anchor says. */
function isDue(rule: Recurrence, anchor: Wall, day: Wall): boolean {
  const weekday = weekdayOf(day)
  if (rule.months.length > 0 && !rule.months.includes(day.month)) return false
  switch (rule.frequency) {
    case 'DAILY': {
      const passed = dayNumber(day) - dayNumber(anchor)
      return passed % rule.interval === 0 && (rule.days.length === 0 || rule.days.includes(weekday))
    }
    case 'WEEKLY': {
      const passed = (mondayOf(day) - mondayOf(anchor)) / 7
      const days = rule.days.length > 0 ? rule.days : [weekdayOf(anchor)]
      return passed % rule.interval === 0 && days.includes(weekday)
    }
    case 'MONTHLY': {
      const passed = (day.year - anchor.year) * 12 + day.month - anchor.month
      if (passed % rule.interval !== 0) return false
      const length = new Date(Date.UTC(day.year, day.month, 0)).getUTCDate()
      if (rule.days.length > 0) {
        const place = Math.ceil(day.day / 7)
        const fromEnd = Math.ceil((length - day.day + 1) / 7)
        const names = [
          weekday,
          `${place}${weekday}`,
          `+${place}${weekday}`,
          `-${fromEnd}${weekday}`,
        ]
        return names.some((name) => rule.days.includes(name))
      }
      const monthDays = rule.monthDays.length > 0 ? rule.monthDays : [anchor.day]
      return monthDays.includes(day.day) || monthDays.includes(day.day - length - 1)
    }
  }
}

/** A clock on a wall: what it shows, without saying where. Months from 1. */
interface Wall {
  readonly year: number
  readonly month: number
  readonly day: number
  readonly hour: number
  readonly minute: number
}

const WEEKDAYS = ['SU', 'MO', 'TU', 'WE', 'TH', 'FR', 'SA']

const wallOf = ({ year, month, day, hour, minute }: ICAL.Time): Wall => ({
  year,
  month,
  day,
  hour,
  minute,
})
const utcMs = (wall: Wall): number =>
  Date.UTC(wall.year, wall.month - 1, wall.day, wall.hour, wall.minute)
const dayNumber = (wall: Wall): number => Date.UTC(wall.year, wall.month - 1, wall.day) / DAY_MS
/** Of the Monday on or before it, where weeks begin. */
const mondayOf = (wall: Wall): number => dayNumber(wall) - ((dayNumber(wall) + 3) % 7)
const weekdayOf = (wall: Wall): string => WEEKDAYS[(dayNumber(wall) + 4) % 7] ?? 'SU'

const formats = new Map<string, Intl.DateTimeFormat>()

function formatOf(zone: string): Intl.DateTimeFormat {
  const known = formats.get(zone)
  if (known !== undefined) return known
  const made = new Intl.DateTimeFormat('en-u-ca-gregory-nu-latn', {
    timeZone: zone,
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
  })
  formats.set(zone, made)
  return made
}

export function isZone(zone: string): boolean {
  try {
    return zone.length <= 64 && formatOf(zone) !== null
  } catch {
    return false
  }
}

function wallAt(ms: number, zone: string): Wall {
  if (zone === 'UTC') {
    const date = new Date(ms)
    return {
      year: date.getUTCFullYear(),
      month: date.getUTCMonth() + 1,
      day: date.getUTCDate(),
      hour: date.getUTCHours(),
      minute: date.getUTCMinutes(),
    }
  }
  const parts = new Map(
    formatOf(zone)
      .formatToParts(ms)
      .map((part) => [part.type, part.value]),
  )
  const number = (name: Intl.DateTimeFormatPartTypes) => Number(parts.get(name))
  return {
    year: number('year'),
    month: number('month'),
    day: number('day'),
    hour: number('hour'),
    minute: number('minute'),
  }
}

/** When a clock in `zone` shows this: the first time of two, and as if it had not been put forward when it never does. */
function momentOf(wall: Wall, zone: string): number {
  const shown = utcMs(wall)
  if (zone === 'UTC') return shown
  const offsetAt = (ms: number): number =>
    utcMs(wallAt(ms, zone)) - Math.floor(ms / 60_000) * 60_000
  const [before, behind] = [offsetAt(shown - DAY_MS), offsetAt(shown + DAY_MS)]
  if (offsetAt(shown - before) === before) return shown - before
  return offsetAt(shown - behind) === behind ? shown - behind : shown - before
}
