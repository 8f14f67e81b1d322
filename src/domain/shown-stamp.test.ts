import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Stamp, stampOf } from './shown-stamp.ts'

test('a time of change is that of the record where it explains the change, else of the first look, and never goes back', () => {
  const last: Stamp = { shown: 'active', changedAt: 100 }
  for (const [name, before, shown, recordedAt, nowMs, changedAt, keep] of [
    ['the first look', null, 'active', 70, 200, 70, true],
    ['nothing new', last, 'active', 100, 200, 100, false],
    ['an older record', last, 'active', 90, 200, 100, false],
    ['a later record, shown alike', last, 'active', 150, 200, 150, true],
    ['a later record, shown otherwise', last, 'copying', 150, 200, 150, true],
    ['a site fell silent', last, 'inactive', 100, 200, 200, true],
    ['a clock that was set back', last, 'inactive', 100, 50, 101, true],
  ] as const) {
    assert.deepEqual(stampOf(before, shown, recordedAt, nowMs), { changedAt, keep }, name)
  }
})

test('whatever is recorded and whenever somebody looks, another view has a later time than every view before', () => {
  // A fixed walk over small numbers: times of records and looks in any order that clocks can give.
  let seed = 7
  const next = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below
  for (let walk = 0; walk < 200; walk++) {
    let last: Stamp | null = null
    let [now, recorded] = [1_000, 1_000]
    for (let look = 0; look < 30; look++) {
      now += next(20) - 2
      if (next(3) === 0) recorded = Math.max(recorded, now)
      const shown = ['active', 'inactive', 'copying'][next(3)] ?? ''
      const { changedAt, keep }: ReturnType<typeof stampOf> = stampOf(last, shown, recorded, now)
      if (last !== null) {
        assert.ok(changedAt >= last.changedAt)
        if (shown !== last.shown) assert.ok(changedAt > last.changedAt)
      }
      if (keep) last = { shown, changedAt }
      assert.equal(last?.shown, shown)
    }
  }
})
