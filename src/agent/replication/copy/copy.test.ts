import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { BLOCK_BYTES, FRAME_BYTES } from '#wire/link/frame.ts'
import type { Slab } from '#agent/nbd/slab.ts'
import { VOLUME_READ_ERROR } from '#agent/volumes/faults.ts'
import { MemoryVolume, nextTurn, TestClock } from '../data-path.test-kit.ts'
import { type PeerQueries, QueryFailed } from '../peer-queries.ts'
import { AckGate } from '../session/ack-gate.ts'
import { Contact } from '../session/contact.ts'
import { Lease } from '../session/lease.ts'
import { checksums } from '../verify/checksums.ts'
import type { Sender } from '../writer/sender.ts'
import type { WatchedRange, Writer, WriterMember } from '../writer/writer.ts'
import { Copy, reconcileMember } from './copy.ts'
import { CopyTodo } from './copy-todo.ts'
import { REGION_BYTES } from './regions.ts'

const SIZE = 12 * BLOCK_BYTES - 512

/** Two volumes in memory and a copy between them, whose frames arrive when the test says so. */
function world(options: { readonly blank?: boolean } = {}) {
  const ours = new MemoryVolume(SIZE)
  const theirs = new MemoryVolume(SIZE)
  const gate = new AckGate(new Lease(), new Contact(1))
  const clock = new TestClock()
  const errors: string[] = []
  const sent: { offset: number; length: number; zero: boolean }[] = []
  const way: { seq: number; apply: () => void }[] = []
  const state = { done: 0, asked: 0, sums: null as Buffer | null, failSums: false }
  const member = {
    index: 1,
    volume: ours,
    todo: new CopyTodo(SIZE),
    watched: new Set<WatchedRange>(),
  } as unknown as WriterMember
  const writer = {
    members: new Map([[1, member]]),
    sendCopy: (
      _member: WriterMember,
      bytes: Buffer,
      offset: number,
      length: number,
      slab: Slab | null,
    ) => {
      slab?.retain()
      const seq = gate.next()
      const zero = bytes.length === FRAME_BYTES
      sent.push({ offset, length, zero })
      way.push({
        seq,
        apply: () => {
          if (zero) theirs.zeroSync(offset, length)
          else theirs.writeSync(bytes, FRAME_BYTES, length, offset)
          slab?.release()
        },
      })
      return seq
    },
  } as unknown as Writer
  const queries = {
    checksums: async (_: number, offset: number, length: number) => {
      state.asked++
      if (state.failSums) throw new QueryFailed('the replica could not read')
      return (
        state.sums ?? (await checksums(Buffer.from(theirs.bytes.subarray(offset, offset + length))))
      )
    },
  } as unknown as PeerQueries
  const copy = new Copy({
    writer,
    gate,
    sender: { backlogBytes: 0 } as Sender,
    queries,
    clock,
    blank: new Set(options.blank === true ? [1] : []),
    rateBytes: () => 0,
    onDone: () => void state.done++,
    onError: (error) => void errors.push(String(error)),
  })
  /** What was sent arrives, `count` frames of it, and is acknowledged. */
  const arrive = (count = way.length) => {
    for (const { seq, apply } of way.splice(0, count)) {
      apply()
      gate.acknowledge(seq)
    }
    copy.acknowledged()
  }
  const toEnd = async (turns = 200) => {
    for (let turn = 0; turn < turns && state.done === 0; turn++) {
      await nextTurn()
      arrive()
    }
  }
  const sentAll = async (count: number) => {
    for (let turn = 0; turn < 1_000 && way.length < count; turn++) await nextTurn()
    assert.equal(way.length, count)
  }
  /** A client's write, numbered and sent in the same turn. */
  const client = (block: number, byte: number) => {
    const bytes = Buffer.alloc(512, byte)
    ours.writeSync(bytes, 0, 512, block * BLOCK_BYTES)
    for (const range of member.watched) range.hit = true
    way.push({
      seq: gate.next(),
      apply: () => theirs.writeSync(bytes, 0, 512, block * BLOCK_BYTES),
    })
  }
  return { ours, theirs, member, copy, state, sent, errors, clock, arrive, toEnd, client, sentAll }
}

/** Blocks of the volume filled with a byte of their own. */
function fill(volume: MemoryVolume, blocks: readonly number[], byte: number): void {
  for (const block of blocks) {
    volume.bytes.fill(byte + block, block * BLOCK_BYTES, Math.min((block + 1) * BLOCK_BYTES, SIZE))
  }
}

describe('a copy', () => {
  test('sends what is known to have changed and what differs, and leaves out what is equal', async () => {
    const { ours, theirs, member, copy, sent, toEnd, state } = world()
    fill(ours, [0, 1, 5, 6, 11], 10)
    fill(theirs, [1, 6, 7], 10)
    member.todo.send.addBlocks(0, 2)
    member.todo.compare.addBlocks(4, 12)
    copy.kick()
    await toEnd()
    assert.ok(ours.bytes.equals(theirs.bytes))
    assert.deepEqual(
      sent.map(({ offset, zero }) => [offset / BLOCK_BYTES, zero]),
      [
        [0, false],
        [5, false],
        [7, true],
        [11, false],
      ],
    )
    assert.equal(state.done, 1)
  })

  test('takes a range for a hole only when all of it is one', async () => {
    const { ours, theirs, member, copy, toEnd } = world()
    fill(ours, [3], 10)
    fill(theirs, [1], 10)
    member.todo.send.addBlocks(0, 6)
    member.todo.compare.addBlocks(6, 12)
    copy.kick()
    await toEnd()
    assert.ok(ours.bytes.equals(theirs.bytes))
  })

  test('to a replica that began as one hole sends no zeroes of a comparison, but those of a block that is known to differ', async () => {
    const { ours, theirs, member, copy, sent, toEnd, state } = world({ blank: true })
    fill(ours, [2], 10)
    // A write that failed here and not there: what this side reads is the truth.
    fill(theirs, [8], 10)
    member.todo.compare.addBlocks(0, 8)
    member.todo.send.addBlocks(8, 9)
    copy.kick()
    await toEnd()
    assert.deepEqual(
      sent
        .sort((a, b) => a.offset - b.offset)
        .map(({ offset, length, zero }) => [offset / BLOCK_BYTES, length / BLOCK_BYTES, zero]),
      [
        [2, 1, false],
        [8, 1, true],
      ],
    )
    assert.equal(state.asked, 0)
    assert.ok(ours.bytes.equals(theirs.bytes))
  })

  for (const [what, writes] of [
    ['once', 1],
    ['whenever it is read', Number.POSITIVE_INFINITY],
  ] as const) {
    test(`reads a block again that a client writes while it is being read, ${what}`, async () => {
      const { ours, theirs, member, copy, toEnd, client, state } = world()
      fill(ours, [0, 1, 2], 10)
      member.todo.send.addBlocks(0, 3)
      let left: number = writes
      ours.onRead = () => {
        if (left-- > 0) client(1, 99)
      }
      copy.kick()
      await toEnd()
      assert.equal(state.done, 1)
      assert.ok(ours.bytes.equals(theirs.bytes))
    })
  }

  test('does not take for a hole what a client has written since it was looked for', async () => {
    const { ours, theirs, member, copy, toEnd, client } = world()
    member.todo.send.addBlocks(0, 3)
    ours.onExtents = () => {
      ours.onExtents = () => undefined
      client(1, 99)
    }
    copy.kick()
    await toEnd()
    assert.equal(ours.bytes[BLOCK_BYTES], 99)
    assert.ok(ours.bytes.equals(theirs.bytes))
  })

  test('is done when everything is acknowledged, and not when it has been sent', async () => {
    const { ours, member, copy, state, sentAll, arrive } = world()
    fill(ours, [0, 4, 8], 10)
    for (const block of [0, 4, 8]) member.todo.send.add(block)
    copy.kick()
    await sentAll(3)
    for (const _ of [1, 2]) {
      arrive(1)
      await nextTurn()
      assert.equal(state.done, 0)
    }
    arrive(1)
    await nextTurn()
    assert.equal(state.done, 1)
  })

  test('that is stopped leaves what was not acknowledged to the next one', async () => {
    const { ours, member, copy, sentAll, arrive } = world()
    fill(ours, [0, 4, 8], 10)
    for (const block of [0, 4, 8]) member.todo.send.add(block)
    copy.kick()
    await sentAll(3)
    arrive(1)
    copy.stop()
    assert.deepEqual(
      [0, 4, 8].map((block) => member.todo.send.has(block)),
      [false, true, true],
    )
  })

  test('tries again later what could not be read, on either side, and asks no less', async () => {
    const { ours, theirs, member, copy, toEnd, errors, clock, state } = world()
    fill(ours, [0, 5], 10)
    member.todo.send.addBlocks(0, 1)
    member.todo.compare.addBlocks(4, 6)
    ours.readFault = new Fault(VOLUME_READ_ERROR, 'reading')
    state.failSums = true
    copy.kick()
    await toEnd(5)
    assert.deepEqual([errors.length, state.done], [2, 0])
    ours.readFault = undefined
    state.failSums = false
    state.sums = Buffer.alloc(16)
    clock.pass(1_000)
    await toEnd(5)
    assert.equal(errors.length, 3, 'an answer that is too short is none')
    state.sums = null
    clock.pass(1_000)
    await toEnd()
    assert.ok(ours.bytes.equals(theirs.bytes))
    assert.equal(state.done, 1)
  })
})

describe('a reconciliation', () => {
  const LARGE = REGION_BYTES + 3 * BLOCK_BYTES - 512
  const isTail = (region: number) => region === 1

  function sides() {
    const ours = new MemoryVolume(LARGE)
    const theirs = new MemoryVolume(LARGE)
    const queries = {
      checksums: (_: number, offset: number, length: number) =>
        checksums(Buffer.from(theirs.bytes.subarray(offset, offset + length))),
      block: async (_: number, offset: number, length: number) =>
        Buffer.from(theirs.bytes.subarray(offset, offset + length)),
    }
    const member = { index: 1, volume: ours } as unknown as WriterMember
    return { ours, theirs, member, queries }
  }

  test('makes the regions that it is given equal to those of the replica, to the end of the volume, and no others', async () => {
    const { ours, theirs, member, queries } = sides()
    ours.bytes.fill(1)
    theirs.bytes.fill(2)
    await reconcileMember(member, queries as unknown as PeerQueries, isTail)
    assert.ok(ours.bytes.subarray(REGION_BYTES).equals(theirs.bytes.subarray(REGION_BYTES)))
    assert.ok(ours.bytes.subarray(0, REGION_BYTES).equals(Buffer.alloc(REGION_BYTES, 1)))
    const { fetchedBytes } = await reconcileMember(
      member,
      queries as unknown as PeerQueries,
      () => true,
    )
    assert.equal(fetchedBytes, REGION_BYTES)
    assert.ok(ours.bytes.equals(theirs.bytes))
  })

  test('preserves what a snapshot needs before it writes', async () => {
    const { ours, theirs, member, queries } = sides()
    theirs.bytes.fill(2, REGION_BYTES, REGION_BYTES + 512)
    let preserved = 0
    ours.guardWith = () => (preserved >= 2 ? null : nextTurn().then(() => void preserved++))
    ours.onChange = () => assert.equal(preserved, 2)
    await reconcileMember(member, queries as unknown as PeerQueries, isTail)
    assert.ok(ours.bytes.equals(theirs.bytes))
  })

  test('takes no answer that is too short', async () => {
    const { theirs, member, queries } = sides()
    theirs.bytes.fill(2, REGION_BYTES, REGION_BYTES + 512)
    const short = { ...queries, block: async () => Buffer.alloc(512) } as unknown as PeerQueries
    await assert.rejects(reconcileMember(member, short, isTail), QueryFailed)
    const few = { ...queries, checksums: async () => Buffer.alloc(16) } as unknown as PeerQueries
    await assert.rejects(reconcileMember(member, few, isTail), QueryFailed)
  })
})
