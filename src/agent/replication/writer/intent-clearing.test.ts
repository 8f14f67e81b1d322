import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { SessionCore } from '../core.ts'
import type { Members } from '../members.ts'
import { IntentClearing } from './intent-clearing.ts'
import type { Sender } from './sender.ts'
import type { Writer } from './writer.ts'
import type { WriterEnd } from './writer-end.ts'

const EVERY_MS = 10

/** A writer that follows in step, with two members whose rounds are only counted. */
function world() {
  const calls: string[] = []
  const memberOf = (index: number) => ({
    index,
    volume: { failed: undefined as string | undefined },
    todo: { count: 0 },
    intent: {
      endRound: () => void calls.push(`clear ${index}`),
      save: async () => void calls.push(`save ${index}`),
    },
  })
  const members = [memberOf(1), memberOf(2)]
  const gate = { sequence: 7, acknowledged: 7 }
  const session = { phase: 'following', role: 'writer', gate }
  const state = { nowMs: 0, durable: true, sender: {} as Sender, closing: false }
  let duringFlush = () => {}
  const writer = {
    members: new Map(members.map((member) => [member.index, member])),
    flushAll: async () => {
      calls.push('flush')
      await Promise.resolve()
      duringFlush()
      return state.durable
    },
  } as unknown as Writer
  const clearing = new IntentClearing({
    core: {
      session,
      now: () => state.nowMs,
      fatal: (error: unknown) => assert.fail(String(error)),
      get closing() {
        return state.closing
      },
    } as unknown as SessionCore,
    members: {
      dirtyRegions: 2,
      values: () => members,
      beginRound: () => void calls.push('begin'),
    } as unknown as Members,
    link: {
      get sender() {
        return state.sender
      },
    } as unknown as WriterEnd,
    writer: () => writer,
    everyMs: EVERY_MS,
  })
  /** Passes one interval; what was done in it. */
  const round = async (): Promise<string[]> => {
    calls.length = 0
    clearing.tick(state.nowMs)
    state.nowMs += EVERY_MS
    clearing.tick(state.nowMs)
    await new Promise((resolve) => setImmediate(resolve))
    return [...calls]
  }
  return {
    members,
    gate,
    session,
    state,
    round,
    whileFlushing: (work: () => void) => (duringFlush = work),
  }
}

const ALL = ['flush', 'clear 1', 'save 1', 'clear 2', 'save 2', 'begin']

describe('intent bits', () => {
  test('are cleared one interval later, after both sides have flushed, and saved before the next round begins', async () => {
    const { round } = world()
    assert.deepEqual(
      await round(),
      ['begin'],
      'nothing is known of the time before the first round',
    )
    assert.deepEqual(await round(), ALL)
    assert.deepEqual(await round(), ALL)
  })

  test('stay while a write that the round was begun behind is not acknowledged', async () => {
    const { round, gate } = world()
    gate.sequence = 9
    assert.deepEqual(await round(), ['begin'])
    gate.acknowledged = 8
    assert.deepEqual(await round(), ['begin'], 'and the round begins anew')
    gate.acknowledged = 9
    assert.deepEqual(await round(), ALL)
  })

  test('stay when one side could not make what it has durable', async () => {
    const { round, state } = world()
    await round()
    state.durable = false
    assert.deepEqual(await round(), ['flush'])
  })

  test('stay when the round was begun on another link', async () => {
    const { round, state } = world()
    await round()
    state.sender = {} as Sender
    assert.deepEqual(await round(), ['begin'])
    assert.deepEqual(await round(), ALL)
  })

  for (const [what, change] of [
    ['the link is lost', ({ state }) => void (state.sender = {} as Sender)],
    ['the session leaves the state', ({ session }) => void (session.phase = 'held')],
    ['the agent stops', ({ state }) => void (state.closing = true)],
  ] as const satisfies readonly [string, (of: ReturnType<typeof world>) => void][]) {
    test(`stay when ${what} while both sides flush`, async () => {
      const all = world()
      await all.round()
      all.whileFlushing(() => change(all))
      assert.deepEqual(await all.round(), ['flush'])
    })
  }

  test('of a volume that has failed, or of which something is left to copy, stay', async () => {
    const { round, members } = world()
    const [first, second] = members
    assert.ok(first !== undefined && second !== undefined)
    await round()
    first.volume.failed = 'fdatasync failed'
    assert.deepEqual(await round(), ['flush', 'clear 2', 'save 2', 'begin'])
    second.todo.count = 1
    assert.deepEqual(await round(), ['flush', 'begin'])
  })

  test('are left alone by a side that does not follow in step', async () => {
    const { round, session } = world()
    await round()
    session.phase = 'alone'
    assert.deepEqual(await round(), [])
  })
})
