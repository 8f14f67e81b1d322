import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { REGION_DENIED, REGION_UNREACHABLE } from '#control/sites/regions.ts'
import { Tickets } from './replica-tickets.ts'

const MINUTE = 60_000

/** Asks at the times of `clock`; `answers` says what the other region does. */
function world() {
  const time = { ms: 1_000_000 }
  const clock: Clock = {
    wallMs: () => time.ms,
    bootMs: () => time.ms,
    after: () => () => undefined,
  }
  const asked: number[] = []
  const other = { fault: undefined as Fault | undefined }
  const tickets = new Tickets(clock, async () => {
    asked.push(time.ms)
    if (other.fault !== undefined) throw other.fault
    const target = { url: 'https://a:1', authority: '', ticket: `t${asked.length}` }
    return { target, expires_at: time.ms + 60 * MINUTE }
  })
  const ticket = async () => (await tickets.current()).target.ticket
  return { time, asked, other, tickets, ticket }
}

test('a ticket is used until half its time, and to its end while the other region does not answer', async () => {
  const { time, asked, other, ticket } = world()
  assert.equal(await ticket(), 't1')
  time.ms += 29 * MINUTE
  assert.equal(await ticket(), 't1')
  other.fault = new Fault(REGION_UNREACHABLE, 'asking')
  time.ms += 2 * MINUTE
  for (let i = 0; i < 100; i++) {
    assert.equal(await ticket(), 't1')
    time.ms += 500
  }
  // After 1 s, 2 s, 4 s ..., not each time.
  assert.equal(asked.length, 7)
  time.ms += 60 * MINUTE
  await assert.rejects(ticket(), (error) => isFault(error, REGION_UNREACHABLE))
  other.fault = undefined
  time.ms += MINUTE
  assert.equal(await ticket(), 't9')
})

test('a denial is told at once', async () => {
  const { other, ticket } = world()
  other.fault = new Fault(REGION_DENIED, 'asking')
  await assert.rejects(ticket(), (error) => isFault(error, REGION_DENIED))
})

test('work whose ticket was refused goes on with another, three times', async () => {
  const { ticket, tickets } = world()
  const refused = { state: 'failed', code: 'TICKET_REFUSED' } as const
  await ticket()
  assert.equal(tickets.wasRefused({ state: 'running', code: null }), false)
  assert.equal(tickets.wasRefused({ state: 'failed', code: 'TRANSFER_REFUSED' }), false)
  for (const next of ['t2', 't3', 't4']) {
    assert.equal(tickets.wasRefused(refused), true)
    assert.equal(await ticket(), next)
  }
  assert.equal(tickets.wasRefused(refused), false)
})
