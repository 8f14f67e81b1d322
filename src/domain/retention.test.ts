import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { expiryOf, type RetainedItem, retained, type RetentionRule } from './retention.ts'

const DAY = 86_400_000
const HOUR = 3_600_000
const NONE: RetentionRule = {
  permanent: false,
  maxBackups: 0,
  maxDays: 0,
  slots: { day: 0, week: 0, month: 0, year: 0 },
  zoneMinutes: 0,
}

const item = (id: string, createdAt: number, more: Partial<RetainedItem> = {}): RetainedItem => ({
  id,
  createdAt,
  status: 'available',
  scheduled: true,
  images: 0,
  ...more,
})

/** The same question answered one item at a time, with calendar fields and without sharing a line with the answer under test. */
function staysNaively(
  one: RetainedItem,
  all: readonly RetainedItem[],
  rule: RetentionRule,
  now: number,
): boolean {
  if (!one.scheduled || one.images > 0) return true
  const counted = all.filter((it) => it.scheduled && it.images === 0)
  const newer = (status: string) =>
    counted.filter((it) => it.status === status && it.createdAt > one.createdAt).length
  if (one.status === 'error') return newer('error') < 10 && now - one.createdAt <= 30 * DAY
  if (one.status !== 'available') return true
  if (rule.permanent) return true
  const tooMany = rule.maxBackups > 0 && newer('available') >= rule.maxBackups
  const tooOld = rule.maxDays > 0 && now - one.createdAt >= (rule.maxDays + 1) * DAY
  if (!tooMany && !tooOld) return true
  const local = (it: RetainedItem) => new Date(it.createdAt + rule.zoneMinutes * 60_000)
  const name = {
    day: (d: Date) => `${d.getUTCFullYear()}/${d.getUTCMonth()}/${d.getUTCDate()}`,
    week: (d: Date) => {
      const monday = new Date(d)
      monday.setUTCDate(d.getUTCDate() - ((d.getUTCDay() + 6) % 7))
      return `${monday.getUTCFullYear()}/${monday.getUTCMonth()}/${monday.getUTCDate()}`
    },
    month: (d: Date) => `${d.getUTCFullYear()}/${d.getUTCMonth()}`,
    year: (d: Date) => `${d.getUTCFullYear()}`,
  }
  return (['day', 'week', 'month', 'year'] as const).some((kind) => {
    const available = counted.filter((it) => it.status === 'available')
    const mine = name[kind](local(one))
    const later = available.filter((it) => it.createdAt > one.createdAt)
    if (later.some((it) => name[kind](local(it)) === mine)) return false
    const slotsAfter = new Set(later.map((it) => name[kind](local(it))))
    return slotsAfter.size < rule.slots[kind]
  })
}

const rules = fc.record({
  permanent: fc.constantFrom(false, false, false, true),
  maxBackups: fc.constantFrom(-1, 0, 1, 2, 7, 30),
  maxDays: fc.constantFrom(-1, 0, 1, 7, 45),
  slots: fc.record({
    day: fc.constantFrom(0, 0, 1, 7),
    week: fc.constantFrom(0, 0, 1, 4),
    month: fc.constantFrom(0, 0, 1, 12),
    year: fc.constantFrom(0, 0, 1, 3),
  }),
  zoneMinutes: fc.constantFrom(0, 480, -210, 840, 345, 765, -570),
})

test('over years of simulated backups, under rules that change on the way, exactly those go that a naive calculation lets go', () => {
  const kinds = fc.constantFrom('ok', 'ok', 'ok', 'ok', 'failed', 'manual', 'image', 'restoring')
  fc.assert(
    fc.property(
      fc.array(rules, { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 40 }),
      fc.array(kinds, { minLength: 40, maxLength: 160 }),
      fc.integer({ min: 0, max: 7 * 365 }),
      (changing, everyHours, made, startDay) => {
        let kept: RetainedItem[] = []
        let now = Date.UTC(2020, 0, 1) + startDay * DAY
        for (const [number, kind] of made.entries()) {
          now += everyHours * HOUR * (1 + ((number * 7) % 5))
          const rule = changing[Math.floor((number * changing.length) / made.length)] ?? NONE
          kept.push(
            item(`${number}`, now, {
              status:
                kind === 'failed' ? 'error' : kind === 'restoring' ? 'restoring' : 'available',
              scheduled: kind !== 'manual',
              images: kind === 'image' ? 1 : 0,
            }),
          )
          // Some sweeps are left out: what they missed the next one finds.
          if (number % 3 === 1) continue
          const { remove } = retained(kept, rule, now)
          const expected = kept.filter((one) => !staysNaively(one, kept, rule, now))
          assert.deepEqual(
            [...remove],
            expected.map(({ id }) => id),
          )
          kept = kept.filter(({ id }) => !remove.includes(id))
        }
      },
    ),
    { numRuns: 120 },
  )
})

test('a policy with slots holds what it promises after three years of daily backups', () => {
  const rule = { ...NONE, maxBackups: 3, slots: { day: 7, week: 4, month: 12, year: 5 } }
  let kept: RetainedItem[] = []
  const start = Date.UTC(2023, 0, 1, 2)
  for (let day = 0; day < 3 * 365; day += 1) {
    kept.push(item(String(day), start + day * DAY))
    const { remove } = retained(kept, rule, start + day * DAY)
    kept = kept.filter(({ id }) => !remove.includes(id))
  }
  const days = kept.map(({ createdAt }) => new Date(createdAt).toISOString().slice(0, 10))
  assert.deepEqual(days, [
    '2023-12-31',
    '2024-12-31',
    '2025-01-31',
    '2025-02-28',
    '2025-03-31',
    '2025-04-30',
    '2025-05-31',
    '2025-06-30',
    '2025-07-31',
    '2025-08-31',
    '2025-09-30',
    '2025-10-31',
    '2025-11-30',
    '2025-12-14',
    '2025-12-21',
    '2025-12-24',
    '2025-12-25',
    '2025-12-26',
    '2025-12-27',
    '2025-12-28',
    '2025-12-29',
    '2025-12-30',
  ])
  assert.equal(retained(kept, rule, start + 3 * 365 * DAY).kept.get(String(364)), 'year')
})

test('days, weeks, months and years end where the zone says, on leap days and at the turn of a year as well', () => {
  const at = (text: string) => Date.parse(`${text}Z`)
  const keepers = (kind: 'day' | 'week' | 'month' | 'year', zoneMinutes: number, times: string[]) =>
    [
      ...retained(
        times.map((text) => item(text, at(text))),
        { ...NONE, maxBackups: 1, slots: { ...NONE.slots, [kind]: 10 }, zoneMinutes },
        at('2030-01-01T00:00:00'),
      ).kept.keys(),
    ].sort()
  const leap = ['2024-02-28T23:00:00', '2024-02-29T18:14:59', '2024-02-29T18:15:00']
  assert.deepEqual(keepers('month', 345, leap), ['2024-02-29T18:14:59', '2024-02-29T18:15:00'])
  assert.deepEqual(keepers('month', 0, leap), ['2024-02-29T18:15:00'])
  assert.deepEqual(keepers('day', 0, leap), ['2024-02-28T23:00:00', '2024-02-29T18:15:00'])
  // The last day of 2023 is a Sunday, that of 2024 a Tuesday: its week goes on in 2025.
  const turns = ['2023-12-31T12:00:00', '2024-01-01T12:00:00', '2024-12-31T12:00:00']
  const further = [...turns, '2025-01-05T12:00:00']
  assert.deepEqual(keepers('week', 0, further), [turns[0], turns[1], '2025-01-05T12:00:00'])
  assert.deepEqual(keepers('year', 0, further), [turns[0], turns[2], '2025-01-05T12:00:00'])
  assert.deepEqual(keepers('year', 840, further), [turns[1], '2025-01-05T12:00:00'])
})

test('without a count or an age nothing goes, and zero is not taken at its word', () => {
  const items = Array.from({ length: 50 }, (_, at) => item(String(at), at * DAY))
  const later = 1000 * DAY
  for (const off of [-1, 0]) {
    const rule = { ...NONE, maxBackups: off, maxDays: off }
    assert.deepEqual(retained(items, rule, later).remove, [])
    assert.equal(expiryOf(0, rule), null)
  }
  const only = { ...NONE, slots: { day: 1, week: 0, month: 0, year: 0 } }
  assert.deepEqual(retained(items, only, later).remove, [])
  assert.deepEqual(retained(items, { ...NONE, permanent: true, maxBackups: 1 }, later).remove, [])
})

test('an item goes on the first moment after its last whole day', () => {
  const rule = { ...NONE, maxDays: 7 }
  const [one] = [item('a', 1_000)]
  const at = expiryOf(one.createdAt, rule) ?? 0
  assert.deepEqual(retained([one], rule, at - 1).remove, [])
  assert.deepEqual(retained([one], rule, at).remove, ['a'])
})
