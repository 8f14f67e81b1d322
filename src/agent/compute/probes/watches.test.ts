import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '#base/system/clock.ts'
import type { ProbeAnswer } from '#wire/site/probes.ts'
import { Watches } from './watches.ts'

const seen = (ok: boolean): ProbeAnswer => ({ ok, detail: '', since_start_ms: null, output: '' })
const settled = async () => {
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
}

test('commands that hang keep no short look waiting, and those of one guest few of the others', async () => {
  const watches = new Watches(systemClock)
  const end = Promise.withResolvers<ProbeAnswer>()
  const underWay: string[] = []
  const hang = (guest: string) => () => {
    underWay.push(guest)
    return end.promise
  }
  for (let at = 0; at < 40; at++) watches.ask(`hangs-${at}`, 'greedy', hang('greedy'))
  await settled()
  assert.deepEqual(underWay, ['greedy', 'greedy'])
  for (let at = 0; at < 60; at++) watches.ask(`other-${at}`, `guest-${at}`, hang('other'))
  await settled()
  assert.equal(underWay.length, 32)
  watches.ask('short', null, async () => seen(true))
  await settled()
  assert.equal(watches.ask('short', null, async () => seen(false)).ok, true)
  end.resolve(seen(true))
  await settled()
  assert.equal(underWay.length, 100, 'each had its turn')
  watches.close()
})
