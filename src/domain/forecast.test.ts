import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  FIRST_CONSTANT_MS,
  learnConstant,
  longestPath,
  measure,
  type Sample,
  SAMPLES_MAX,
  sumUp,
  switchPart,
  waitPart,
} from './forecast.ts'

const one = (instance: string, wave: number, ...after: string[]) => ({ instance, wave, after })

test('servers of a plan take as long as its longest path: wave after wave, and inside a wave one after the other', () => {
  const ms = new Map(Object.entries({ a: 10, b: 20, c: 5, d: 7 }))
  assert.equal(longestPath([], ms), 0)
  assert.equal(longestPath([one('a', 0), one('b', 0)], ms), 20)
  assert.equal(longestPath([one('a', 0), one('b', 1)], ms), 30)
  assert.equal(longestPath([one('a', 0), one('b', 0), one('c', 0, 'a'), one('d', 0, 'c')], ms), 22)
  assert.equal(longestPath([one('a', 0), one('b', 0), one('c', 1, 'a'), one('d', 2)], ms), 32)
})

test('the median and the ninth decile are of what was measured, and of nothing there is neither', () => {
  assert.equal(measure([]), null)
  assert.deepEqual(measure([7]), { medianMs: 7, p90Ms: 7 })
  assert.deepEqual(measure([10, 1, 3, 2, 9, 4, 8, 5, 7, 6]), { medianMs: 5, p90Ms: 9 })
})

/** Repeats itself: a test that fails, fails again. */
function noise(seed: number): () => number {
  let state = seed
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    return state / 2 ** 31
  }
}

/** An installation whose agents wait for a silent writer as long as they are told to, and whose steps take what they take. */
function installation(contactMs: number, workMs: number) {
  const random = noise(contactMs + workMs)
  const samples: Sample[] = []
  const steadyMs = 60
  return {
    samples,
    /** One failover of a production site that has been silent for some time: what was foretold, and what it took. */
    failover(silentMs: number) {
      const part = waitPart(
        'contact_wait',
        silentMs,
        learnConstant('contact_wait', samples, steadyMs),
      )
      const foretold = sumUp([part], switchPart(samples, steadyMs, 700), null, [])
      const spread = () => 0.9 + 0.2 * random()
      const waitingMs = (Math.max(0, contactMs - silentMs) + steadyMs) * spread()
      const workingMs = workMs * spread()
      const { ms, constantMs = 0 } = part
      samples.unshift({ waitingMs, workingMs, waits: [{ name: 'contact_wait', ms, constantMs }] })
      samples.splice(SAMPLES_MAX)
      return { foretold, tookMs: waitingMs + workingMs }
    },
  }
}

test('what an installation does otherwise than assumed is learned: after one failover its forecasts are within a quarter, after ten within a seventh', () => {
  for (const [contactMs, workMs] of [
    [4_000, 400],
    [8_000, 1_500],
    [1_500, 3_000],
  ] as const) {
    const random = noise(contactMs)
    const lab = installation(contactMs, workMs)
    const first = lab.failover(200)
    assert.equal(first.foretold.totalMs, FIRST_CONSTANT_MS.contact_wait - 200 + 700)
    assert.equal(first.foretold.p90Ms, null, 'nobody has measured it')
    const errors = Array.from({ length: 60 }, () => {
      const { foretold, tookMs } = lab.failover(Math.round(1_000 * random()))
      assert.ok(foretold.totalMs !== null && foretold.p90Ms !== null)
      return {
        error: Math.abs(foretold.totalMs - tookMs) / tookMs,
        within: tookMs <= foretold.p90Ms,
      }
    })
    const worst = (list: readonly { error: number }[]) =>
      Math.max(...list.map(({ error }) => error))
    assert.ok(worst(errors) < 0.25, `${contactMs}: ${worst(errors)}`)
    const settled = errors.slice(10)
    assert.ok(worst(settled) < 1 / 7, `${contactMs}: ${worst(settled)}`)
    const within = settled.filter((two) => two.within).length / settled.length
    assert.ok(within >= 0.9, `${contactMs}: ${within} within the ninth decile`)
  }
})

test('a failover that had nothing left to wait for, or two things, teaches nothing about a constant', () => {
  const wait = (name: 'contact_wait' | 'lease_wait', ms: number) => ({
    name,
    ms,
    constantMs: 4_000,
  })
  const late = { waitingMs: 9_000, workingMs: 1, waits: [wait('contact_wait', 0)] }
  const both = {
    waitingMs: 9_000,
    workingMs: 1,
    waits: [wait('contact_wait', 5), wait('lease_wait', 5)],
  }
  assert.equal(learnConstant('contact_wait', [late, both], 60), null)
  assert.equal(learnConstant('lease_wait', [late, both], 60), null)
  // The lease ended a second ago, and the witness adds half a second: nothing is left.
  assert.equal(waitPart('lease_wait', 1_000, null).ms, 0)
  assert.equal(waitPart('lease_wait', -1_000, null).ms, 1_500)
})

test('a sum that lacks what the action itself takes is no forecast', () => {
  assert.deepEqual(sumUp([], switchPart([], null, null), null, []), {
    totalMs: null,
    p90Ms: null,
    parts: [],
    afterwards: [],
  })
})
