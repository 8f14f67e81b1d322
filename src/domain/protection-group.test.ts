import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  decideGroup,
  GROUP_MOVES,
  GROUP_STATUSES,
  GROUP_TRANSIENT,
  GROUP_TRANSITIONS,
  type GroupCommand,
  type GroupFacts,
  type GroupStatus,
  type GroupSyncFact,
} from './protection-group.ts'

const facts = (over: Partial<GroupFacts> = {}): GroupFacts => ({
  status: 'protected',
  station: 'source',
  reversingTo: null,
  pairs: 1,
  usablePairs: 1,
  instances: 0,
  drills: 0,
  busyPairs: 0,
  busyInstances: 0,
  brokenInstances: 0,
  runningProduction: 0,
  runningDr: 0,
  sync: 'in_sync',
  preferredMayRun: false,
  ...over,
})

const COMMANDS: GroupCommand[] = [
  { kind: 'start' },
  { kind: 'stop' },
  { kind: 'reverse', to: 'target' },
  { kind: 'failover', force: false },
  { kind: 'delete' },
  { kind: 'rename' },
]

/** The published table, written out by hand: what each command may start from, and where it leads. */
const TABLE: Record<string, Partial<Record<GroupStatus, string>>> = {
  start: {
    available: 'start',
    'error-starting': 'start',
    // Not published: a consistency group whose update failed is as paused as before.
    'error-updating': 'start',
    'failed-over': 'reprotect',
    'error-reprotecting': 'reprotect',
  },
  stop: { protected: 'stop', 'error-stopping': 'stop' },
  reverse: { protected: 'reverse', 'error-reversing': 'reverse' },
  failover: {
    protected: 'failover',
    'error-failing-over': 'failover',
    'error-reversing': 'failover',
  },
  delete: Object.fromEntries(
    GROUP_STATUSES.filter((one) => !GROUP_TRANSIENT.has(one)).map((one) => [one, 'delete']),
  ),
}

test('every command in every status does what the published table says', () => {
  for (const status of GROUP_STATUSES) {
    for (const command of COMMANDS) {
      const pairs = command.kind === 'delete' ? 0 : 1
      const decision = decideGroup(facts({ status, pairs }), command)
      const where = `${command.kind} in ${status}`
      if (command.kind === 'rename') {
        assert.deepEqual(decision, { ok: true, transition: null }, where)
        continue
      }
      const expected = TABLE[command.kind]?.[status]
      if (expected === undefined) {
        assert.deepEqual(decision, { ok: false, refusal: 'GROUP_STATE' }, where)
      } else assert.deepEqual(decision, { ok: true, transition: expected }, where)
    }
  }
})

test('every transition moves along the table of moves', () => {
  for (const [name, { from, via, to, onError }] of Object.entries(GROUP_TRANSITIONS)) {
    for (const status of from) assert.ok(GROUP_MOVES[status].includes(via), `${name}: ${status}`)
    if (to !== null) assert.ok(GROUP_MOVES[via].includes(to), name)
    assert.ok(GROUP_MOVES[via].includes(onError), name)
  }
})

test('every status can be left and every status but creating can be reached', () => {
  const reached = new Set(Object.values(GROUP_MOVES).flat())
  for (const status of GROUP_STATUSES) {
    assert.ok(GROUP_MOVES[status].length > 0, status)
    if (status !== 'creating') assert.ok(reached.has(status), status)
  }
})

test('a group with children is not deleted, and the first kind of child is named', () => {
  const refusal = (over: Partial<GroupFacts>) => {
    const decision = decideGroup(facts({ status: 'available', pairs: 0, ...over }), {
      kind: 'delete',
    })
    return decision.ok ? null : decision.refusal
  }
  assert.equal(refusal({}), null)
  assert.equal(refusal({ pairs: 1 }), 'GROUP_HAS_PAIRS')
  assert.equal(refusal({ pairs: 1, drills: 1 }), 'GROUP_HAS_DRILLS')
  assert.equal(refusal({ pairs: 1, drills: 1, instances: 1 }), 'GROUP_HAS_INSTANCES')
})

test('a group without pairs has nothing to protect or switch', () => {
  for (const command of COMMANDS) {
    if (!['start', 'reverse', 'failover'].includes(command.kind)) continue
    const status = command.kind === 'start' ? 'available' : 'protected'
    const decision = decideGroup(facts({ status, usablePairs: 0 }), command)
    assert.deepEqual(decision, { ok: false, refusal: 'GROUP_WITHOUT_PAIRS' }, command.kind)
  }
})

test('what is known about the synchronisation decides about stop, reverse and failover', () => {
  const expected: Record<GroupSyncFact, Record<'stop' | 'reverse' | 'failover', string>> = {
    in_sync: { stop: 'go', reverse: 'go', failover: 'go' },
    idle: { stop: 'go', reverse: 'GROUP_COPYING', failover: 'go' },
    settling: { stop: 'go', reverse: 'go', failover: 'go' },
    copying: { stop: 'GROUP_COPYING', reverse: 'GROUP_COPYING', failover: 'GROUP_COPYING' },
    stalled: { stop: 'go', reverse: 'GROUP_COPYING', failover: 'GROUP_COPYING' },
    link_down: { stop: 'go', reverse: 'GROUP_LINK_DOWN', failover: 'GROUP_LINK_DOWN' },
    production_silent: {
      stop: 'GROUP_PRODUCTION_SILENT',
      reverse: 'GROUP_PRODUCTION_SILENT',
      failover: 'go',
    },
  }
  for (const [sync, row] of Object.entries(expected)) {
    for (const command of COMMANDS) {
      if (command.kind !== 'stop' && command.kind !== 'reverse' && command.kind !== 'failover') {
        continue
      }
      const decision = decideGroup(facts({ sync: sync as GroupSyncFact }), command)
      assert.equal(
        decision.ok ? 'go' : decision.refusal,
        row[command.kind],
        `${command.kind} while ${sync}`,
      )
    }
  }
})

test('force overrides what is known about the synchronisation, and nothing else', () => {
  for (const sync of ['copying', 'stalled', 'link_down'] as const) {
    const decision = decideGroup(facts({ sync }), { kind: 'failover', force: true })
    assert.deepEqual(decision, { ok: true, transition: 'failover' }, sync)
  }
  for (const status of GROUP_STATUSES) {
    const forced = decideGroup(facts({ status }), { kind: 'failover', force: true })
    assert.equal(forced.ok, TABLE['failover']?.[status] !== undefined, status)
  }
})

test('a reversal must name the other station, and its repetition the same one', () => {
  const reverse = (over: Partial<GroupFacts>, to: 'source' | 'target') =>
    decideGroup(facts(over), { kind: 'reverse', to }).ok
  assert.equal(reverse({ station: 'source' }, 'target'), true)
  assert.equal(reverse({ station: 'source' }, 'source'), false)
  assert.equal(reverse({ station: 'target' }, 'source'), true)
  const failed = { status: 'error-reversing', station: 'target', reversingTo: 'target' } as const
  assert.equal(reverse(failed, 'target'), true)
  assert.equal(reverse(failed, 'source'), false)
})

test('a group with a busy pair waits, but a failover does not', () => {
  for (const command of COMMANDS) {
    if (command.kind === 'rename' || command.kind === 'delete') continue
    const status = command.kind === 'start' ? 'available' : 'protected'
    const decision = decideGroup(facts({ status, busyPairs: 1 }), command)
    assert.equal(decision.ok, command.kind === 'failover', command.kind)
  }
})

test('a group with an instance at work waits, but a failover does not', () => {
  for (const command of COMMANDS) {
    if (command.kind === 'rename' || command.kind === 'delete') continue
    const status = command.kind === 'start' ? 'available' : 'protected'
    const decision = decideGroup(facts({ status, busyInstances: 1 }), command)
    assert.equal(decision.ok, command.kind === 'failover', command.kind)
  }
})

test('servers that run stop a planned switch, those of the DR site a reprotection, none a failover', () => {
  const refusal = (over: Partial<GroupFacts>, command: GroupCommand) => {
    const decision = decideGroup(facts(over), command)
    return decision.ok ? null : decision.refusal
  }
  const reverse = { kind: 'reverse', to: 'target' } as const
  for (const status of ['protected', 'error-reversing'] as const) {
    assert.equal(refusal({ status, runningProduction: 1 }, reverse), 'GROUP_PRODUCTION_RUNS')
    assert.equal(refusal({ status, runningDr: 1 }, reverse), 'GROUP_DR_RUNS')
  }
  const start = { kind: 'start' } as const
  assert.equal(refusal({ status: 'failed-over', runningDr: 1 }, start), 'GROUP_DR_RUNS')
  assert.equal(refusal({ status: 'failed-over', runningProduction: 1 }, start), null)
  assert.equal(refusal({ status: 'available', runningProduction: 1 }, start), null)
  const failover = { kind: 'failover', force: false } as const
  assert.equal(refusal({ runningProduction: 1, runningDr: 1 }, failover), null)
  assert.equal(refusal({ brokenInstances: 1 }, failover), 'GROUP_BROKEN_INSTANCES')
})

test('a failed reversal may be repeated whatever is known about the synchronisation', () => {
  const at = { status: 'error-reversing', reversingTo: 'target' } as const
  for (const sync of ['idle', 'copying', 'stalled', 'link_down', 'production_silent'] as const) {
    const decision = decideGroup(facts({ ...at, sync }), { kind: 'reverse', to: 'target' })
    assert.deepEqual(decision, { ok: true, transition: 'reverse' }, sync)
  }
})

test('a silent preferred site of a static-priority group is given up by force together with the statement that it is off', () => {
  for (const sync of ['production_silent', 'stalled', 'in_sync'] as const) {
    const silent = facts({ sync, preferredMayRun: true })
    for (const force of [false, true]) {
      for (const preferredOff of [false, true]) {
        const decision = decideGroup(silent, { kind: 'failover', force, preferredOff })
        assert.equal(decision.ok, force && preferredOff)
        if (!decision.ok) assert.equal(decision.refusal, 'GROUP_PREFERRED_MAY_RUN')
      }
    }
  }
})

test('a stop that says so gives up a copy under way and one that could not be begun, but never the DR copy of a silent production', () => {
  const stop = { kind: 'stop', unfinished: true } as const
  assert.deepEqual(decideGroup(facts({ sync: 'copying' }), stop), { ok: true, transition: 'stop' })
  const failed = facts({ status: 'error-starting', sync: 'stalled' })
  assert.deepEqual(decideGroup(failed, stop), { ok: true, transition: 'stop' })
  assert.equal(decideGroup(failed, { kind: 'stop' }).ok, false)
  const silent = facts({ sync: 'production_silent' })
  assert.deepEqual(decideGroup(silent, stop), { ok: false, refusal: 'GROUP_PRODUCTION_SILENT' })
})
