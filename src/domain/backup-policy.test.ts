import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decideDue, nextInstant, type Schedule, strayed, zoneMinutes } from './backup-policy.ts'
import { recurrence } from './recurrence.ts'

const MINUTE = 60_000
const HOUR = 3_600_000
const at = (text: string) => Date.parse(`${text}Z`)

function schedule(text: string, anchor = '2026-01-01T00:00:00'): Schedule {
  const parsed = recurrence(text)
  assert.ok(parsed.ok)
  return { rule: parsed.rule, anchorMs: at(anchor), endMs: null, windowMs: 15 * MINUTE }
}
const daily = schedule('FREQ=DAILY;BYHOUR=3;BYMINUTE=0')
const due = at('2026-02-01T03:00:00')
const next = at('2026-02-02T03:00:00')

test('a run begins within its window, and an instant that was missed is dropped', () => {
  assert.deepEqual(decideDue(daily, due, due - 1, 'nobody'), { kind: 'wait', nextAt: due })
  for (const late of [0, 15 * MINUTE]) {
    const decided = decideDue(daily, due, due + late, 'nobody')
    assert.deepEqual(decided, { kind: 'run', at: due, nextAt: next })
  }
  const decided = decideDue(daily, due, due + 15 * MINUTE + 1, 'nobody')
  assert.deepEqual(decided, { kind: 'drop', at: due, nextAt: next, why: 'late' })
})

test('after a long silence the instant that is still within its window is not lost', () => {
  const later = at('2026-03-10T03:05:00')
  const first = decideDue(daily, due, later, 'nobody')
  assert.deepEqual(first, { kind: 'drop', at: due, nextAt: at('2026-03-10T03:00:00'), why: 'late' })
  assert.equal(decideDue(daily, first.nextAt, later, 'nobody').kind, 'run')
})

test('a policy that is at work waits for its next instant', () => {
  for (const [running, why] of [
    ['manual', 'manual-run'],
    ['scheduled', 'scheduled-run'],
  ] as const) {
    assert.deepEqual(decideDue(daily, due, due, running), {
      kind: 'drop',
      at: due,
      nextAt: next,
      why,
    })
  }
})

test('nothing is due behind the end', () => {
  const ending = { ...daily, endMs: due }
  assert.deepEqual(decideDue(ending, due, due, 'nobody'), { kind: 'run', at: due, nextAt: null })
  assert.deepEqual(decideDue(ending, null, next, 'nobody'), { kind: 'wait', nextAt: null })
})

test('whoever looks and whenever, every instant is used at most once, in order, and never outside its window', () => {
  const hourly = schedule('FREQ=DAILY;BYHOUR=0,1,2,3,4,5,6,7,8,9,10,11,12;BYMINUTE=30')
  fc.assert(
    fc.property(fc.array(fc.nat(5 * HOUR), { maxLength: 60 }), (pauses) => {
      let waitsFor: number | null = at('2026-02-01T00:30:00')
      let now = at('2026-02-01T00:00:00')
      const used: number[] = []
      for (const pause of pauses) {
        now += pause
        for (let look = 0; look < 3; look += 1) {
          const decided: ReturnType<typeof decideDue> = decideDue(hourly, waitsFor, now, 'nobody')
          waitsFor = decided.nextAt
          if (decided.kind !== 'run') continue
          used.push(decided.at)
          assert.ok(now >= decided.at && now - decided.at <= hourly.windowMs)
        }
      }
      assert.deepEqual(
        used,
        [...new Set(used)].sort((one, other) => one - other),
      )
    }),
  )
})

test('a clock that was years ahead for a moment costs no more than the instants of that moment', () => {
  const decided = decideDue(daily, due, at('2031-05-01T12:00:00'), 'nobody')
  assert.equal(decided.nextAt, at('2031-05-02T03:00:00'))
  assert.equal(strayed(daily, decided.nextAt, due - MINUTE), due)
  const ending = { ...daily, endMs: at('2026-03-01T03:00:00') }
  const over = decideDue(ending, due, at('2031-05-01T12:00:00'), 'nobody')
  assert.equal(over.nextAt, null)
  assert.equal(strayed(ending, null, due - MINUTE), due)
  // A used instant does not come again after a clock was set back a little, and an end is an end.
  assert.equal(strayed(daily, next, due - MINUTE), undefined)
  assert.equal(strayed({ ...daily, endMs: due }, null, due - MINUTE), undefined)
  assert.equal(nextInstant({ ...daily, endMs: due }, due), null)
})

test('zones of slots are hours and minutes from UTC', () => {
  assert.equal(zoneMinutes('UTC+08:00'), 480)
  assert.equal(zoneMinutes('UTC-03:30'), -210)
  for (const text of ['UTC', 'UTC+8', 'UTC+08:60', 'UTC+15:00', 'Europe/Berlin']) {
    assert.equal(zoneMinutes(text), null, text)
  }
})
