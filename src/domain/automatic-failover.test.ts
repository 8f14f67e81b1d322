import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  AUTOMATIC_REASONS,
  type AutomaticFacts,
  type AutomaticReason,
  decideArming,
  decideAutomatic,
} from './automatic-failover.ts'
import type { OwnershipState } from './ownership.ts'

/** Everything speaks for it. */
const RECORD = {
  state: 'in_sync' as OwnershipState,
  mode: 'witness' as 'witness' | 'static-priority',
  writerIsProduction: true,
  trusted: true,
  leaseLeftMs: 0,
}
const DR = {
  sameEpoch: true,
  replica: true,
  consistent: true,
  unfit: false,
  hearsProduction: false,
}
const FACTS: AutomaticFacts = {
  armed: true,
  held: false,
  groupAccepts: true,
  busy: false,
  record: RECORD,
  copied: true,
  productionHeard: false,
  silentMs: 30_000,
  silenceNeededMs: 30_000,
  dr: DR,
}

/** Each doubt there is, and what it is called. */
const DOUBTS: readonly (readonly [AutomaticReason, (facts: AutomaticFacts) => AutomaticFacts])[] = [
  ['NOT_ARMED', (f) => ({ ...f, armed: false })],
  ['HELD', (f) => ({ ...f, held: true })],
  ['GROUP_NOT_READY', (f) => ({ ...f, groupAccepts: false })],
  ['GROUP_BUSY', (f) => ({ ...f, busy: true })],
  ['NEVER_PROTECTED', (f) => ({ ...f, record: null })],
  ...(['closed', 'resyncing', 'solo', 'frozen', 'failed_over'] as const).map(
    (state) => ['NOT_IN_SYNC', (f: AutomaticFacts) => withRecord(f, { state })] as const,
  ),
  ['NOT_BY_WITNESS', (f) => withRecord(f, { mode: 'static-priority' })],
  ['RECORD_ELSEWHERE', (f) => withRecord(f, { writerIsProduction: false })],
  ['RECORD_IN_DOUBT', (f) => withRecord(f, { trusted: false })],
  ['NOT_COPIED', (f) => ({ ...f, copied: false })],
  ['PRODUCTION_HEARD', (f) => ({ ...f, productionHeard: true })],
  ['DR_SILENT', (f) => ({ ...f, dr: null })],
  ['DR_BEHIND', (f) => withDr(f, { sameEpoch: false })],
  ['DR_NOT_REPLICA', (f) => withDr(f, { replica: false })],
  ['DR_NOT_CONSISTENT', (f) => withDr(f, { consistent: false })],
  ['DR_UNFIT', (f) => withDr(f, { unfit: true })],
  ['DR_HEARS_PRODUCTION', (f) => withDr(f, { hearsProduction: true })],
  ['SILENCE_TOO_SHORT', (f) => ({ ...f, silentMs: f.silenceNeededMs - 1 })],
  ['LEASE_NOT_ENDED', (f) => withRecord(f, { leaseLeftMs: 1 })],
]
const withRecord = (facts: AutomaticFacts, change: Partial<typeof RECORD>): AutomaticFacts =>
  facts.record === null ? facts : { ...facts, record: { ...facts.record, ...change } }
const withDr = (facts: AutomaticFacts, change: Partial<typeof DR>): AutomaticFacts =>
  facts.dr === null ? facts : { ...facts, dr: { ...facts.dr, ...change } }

const ofTime: ReadonlySet<AutomaticReason> = new Set(['SILENCE_TOO_SHORT', 'LEASE_NOT_ENDED'])

test('it acts when nothing speaks against it, and each doubt alone keeps it from acting and is named', () => {
  assert.deepEqual(decideAutomatic(FACTS), { verdict: 'acts', reasons: [] })
  for (const [reason, doubt] of DOUBTS) {
    const { verdict, reasons } = decideAutomatic(doubt(FACTS))
    const wanted = ofTime.has(reason)
      ? 'waits'
      : reason === 'PRODUCTION_HEARD'
        ? 'stands_by'
        : 'refuses'
    assert.equal(verdict, wanted, reason)
    assert.deepEqual(reasons, [reason])
  }
  const named = new Set(DOUBTS.map(([reason]) => reason))
  assert.deepEqual(
    Object.keys(AUTOMATIC_REASONS).filter((reason) => !named.has(reason as AutomaticReason)),
    [],
    'every reason has a doubt in this table',
  )
})

test('it never acts when any doubt is set, in all of their combinations', () => {
  let acted = 0
  // Of the five states that are not in sync one stands for the others.
  const doubts = [...new Map(DOUBTS).entries()]
  for (let set = 0; set < 2 ** doubts.length; set++) {
    let facts = FACTS
    for (const [index, [, doubt]] of doubts.entries()) {
      if (((set >> index) & 1) === 1) facts = doubt(facts)
    }
    const { verdict, reasons } = decideAutomatic(facts)
    if (verdict === 'acts') acted++
    if ((verdict === 'acts') !== (set === 0) || (reasons.length === 0) !== (set === 0)) {
      assert.fail(`set ${set}: ${verdict} ${reasons.join(' ')}`)
    }
  }
  assert.equal(acted, 1)
})

test('while production is heard what stands against it is said, so that it is known before it matters', () => {
  const heard = { ...FACTS, productionHeard: true, silentMs: 0 }
  assert.deepEqual(decideAutomatic(withRecord(heard, { mode: 'static-priority' })), {
    verdict: 'refuses',
    reasons: ['NOT_BY_WITNESS', 'PRODUCTION_HEARD'],
  })
  // What the DR side hears is another matter as long as production speaks for itself.
  assert.equal(decideAutomatic(withDr(heard, { hearsProduction: true })).verdict, 'stands_by')
})

test('after it has acted it is armed by an operator, and not before it has cooled down', () => {
  const state = { enabled: true, armed: false, actedAt: 1_000, coolDownMs: 600, now: 1_500 }
  assert.equal(decideArming(state), 'COOLING_DOWN')
  assert.equal(decideArming({ ...state, now: 1_600 }), null)
  assert.equal(decideArming({ ...state, now: 0 }), null, 'a clock that was set back')
  assert.equal(decideArming({ ...state, actedAt: null }), null)
  assert.equal(decideArming({ ...state, armed: true }), 'ARMED_ALREADY')
  assert.equal(decideArming({ ...state, enabled: false }), 'NOT_ENABLED')
})
