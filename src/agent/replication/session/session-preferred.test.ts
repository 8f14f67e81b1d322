/** When the preferred site of static priority may go on without the witness, and when it may not. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { OwnershipRecord } from '#wire/site/witness.ts'
import { AbleSide, inStep, kinds, record, static1, stored } from './session-side.ts'

describe('the preferred writer', () => {
  const unwitnessed = (side: AbleSide, ms = 60_000) => {
    side.unreachable(side.tick(0), ms)
    return side.session.stored.unwitnessed
  }
  const cutOff = () => {
    const side = inStep({}, static1)
    side.answer(side.handle({ kind: 'link_down' }), side.session.stored.record)
    return side
  }

  test('waits for a witness that is silent for as long as a peer may be, and for the end of contact', () => {
    const side = cutOff()
    for (let count = 0; count < 40; count++) {
      const asked = side.tick(1_000)
      if (!kinds(asked).includes('ask')) continue
      side.answer(asked, side.session.stored.record, false)
    }
    assert.equal(side.session.stored.unwitnessed, false, 'it answers')
    const near = cutOff()
    near.unreachable([], 2_000)
    near.session.contact.heard(near.now + 2_000)
    near.unreachable([], 4_000)
    assert.equal(near.session.stored.unwitnessed, false, 'in contact')
    assert.equal(unwitnessed(near, 2_000), true)
  })

  test('is kept by one event and used by a later one', () => {
    const side = cutOff()
    for (let count = 0; count < 60 && !side.session.stored.unwitnessed; count++) {
      side.unreachable(side.tick(), 0)
    }
    assert.equal(side.session.stored.unwitnessed, true)
    assert.equal(side.session.gate.mayAnswer(side.now), false)
    side.tick()
    assert.equal(side.session.gate.mayAnswer(side.now), true)
  })

  test('gives nobody the right to go on whom the witness may have put in sync, or who took over a moment ago', () => {
    const rising = static1(record(3, 'solo'))
    const asked = stored({ record: rising, consistent: true, base: true, riseAsked: true })
    const side = new AbleSide(asked, 10)
    side.answer(side.handle({ kind: 'start' }), rising, false)
    assert.equal(unwitnessed(side), false)
  })

  test('counts where the record and the last wish both say so', () => {
    const other = { mode: 'static-priority', preferred: 'az2' } as const
    const here = { mode: 'static-priority', preferred: 'az1' } as const
    for (const [wanted, arbitrated, may] of [
      [null, static1, true],
      [other, static1, false],
      [here, (of: OwnershipRecord) => of, false],
    ] as const) {
      const side = inStep({}, arbitrated)
      const wish = wanted === null ? [] : side.handle({ kind: 'arbitrate', ...wanted })
      side.unreachable(wish, 0)
      side.unreachable(side.handle({ kind: 'link_down' }), 60_000)
      assert.equal(side.session.stored.unwitnessed, may, JSON.stringify(wanted))
    }
  })

  test('answers under a lease again when the witness has moved the record on, and not before that', () => {
    const before = stored({ record: static1(record(3, 'solo')), consistent: true })
    const side = new AbleSide(before, 10)
    side.answer(side.handle({ kind: 'start' }), before.record)
    assert.equal(side.session.gate.mode, 'alone')
    side.unreachable(side.tick(2_000), 20_000)
    assert.equal(side.session.gate.mode, 'unwitnessed')
    side.open(static1(record(4, 'resyncing')))
    assert.equal(side.session.stored.unwitnessed, false)
    assert.equal(side.session.gate.mayAnswer(side.now), false)
  })
})
