import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { backupRecurrence, nextAfter, type Recurrence, recurrence } from './recurrence.ts'

const DAY = 86_400_000
const HOUR = 3_600_000
const NAMES = ['SU', 'MO', 'TU', 'WE', 'TH', 'FR', 'SA']

const calendar = (rule: string) =>
  `BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nRRULE:${rule}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n`

function parsed(result: ReturnType<typeof recurrence>): Recurrence {
  assert.ok(result.ok, result.ok ? '' : result.refusal)
  return result.rule
}
const backup = (rule: string) => parsed(backupRecurrence(calendar(rule)))
const refusalOf = (result: ReturnType<typeof recurrence>) => (result.ok ? null : result.refusal)
const at = (text: string) => Date.parse(`${text}Z`)

function instants(rule: Recurrence, anchor: number, until: number): number[] {
  const found: number[] = []
  for (let now = anchor; ; ) {
    const next = nextAfter(rule, anchor, now)
    if (next === null || next > until) return found
    assert.ok(next > now, 'goes forward')
    found.push(next)
    now = next
  }
}

/** Every minute that the rule names, looked at one by one. */
function enumerated(rule: Recurrence, anchor: number, until: number): number[] {
  const begin = new Date(anchor)
  const first = Math.floor(anchor / DAY)
  const monday = first - ((begin.getUTCDay() + 6) % 7)
  const found: number[] = []
  for (let day = first; day * DAY <= until; day += 1) {
    const date = new Date(day * DAY)
    const name = NAMES[date.getUTCDay()] ?? ''
    const last = new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 0)).getUTCDate()
    const place = Math.floor((date.getUTCDate() - 1) / 7) + 1
    const fromEnd = Math.floor((last - date.getUTCDate()) / 7) + 1
    const months =
      (date.getUTCFullYear() - begin.getUTCFullYear()) * 12 +
      date.getUTCMonth() -
      begin.getUTCMonth()
    const periods = { DAILY: day - first, WEEKLY: Math.floor((day - monday) / 7), MONTHLY: months }
    if (periods[rule.frequency] % rule.interval !== 0) continue
    if (rule.months.length > 0 && !rule.months.includes(date.getUTCMonth() + 1)) continue
    if (rule.days.length > 0) {
      const names = [name, `${place}${name}`, `+${place}${name}`, `-${fromEnd}${name}`]
      if (!names.some((one) => rule.days.includes(one))) continue
    } else if (rule.frequency === 'WEEKLY') {
      if (name !== NAMES[begin.getUTCDay()]) continue
    } else if (rule.frequency === 'MONTHLY') {
      const days = rule.monthDays.length > 0 ? rule.monthDays : [begin.getUTCDate()]
      const here = date.getUTCDate()
      if (!days.includes(here) && !days.includes(here - last - 1)) continue
    }
    for (const hour of rule.hours.length > 0 ? rule.hours : [begin.getUTCHours()]) {
      for (const minute of rule.minutes.length > 0 ? rule.minutes : [begin.getUTCMinutes()]) {
        const moment = day * DAY + hour * HOUR + minute * 60_000
        if (moment > anchor && moment <= until) found.push(moment)
      }
    }
  }
  return found
}

const listOf = (name: string, values: readonly (string | number)[]) =>
  values.length === 0 ? '' : `;${name}=${values.join(',')}`
const someDays = fc
  .subarray(NAMES)
  .chain((days) => fc.shuffledSubarray(days, { minLength: days.length }))
const someHours = fc.uniqueArray(fc.nat(23), { maxLength: 24 })
const oneMinute = fc.option(fc.nat(59))
const anchors = fc.integer({ min: at('2018-12-20T00:00:00'), max: at('2029-01-10T00:00:00') })

const backupRules = fc
  .record({
    frequency: fc.constantFrom('DAILY', 'WEEKLY'),
    interval: fc.option(fc.integer({ min: 1, max: 30 })),
    days: someDays,
    hours: someHours,
    minute: oneMinute,
  })
  .map(
    ({ frequency, interval, days, hours, minute }) =>
      `FREQ=${frequency}${listOf('BYDAY', days)}${listOf('BYHOUR', hours)}` +
      (minute === null ? '' : `;BYMINUTE=${minute}`) +
      (interval === null || frequency === 'WEEKLY' ? '' : `;INTERVAL=${interval}`),
  )

test('every instant of a backup rule, and no other, is found', () => {
  fc.assert(
    fc.property(backupRules, anchors, fc.integer({ min: 1, max: 70 }), (text, anchor, days) => {
      const rule = backup(text)
      const until = anchor + days * DAY
      assert.deepEqual(instants(rule, anchor, until), enumerated(rule, anchor, until))
    }),
    { numRuns: 300 },
  )
})

const generalRules = fc.oneof(
  backupRules,
  fc
    .record({
      interval: fc.integer({ min: 1, max: 30 }),
      days: someDays,
      hours: someHours,
    })
    .map(
      ({ interval, days, hours }) =>
        `FREQ=WEEKLY;INTERVAL=${interval}${listOf('BYDAY', days)}${listOf('BYHOUR', hours)}`,
    ),
  fc
    .record({
      interval: fc.integer({ min: 1, max: 14 }),
      placed: fc.uniqueArray(
        fc
          .tuple(
            fc.constantFrom('', '1', '2', '3', '4', '5', '-1', '-2'),
            fc.constantFrom(...NAMES),
          )
          .map((one) => one.join('')),
        { maxLength: 3 },
      ),
      monthDays: fc.uniqueArray(
        fc.integer({ min: -31, max: 31 }).filter((day) => day !== 0),
        { maxLength: 4 },
      ),
      hours: fc.uniqueArray(fc.nat(23), { maxLength: 3 }),
    })
    .map(
      ({ interval, placed, monthDays, hours }) =>
        `FREQ=MONTHLY;INTERVAL=${interval}${listOf('BYDAY', placed)}` +
        `${placed.length > 0 ? '' : listOf('BYMONTHDAY', monthDays)}${listOf('BYHOUR', hours)}`,
    ),
  fc
    .record({
      frequency: fc.constantFrom('DAILY', 'WEEKLY', 'MONTHLY'),
      months: fc.uniqueArray(fc.integer({ min: 1, max: 12 }), { minLength: 1 }),
      hour: fc.nat(23),
    })
    .map(
      ({ frequency, months, hour }) =>
        `FREQ=${frequency}${listOf('BYMONTH', months)};BYHOUR=${hour}`,
    ),
)

test('every instant of a general rule, and no other, is found over years', () => {
  fc.assert(
    fc.property(generalRules, anchors, (text, anchor) => {
      const rule = parsed(recurrence(text))
      const until = anchor + (rule.frequency === 'MONTHLY' ? 1500 : 400) * DAY
      const all = enumerated(rule, anchor, until)
      assert.deepEqual(instants(rule, anchor, until).slice(0, 200), all.slice(0, 200), text)
    }),
    { numRuns: 300 },
  )
})

test('the next instant is the same from wherever it is asked for', () => {
  fc.assert(
    fc.property(backupRules, anchors, fc.nat(20 * 365 * DAY), (text, anchor, later) => {
      const rule = backup(text)
      const after = anchor + later
      const expected = enumerated(rule, anchor, after + 250 * DAY).find((one) => one > after)
      assert.equal(nextAfter(rule, anchor, after) ?? undefined, expected)
    }),
    { numRuns: 30 },
  )
})

test('a cycle of 7 days that becomes one of 5 days on its third day is due two days later', () => {
  const anchor = at('2026-03-01T10:00:00')
  const later = anchor + 3 * DAY
  assert.equal(
    nextAfter(backup('FREQ=DAILY;INTERVAL=7;BYHOUR=10;BYMINUTE=0'), anchor, later),
    anchor + 7 * DAY,
  )
  assert.equal(
    nextAfter(backup('FREQ=DAILY;INTERVAL=5;BYHOUR=10;BYMINUTE=0'), anchor, later),
    anchor + 5 * DAY,
  )
})

test('the first instant may be on the day that the rule was made, and the moment itself does not count', () => {
  const rule = backup('FREQ=DAILY;BYHOUR=12;BYMINUTE=27')
  assert.equal(nextAfter(rule, at('2026-03-01T12:26:59.999'), 0), at('2026-03-01T12:27:00'))
  assert.equal(nextAfter(rule, at('2026-03-01T12:27:00'), 0), at('2026-03-02T12:27:00'))
})

test('text with its control characters spelled out, folded lines and plain line ends mean the same', () => {
  const text = calendar('FREQ=WEEKLY;BYDAY=TH;BYHOUR=12;BYMINUTE=27')
  const expected = backupRecurrence(text)
  assert.ok(expected.ok)
  const spelled = text.replaceAll('\r\n', '\\r\\n')
  const folded = text.replace('BYHOUR', '\r\n BYHOUR')
  for (const form of [spelled, folded, text.replaceAll('\r\n', '\n'), `\n${text}\n`]) {
    assert.deepEqual(backupRecurrence(form), expected)
  }
})

test('what is not a backup rule is refused with the reason', () => {
  const daily = 'FREQ=DAILY;BYHOUR=1;BYMINUTE=0'
  const cases: [string, string][] = [
    ['', 'SYNTAX'],
    [daily, 'SYNTAX'],
    [calendar(daily).replace('BEGIN:VEVENT', 'BEGIN:VTODO'), 'SYNTAX'],
    [calendar(`${daily}\r\nRRULE:${daily}`), 'SYNTAX'],
    [calendar(''), 'SYNTAX'],
    [calendar('BYHOUR=1'), 'PARTS'],
    [calendar('FREQ=DAILY;FREQ=DAILY'), 'SYNTAX'],
    [calendar('FREQ=HOURLY'), 'PARTS'],
    [calendar('FREQ=MONTHLY;BYHOUR=1'), 'PARTS'],
    [calendar(`${daily};COUNT=3`), 'PARTS'],
    [calendar(`${daily};BYSECOND=3`), 'PARTS'],
    [calendar('FREQ=WEEKLY;BYDAY=1MO;BYHOUR=1'), 'PARTS'],
    [calendar('FREQ=WEEKLY;BYDAY=XX;BYHOUR=1'), 'SYNTAX'],
    [calendar('FREQ=DAILY;BYHOUR=24'), 'SYNTAX'],
    [calendar('FREQ=DAILY;BYMINUTE=60'), 'SYNTAX'],
    [calendar(`${daily};INTERVAL=0`), 'INTERVAL'],
    [calendar(`${daily};INTERVAL=31`), 'INTERVAL'],
    [calendar('FREQ=WEEKLY;INTERVAL=2;BYDAY=MO'), 'INTERVAL'],
    [calendar('FREQ=DAILY;BYHOUR=1;BYMINUTE=0,30'), 'DENSITY'],
    [`${calendar(daily)}${' '.repeat(10_240)}`, 'LENGTH'],
  ]
  for (const [text, reason] of cases) {
    assert.equal(refusalOf(backupRecurrence(text)), reason, text.slice(0, 120))
  }
  const hourly = Array.from({ length: 24 }, (_, hour) => hour).join(',')
  assert.ok(backupRecurrence(calendar(`FREQ=DAILY;BYHOUR=${hourly};BYMINUTE=59`)).ok)
})

test('general rules refuse what could be waited for in vain', () => {
  for (const text of [
    'FREQ=YEARLY',
    'FREQ=MONTHLY;INTERVAL=2;BYMONTH=2',
    'FREQ=MONTHLY;BYDAY=MO;BYMONTHDAY=13',
    'FREQ=DAILY;BYMONTHDAY=13',
    'FREQ=DAILY;BYSETPOS=1',
  ]) {
    assert.equal(refusalOf(recurrence(text)), 'PARTS', text)
  }
  assert.equal(refusalOf(recurrence('FREQ=DAILY', 'Mars/Olympus')), 'ZONE')
  const never = parsed(recurrence('FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30;BYHOUR=1'))
  assert.equal(nextAfter(never, at('2026-01-01T00:00:00'), 0), null)
  const otherDay = backup('FREQ=DAILY;INTERVAL=14;BYDAY=MO;BYHOUR=1')
  assert.equal(nextAfter(otherDay, at('2026-03-03T00:00:00'), 0), null)
})

test('a rule ends with its last instant', () => {
  const rule = parsed(recurrence('FREQ=DAILY;BYHOUR=3;BYMINUTE=0;UNTIL=20260303T030000Z'))
  const anchor = at('2026-03-01T00:00:00')
  assert.deepEqual(instants(rule, anchor, anchor + 30 * DAY), [
    at('2026-03-01T03:00:00'),
    at('2026-03-02T03:00:00'),
    at('2026-03-03T03:00:00'),
  ])
})

test('hours are those of the zone, also where its clocks leave an hour out or repeat one', () => {
  const rule = parsed(recurrence('FREQ=DAILY;BYHOUR=2;BYMINUTE=30', 'Europe/Berlin'))
  assert.deepEqual(instants(rule, at('2026-03-27T12:00:00'), at('2026-03-30T12:00:00')), [
    at('2026-03-28T01:30:00'),
    // 02:30 does not exist on this day: an hour later by that clock.
    at('2026-03-29T01:30:00'),
    at('2026-03-30T00:30:00'),
  ])
  assert.deepEqual(instants(rule, at('2026-10-24T12:00:00'), at('2026-10-26T12:00:00')), [
    at('2026-10-25T00:30:00'),
    at('2026-10-26T01:30:00'),
  ])
  const evening = parsed(
    recurrence('FREQ=WEEKLY;BYDAY=MO;BYHOUR=20;BYMINUTE=0', 'America/New_York'),
  )
  assert.equal(nextAfter(evening, at('2026-01-06T00:30:00'), 0), at('2026-01-06T01:00:00'))
})
