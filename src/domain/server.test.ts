import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  decideServer,
  type GuestPower,
  SERVER_MOVES,
  SERVER_STATUSES,
  type ServerCommand,
  type ServerFacts,
  type ServerStatus,
  type ServerTask,
  statusAfterReport,
} from './server.ts'

const facts = (over: Partial<ServerFacts> = {}): ServerFacts => ({
  status: 'active',
  task: null,
  protected: false,
  production: true,
  ...over,
})

const COMMANDS: readonly ServerCommand[] = [
  { kind: 'start' },
  { kind: 'stop' },
  { kind: 'reboot', hard: false },
  { kind: 'reboot', hard: true },
  { kind: 'attach' },
  { kind: 'detach', root: false, replicated: false },
  { kind: 'detach', root: true, replicated: false },
  { kind: 'detach', root: false, replicated: true },
  { kind: 'delete' },
  { kind: 'change' },
]

/** Which command is taken from where, when nothing else is done to the server; `=`: it is so already. */
const TAKEN: Record<string, readonly (ServerStatus | `=${ServerStatus}`)[]> = {
  start: ['stopped', '=active'],
  stop: ['active', 'error', '=stopped'],
  reboot: ['active'],
  'reboot hard': ['active', 'stopped', 'error'],
  attach: ['active', 'stopped'],
  detach: ['active', 'stopped'],
  'detach root': ['stopped'],
  'detach replicated': [],
  delete: SERVER_STATUSES,
  change: SERVER_STATUSES,
}

const nameOf = (command: ServerCommand): string => {
  if (command.kind === 'reboot') return command.hard ? 'reboot hard' : 'reboot'
  if (command.kind !== 'detach') return command.kind
  return `detach${command.root ? ' root' : ''}${command.replicated ? ' replicated' : ''}`
}

test('every command in every status is decided as the table says', () => {
  for (const status of SERVER_STATUSES) {
    for (const command of COMMANDS) {
      const decision = decideServer(facts({ status }), command)
      const taken = TAKEN[nameOf(command)] ?? []
      const expected = taken.includes(status) || taken.includes(`=${status}`)
      assert.equal(decision.ok, expected, `${nameOf(command)} in ${status}`)
      if (decision.ok) {
        assert.equal(decision.already, taken.includes(`=${status}`), `${nameOf(command)} ${status}`)
      }
    }
  }
})

test('while something is done to a server, only a deletion and a change of its description are taken', () => {
  const tasks: ServerTask[] = [
    'scheduling',
    'block_device_mapping',
    'spawning',
    'powering-on',
    'powering-off',
    'rebooting',
    'resizing',
  ]
  for (const task of tasks) {
    for (const status of SERVER_STATUSES) {
      for (const command of COMMANDS) {
        const decision = decideServer(facts({ status, task }), command)
        const free = command.kind === 'delete' || command.kind === 'change'
        assert.equal(decision.ok, free, `${nameOf(command)} during ${task}`)
      }
    }
  }
})

test('a server that is being deleted is deleted once, and nothing else is taken', () => {
  for (const status of SERVER_STATUSES) {
    for (const command of COMMANDS) {
      const decision = decideServer(facts({ status, task: 'deleting' }), command)
      assert.equal(decision.ok, command.kind === 'delete', nameOf(command))
      if (decision.ok) assert.equal(decision.already, true)
    }
  }
})

test('a server that stands by is not started, but may be stopped and renamed', () => {
  const standby = facts({ status: 'stopped', production: false })
  const refusal = { ok: false, refusal: 'SERVER_NOT_PRODUCTION' }
  assert.deepEqual(decideServer(standby, { kind: 'start' }), refusal)
  assert.deepEqual(decideServer(standby, { kind: 'reboot', hard: true }), refusal)
  assert.equal(decideServer(standby, { kind: 'change' }).ok, true)
  assert.equal(decideServer({ ...standby, status: 'active' }, { kind: 'stop' }).ok, true)
})

test('a protected server is not deleted in any state, and keeps its replicated disks', () => {
  for (const status of SERVER_STATUSES) {
    for (const task of [null, 'deleting', 'spawning'] as const) {
      assert.deepEqual(decideServer(facts({ status, task, protected: true }), { kind: 'delete' }), {
        ok: false,
        refusal: 'SERVER_PROTECTED',
      })
      assert.deepEqual(
        decideServer(facts({ status, task, protected: true }), {
          kind: 'detach',
          root: false,
          replicated: true,
        }),
        { ok: false, refusal: 'SERVER_DISK_REPLICATED' },
      )
    }
  }
})

const arbitraryFacts = fc.record<ServerFacts>({
  status: fc.constantFrom(...SERVER_STATUSES),
  task: fc.constantFrom<ServerTask | null>(null, 'spawning', 'powering-on', 'deleting'),
  protected: fc.boolean(),
  production: fc.boolean(),
})

test('an accepted command moves along the table of moves, or stays', () => {
  fc.assert(
    fc.property(arbitraryFacts, fc.constantFrom(...COMMANDS), (at, command) => {
      const decision = decideServer(at, command)
      if (!decision.ok || decision.status === at.status) return
      assert.ok(SERVER_MOVES[at.status].includes(decision.status))
    }),
  )
})

test('whatever commands and reports come, in any order, every move is one of the table', () => {
  /** An operation's end: with success or without, from what it left behind. */
  const ends: Record<string, (status: ServerStatus, well: boolean) => ServerStatus> = {
    'powering-on': (status, well) => (well ? 'active' : status),
    'powering-off': (status, well) => (well ? 'stopped' : status),
    rebooting: (_, well) => (well ? 'active' : 'error'),
    resizing: (status) => status,
  }
  const event = fc.oneof(
    fc.record({ command: fc.constantFrom(...COMMANDS) }),
    fc.record({ power: fc.constantFrom<GuestPower>('running', 'off', 'paused', 'unknown') }),
    fc.record({ well: fc.boolean() }),
  )
  fc.assert(
    fc.property(fc.array(event, { maxLength: 60 }), (events) => {
      let status: ServerStatus = 'stopped'
      let task: ServerTask | null = null
      for (const one of events) {
        const before: ServerStatus = status
        if ('command' in one) {
          const decision = decideServer(facts({ status, task }), one.command)
          if (decision.ok) ({ status, task } = decision)
        } else if ('power' in one) {
          status = statusAfterReport({ status, task }, one.power, true) ?? status
        } else if (task !== null) {
          status = ends[task]?.(status, one.well) ?? status
          task = task === 'deleting' ? task : null
        }
        assert.ok(before === status || SERVER_MOVES[before].includes(status), `${before} ${status}`)
        // Nothing is ever stuck: without a task, a server can be brought to run or to be deleted.
        if (task === null) {
          const ways = COMMANDS.filter(({ kind }) => kind === 'start' || kind === 'reboot')
          assert.ok(ways.some((command) => decideServer(facts({ status, task }), command).ok))
        }
      }
    }),
  )
})

test('a report settles a server that nothing is done to, and no other', () => {
  const after = (status: ServerStatus, power: GuestPower, whole = true, task = null) =>
    statusAfterReport({ status, task }, power, whole)
  assert.equal(after('active', 'off'), 'stopped')
  assert.equal(after('stopped', 'running'), 'active')
  assert.equal(after('error', 'running'), 'active')
  assert.equal(after('error', 'off'), 'stopped')
  assert.equal(after('error', 'off', false), null, 'one that was never made stays an error')
  assert.equal(after('active', 'running'), null)
  for (const power of ['paused', 'unknown'] as const) {
    for (const status of SERVER_STATUSES) assert.equal(after(status, power), null)
  }
  for (const status of ['building', 'rebooting', 'hard_rebooting'] as const) {
    assert.equal(after(status, 'running'), null)
    assert.equal(after(status, 'off'), null)
  }
  assert.equal(statusAfterReport({ status: 'active', task: 'powering-off' }, 'off', true), null)
})
