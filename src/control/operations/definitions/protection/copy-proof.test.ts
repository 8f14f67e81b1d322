import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type CopyEvidence,
  isOfThisCopy,
  notCopied,
  type Rebuild,
  type SiteWord,
} from './copy-proof.ts'

test('a report about a copy that was never replaced counts', () => {
  assert.ok(isOfThisCopy(undefined, 0))
})

test('while a rebuild is at work no report counts, however new it is', () => {
  assert.ok(!isOfThisCopy({ status: 'running', endAt: null }, Number.MAX_SAFE_INTEGER))
  assert.ok(!isOfThisCopy({ status: 'pending', endAt: null }, Number.MAX_SAFE_INTEGER))
})

test('a rebuild that ended well has seen the new copy whole, so an old report says nothing untrue', () => {
  assert.ok(isOfThisCopy({ status: 'succeeded', endAt: 50_000 }, 1_000))
})

test('after a rebuild that was given up only a report counts that cannot be of the time before', () => {
  for (const status of ['failed', 'cancelled'] as const) {
    const rebuild = { status, endAt: 50_000 }
    assert.ok(!isOfThisCopy(rebuild, 49_999), 'of the copy that is gone')
    assert.ok(!isOfThisCopy(rebuild, 50_500), 'it may have been on its way')
    assert.ok(isOfThisCopy(rebuild, 61_000))
  }
})

const EPOCH = 7
const PAIR = { id: 'p', in_session: 1, added_epoch: 5 }
const word = (
  joined: boolean,
  over: { epoch?: number; receivedMs?: number | null } = {},
): SiteWord => ({
  status: { epoch: over.epoch ?? EPOCH, members: [{ pair: 'p', joined }] },
  receivedMs: over.receivedMs === undefined ? 100_000 : over.receivedMs,
})
const left = (over: Partial<CopyEvidence>): boolean => {
  const none = { epoch: EPOCH, rise: null, rebuilds: new Map(), dr: null, production: null }
  return notCopied([PAIR], { ...none, ...over }).length > 0
}
const rebuilt = (rebuild: Rebuild) => ({ rebuilds: new Map([['p', rebuild]]) })

test('a pair is copied when the record rose after it came in, or when either site says so under the present epoch', () => {
  assert.ok(left({}), 'nobody knows')
  assert.ok(!left({ rise: 6 }))
  assert.ok(left({ rise: 5 }), 'it came in with that rise, or after it')
  for (const site of ['dr', 'production'] as const) {
    assert.ok(!left({ [site]: word(true) }), site)
    assert.ok(left({ [site]: word(false) }), site)
    assert.ok(left({ [site]: word(true, { epoch: 6 }) }), `${site} of an older epoch`)
  }
  const outside = { ...PAIR, in_session: 0 }
  assert.deepEqual(
    notCopied([outside], { epoch: 7, rise: null, rebuilds: new Map(), dr: null, production: null }),
    [],
  )
})

test('of a copy that is being replaced, or whose replacement was given up, only the DR side itself knows', () => {
  for (const rebuild of [
    { status: 'running', endAt: null },
    { status: 'failed', endAt: 50_000 },
  ] as const) {
    const given = rebuilt(rebuild)
    assert.ok(left({ ...given, rise: 6, production: word(true) }), rebuild.status)
    // Asked just now.
    assert.ok(!left({ ...given, dr: word(true, { receivedMs: null, epoch: 1 }) }), rebuild.status)
    assert.ok(left({ ...given, rise: 6, dr: word(false, { receivedMs: null }) }), rebuild.status)
  }
  assert.ok(left({ ...rebuilt({ status: 'running', endAt: null }), dr: word(true) }))
  assert.ok(!left({ ...rebuilt({ status: 'failed', endAt: 50_000 }), dr: word(true) }))
  assert.ok(left({ ...rebuilt({ status: 'failed', endAt: 95_000 }), dr: word(true) }))
  assert.ok(!left({ ...rebuilt({ status: 'succeeded', endAt: 99_999 }), rise: 6 }))
})
