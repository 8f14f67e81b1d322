import assert from 'node:assert/strict'
import { test } from 'node:test'
import { toJson } from '#control/store/json.ts'
import type { Power, ServerBrief } from '#wire/site/servers.ts'
import { changeBy } from './power-sync.ts'

type Known = Parameters<typeof changeBy>[0]

const row = (over: Partial<Known> = {}): Known => ({
  id: 'one',
  status: 'active',
  task: null,
  generation: 3,
  power: 'running',
  power_at: 1_000,
  fault: null,
  updated_at: 1_000,
  ...over,
})

const brief = (power: Power, since: number, reason: string | null = null): ServerBrief => ({
  server: 'one',
  generation: 3,
  power,
  power_since: since,
  reason,
})

const fault = (passing: boolean) => toJson({ code: 'A', message: 'b', at: 1, passing })

test('a report of what is known changes nothing, and neither does none', () => {
  assert.equal(changeBy(row(), brief('running', 1_000), 9_000), null)
  assert.equal(changeBy(row(), undefined, 9_000), null)
})

test('a guest that ended is stopped, with what it said', () => {
  const change = changeBy(row(), brief('off', 2_000, 'it powered itself off'), 2_100)
  assert.deepEqual([change?.status, change?.power, change?.power_at], ['stopped', 'off', 2_000])
  assert.match(change?.fault ?? '', /powered itself off/)
  assert.equal(changeBy(row(), brief('off', 2_000), 2_100)?.fault, null)
})

test('a report that was under way while an operation ended does not undo it', () => {
  const late = brief('off', 500)
  assert.equal(changeBy(row(), late, 1_200), null)
  assert.equal(changeBy(row(), late, 5_999), null)
  assert.equal(changeBy(row(), late, 6_000)?.status, 'stopped', 'but a clock set back is outlived')
})

test('while an operation works on the server its status is the operation’s', () => {
  for (const task of ['powering-on', 'powering-off', 'rebooting', 'deleting']) {
    const change = changeBy(row({ task }), brief('off', 2_000), 2_100)
    assert.deepEqual(change, { power: 'off', power_at: 2_000 })
  }
})

test('an error of which only the site knew better is settled; one of the making is not', () => {
  const broken = (passing: boolean) => row({ status: 'error', fault: fault(passing) })
  assert.equal(changeBy(broken(true), brief('running', 2_000), 2_100)?.status, 'active')
  assert.equal(changeBy(broken(true), brief('running', 2_000), 2_100)?.fault, null)
  assert.equal(changeBy(broken(true), brief('off', 2_000), 2_100)?.status, 'stopped')
  assert.equal(changeBy(broken(false), brief('running', 2_000), 2_100)?.status, undefined)
})

test('a definition that is later than the row’s gives the row a number above it', () => {
  const change = changeBy(row(), { ...brief('running', 1_000), generation: 7 }, 2_000)
  assert.equal(change?.generation, 8)
  assert.equal(changeBy(row(), { ...brief('running', 1_000), generation: 2 }, 2_000), null)
})

test('a hypervisor that does not answer leaves the status as it was', () => {
  for (const power of ['unknown', 'paused'] as const) {
    assert.deepEqual(changeBy(row(), brief(power, 2_000), 2_100), { power, power_at: 2_000 })
  }
})
