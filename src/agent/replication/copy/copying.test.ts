import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createLog } from '#base/log.ts'
import { BLOCK_BYTES } from '#wire/link/frame.ts'
import { FEATURES } from '#wire/link/messages.ts'
import type { SessionCore } from '../core.ts'
import { MemoryVolume, nextTurn, TestClock } from '../data-path.test-kit.ts'
import type { Members } from '../members.ts'
import type { SessionEvent } from '../session/session.ts'
import type { Writer } from '../writer/writer.ts'
import type { WriterEnd } from '../writer/writer-end.ts'
import { CopyTodo } from './copy-todo.ts'
import { Copying } from './copying.ts'

const SIZE = 8 * BLOCK_BYTES

/** A writer in a resync of one member, whose change map names one block, and whose frames are never acknowledged by themselves. */
function world() {
  const events: string[] = []
  const calls: string[] = []
  const state = {
    boot: 'boot-1',
    durable: true,
    changed: [3],
    answered: Promise.resolve(),
    settled: [] as (() => void)[],
  }
  const record = { epoch: 5 }
  const gate = { sequence: 0, acknowledged: 0 }
  const session = { phase: 'copying', stored: { record, baseEpoch: 4 }, gate }
  const volume = new MemoryVolume(SIZE)
  const todo = new CopyTodo(SIZE)
  const member = { index: 1, volume, todo, watched: new Set() }
  const own = {
    index: 1,
    intent: {
      regions: 1,
      has: () => false,
      endRound: () => void calls.push('cleared'),
      save: async () => void calls.push('saved'),
    },
    changes: {
      trust: () => 'exact',
      addTo: (set: { add(block: number): void }) => {
        calls.push('planned')
        for (const block of state.changed) set.add(block)
      },
    },
  }
  const sent: number[] = []
  const writer = {
    members: new Map([[1, member]]),
    sendCopy: (_: unknown, __: unknown, offset: number) => {
      sent.push(offset / BLOCK_BYTES)
      return ++gate.sequence
    },
    whenSettled: (done: () => void) => void state.settled.push(done),
    flushAll: async () => {
      await state.answered
      return state.durable
    },
  } as unknown as Writer
  const copying = new Copying({
    core: {
      session,
      clock: new TestClock(),
      now: () => 1,
      log: createLog('test', 'silent'),
      post: ({ kind }: SessionEvent) => void events.push(kind),
      handle: async ({ kind }: SessionEvent) => void events.push(kind),
      fatal: (error: unknown) => assert.fail(String(error)),
    } as unknown as SessionCore,
    members: {
      get: () => own,
      values: () => [own],
      beginRound: () => void calls.push('round'),
      copyRateBytes: 0,
    } as unknown as Members,
    link: {
      sender: { backlogBytes: 0 },
      queries: {
        changes: async () => {
          await state.answered
          return { send: new Uint8Array(8), compare: new Uint8Array(1) }
        },
        checksums: async () => {
          await state.answered
          return Buffer.alloc(0)
        },
      },
      peerJoined: new Set([1]),
      blank: new Set(),
      peerFeatures: FEATURES.CHANGES,
      get peerBootId() {
        return state.boot
      },
      broken: () => void events.push('link broken'),
    } as unknown as WriterEnd,
    writer: () => writer,
    syncRateBytes: 0,
  })
  return { copying, state, session, record, gate, events, calls, sent, todo }
}

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 20; turn++) await nextTurn()
}

describe('a copy that was interrupted', () => {
  test('goes on with what is left when the replica is still the same', async () => {
    const { copying, gate, calls, sent } = world()
    copying.start('delta')
    await turns()
    assert.deepEqual(sent, [3])
    gate.acknowledged = gate.sequence
    copying.acknowledged()
    copying.stop()
    copying.start('delta')
    await turns()
    assert.deepEqual([calls, sent], [['planned'], [3]])
  })

  for (const [what, change] of [
    ['the replica has lost power since, and with it what it had acknowledged', 'boot'],
    ['the epoch is another one', 'epoch'],
    ['more is asked for', 'regions'],
    ['both sides have been equal since', 'cleared'],
  ] as const) {
    test(`is planned anew when ${what}`, async () => {
      const { copying, state, record, gate, calls, sent } = world()
      copying.start('delta')
      await turns()
      gate.acknowledged = gate.sequence
      copying.acknowledged()
      copying.stop()
      if (change === 'boot') state.boot = 'boot-2'
      if (change === 'epoch') record.epoch++
      if (change === 'cleared') copying.changesCleared()
      copying.start('delta', change === 'regions')
      await turns()
      assert.deepEqual(
        [calls, sent],
        [
          ['planned', 'planned'],
          [3, 3],
        ],
      )
    })
  }

  test('while it was planned begins nothing, and reports nothing, under the next link', async () => {
    const { copying, state, events, sent } = world()
    let answer = () => {}
    state.answered = new Promise((resolve) => (answer = resolve))
    copying.start('delta')
    copying.stop()
    answer()
    await turns()
    assert.deepEqual([events, sent], [[], []])
  })
})

describe('a drain', () => {
  test('is over when all is settled and durable, and clears the intent bits of its round', async () => {
    const { copying, state, session, events, calls } = world()
    session.phase = 'draining'
    copying.drain()
    await turns()
    assert.deepEqual([events, calls], [[], []])
    for (const wake of state.settled) wake()
    await turns()
    assert.deepEqual([events, calls], [['drained'], ['round', 'cleared', 'saved']])
  })

  for (const why of ['could not be made durable', 'was given up', 'is no longer one']) {
    test(`that ${why} reports nothing, and clears nothing`, async () => {
      const { copying, state, session, events, calls } = world()
      session.phase = 'draining'
      state.durable = why !== 'could not be made durable'
      copying.drain()
      for (const wake of state.settled) wake()
      if (why === 'was given up') copying.stop()
      if (why === 'is no longer one') session.phase = 'held'
      await turns()
      assert.deepEqual([events, calls], [[], ['round']])
    })
  }
})
