import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type DialOutcome, DialPace, LinkNews } from './short-links.ts'

const pauses = (pace: DialPace, outcome: DialOutcome, count: number): number[] =>
  Array.from({ length: count }, () => pace.after(outcome))

describe('dialling', () => {
  test('slows down while links end at once or are refused', () => {
    assert.deepEqual(pauses(new DialPace(), 3, 8), [50, 100, 200, 400, 800, 1_600, 2_000, 2_000])
    assert.deepEqual(pauses(new DialPace(), 'refused', 7).at(-1), 2_000)
  })

  test('looks for a peer that does not answer once a second', () => {
    assert.deepEqual(pauses(new DialPace(), 'unreached', 6), [50, 100, 200, 400, 800, 1_000])
  })

  test('is fast again after a link that stood', () => {
    const pace = new DialPace()
    pauses(pace, 3, 9)
    assert.equal(pace.after(1_000), 50)
    assert.equal(pace.after(3), 100)
  })
})

describe('the end of a link', () => {
  test('is news once per reason while links end at once', () => {
    const news = new LinkNews()
    for (const first of [true, false, false]) {
      assert.equal(news.isNews('frame 7 could not be applied', 5), first)
      assert.equal(news.isNews('frame 8 could not be applied', 5), false)
      assert.equal(news.isNews('the writer hung up', 999), first)
    }
    assert.equal(news.isNews('the writer hung up', 1_000), true)
    assert.equal(news.isNews('the writer hung up', 5), false)
    assert.equal(news.isNews('frame 9 could not be applied', 5), true)
  })
})
