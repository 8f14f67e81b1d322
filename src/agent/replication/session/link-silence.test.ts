import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LinkSilence, type Verdict } from './link-silence.ts'

const SILENCE = 1_000
const BUSY_MAX = 5_000
const STEP = 50

interface Life {
  heardMs: number
  stuckMs: number
}

/** Judges every STEP ms for `ms`, with the silence growing from `silentMs`; the verdicts in order of appearance. */
function verdicts(
  silence: LinkSilence,
  from: number,
  ms: number,
  { silentMs = 0, ownWork = false } = {},
): Verdict[] {
  const seen: Verdict[] = []
  for (let at = 0; at <= ms; at += STEP) {
    const verdict = silence.judge(from + at, silentMs + at, ownWork)
    if (seen.at(-1) !== verdict) seen.push(verdict)
  }
  return seen
}

function linkWith(life: () => Life | null): LinkSilence {
  return new LinkSilence({
    watch: { life, end: () => undefined },
    peerSilenceMs: SILENCE,
    busyMaxMs: BUSY_MAX,
    now: 0,
  })
}

test('without beats a silent link is lost after the silence', () => {
  const none = new LinkSilence({
    watch: null,
    peerSilenceMs: SILENCE,
    busyMaxMs: BUSY_MAX,
    now: 0,
  })
  assert.deepEqual(verdicts(none, 0, 2_000), ['heard', 'lost'])
  assert.deepEqual(
    verdicts(
      linkWith(() => null),
      0,
      2_000,
    ),
    ['heard', 'lost'],
  )
})

test('a peer that beats and does not move is busy, until the limit', () => {
  let now = 0
  const life = () => ({ heardMs: 100, stuckMs: now })
  const silence = linkWith(life)
  const seen: [number, Verdict][] = []
  for (now = 0; now <= 7_000; now += STEP) {
    const verdict = silence.judge(now, now, false)
    if (seen.at(-1)?.[1] !== verdict) seen.push([now, verdict])
  }
  assert.deepEqual(seen, [
    [0, 'heard'],
    [SILENCE + STEP, 'busy'],
    [BUSY_MAX + STEP, 'lost'],
  ])
})

test('a peer whose beats have stopped is lost, whatever they said last', () => {
  assert.deepEqual(
    verdicts(
      linkWith(() => ({ heardMs: SILENCE + 1, stuckMs: 900 })),
      0,
      2_000,
    ),
    ['heard', 'lost'],
  )
})

test('a link that is silent although its peer moves is broken', () => {
  assert.deepEqual(
    verdicts(
      linkWith(() => ({ heardMs: 100, stuckMs: 100 })),
      0,
      2_000,
    ),
    ['heard', 'lost'],
  )
})

test('a peer that moves again has one more silence to be heard', () => {
  const life: Life = { heardMs: 100, stuckMs: 3_000 }
  const silence = linkWith(() => life)
  assert.deepEqual(verdicts(silence, 0, 2_000), ['heard', 'busy'])
  life.stuckMs = 50
  assert.deepEqual(verdicts(silence, 2_000, SILENCE, { silentMs: 2_000 }), ['busy'])
  assert.deepEqual(verdicts(silence, 3_050, 100, { silentMs: 3_050 }), ['lost'])
})

test('a pause of this side is not held against the peer', () => {
  const silence = linkWith(() => ({ heardMs: 100, stuckMs: 100 }))
  assert.equal(silence.judge(50, 50, false), 'heard')
  assert.equal(silence.judge(4_000, 4_000, false), 'busy')
  assert.equal(silence.judge(4_050, 20, false), 'heard')
})

test('while the stream waits for a disk of this side, silence says nothing about the peer', () => {
  const silence = linkWith(() => ({ heardMs: 100, stuckMs: 100 }))
  assert.deepEqual(verdicts(silence, 0, 3_000, { ownWork: true }), ['heard', 'busy'])
})
