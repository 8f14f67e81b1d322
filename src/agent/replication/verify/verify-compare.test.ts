import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { STATUS } from '#wire/link/frame.ts'
import { VOLUME_READ_ERROR } from '#agent/volumes/faults.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import { checksums } from './checksums.ts'
import { type PeerQueries, QueryFailed } from '../peer-queries.ts'
import { compareStep } from './verify-compare.ts'
import type { Writer, WriterMember } from '../writer/writer.ts'

const BLOCK = 64 * 1024
const STEP = 4 * BLOCK

/** Two sides in memory. `theirs` answers a question a little after it was asked, or at once when it says so. */
class Sides {
  readonly ours = Buffer.alloc(STEP, 1)
  readonly theirs = Buffer.alloc(STEP, 1)
  /** Blocks whose disk gives an error. */
  readonly badHere = new Set<number>()
  readonly badThere = new Set<number>()
  linkUp = true
  asked: string[] = []
  /** A client's write that comes between the two readings of the first look. */
  between: (() => void) | null = null
  /** Writes numbered and carried out here that the link has not got yet. */
  unsent: (() => void)[] = []

  #bad(blocks: ReadonlySet<number>, offset: number, length: number): boolean {
    for (let at = offset; at < offset + length; at += BLOCK) {
      if (blocks.has(at / BLOCK)) return true
    }
    return false
  }

  #read(buf: Uint8Array, at: number, length: number, offset: number): void {
    if (this.#bad(this.badHere, offset, length)) throw new Fault(VOLUME_READ_ERROR, 'reading')
    buf.set(this.ours.subarray(offset, offset + length), at)
  }

  readonly writer = {
    sendAll: () => {
      for (const send of this.unsent.splice(0)) send()
    },
  } as unknown as Writer

  readonly member = {
    index: 1,
    volume: {
      extents: async (offset: number, length: number) => [{ offset, length, hole: false }],
      read: async (buf: Uint8Array, at: number, length: number, offset: number) =>
        this.#read(buf, at, length, offset),
      readSync: (buf: Uint8Array, at: number, length: number, offset: number) =>
        this.#read(buf, at, length, offset),
    } as unknown as Volume,
  } as unknown as WriterMember

  readonly queries = {
    checksums: async (_: number, offset: number, length: number, atOnce = false) => {
      this.asked.push(`${offset / BLOCK}+${length / BLOCK}${atOnce ? ' at once' : ''}`)
      if (!atOnce) {
        await new Promise((resolve) => setImmediate(resolve))
        this.between?.()
      }
      if (!this.linkUp) throw new QueryFailed('the link is down')
      if (this.#bad(this.badThere, offset, length)) throw new QueryFailed('bad', STATUS.IO)
      return await checksums(this.theirs.subarray(offset, offset + length))
    },
  } as unknown as PeerQueries

  compare() {
    return compareStep(this.writer, this.member, this.queries, 0, STEP)
  }
}

test('equal ranges are settled by one question', async () => {
  const sides = new Sides()
  assert.deepEqual(await sides.compare(), { faults: [], rechecked: 0 })
  assert.deepEqual(sides.asked, ['0+4'])
})

test('a write between the two readings makes no difference of a block that has none', async () => {
  const sides = new Sides()
  sides.between = () => {
    sides.ours.fill(7, 2 * BLOCK, 2 * BLOCK + 512)
    sides.theirs.fill(7, 2 * BLOCK, 2 * BLOCK + 512)
  }
  assert.deepEqual(await sides.compare(), { faults: [], rechecked: 1 })
  assert.deepEqual(sides.asked, ['0+4', '2+1 at once'])
})

test('a block that differs at one point of the stream differs, whatever clients do to the others', async () => {
  const sides = new Sides()
  sides.theirs[3 * BLOCK - 1] = 9
  sides.between = () => {
    sides.ours.fill(7, 0, 512)
    sides.theirs.fill(7, 0, 512)
  }
  const { faults, rechecked } = await sides.compare()
  assert.deepEqual(faults, [{ offset: 2 * BLOCK, length: BLOCK, kind: 'differs' }])
  assert.equal(rechecked, 1)
})

test('the question does not overtake a write that waits for its turn on the link', async () => {
  const sides = new Sides()
  sides.ours.fill(5, BLOCK, BLOCK + 512)
  sides.unsent.push(() => sides.theirs.fill(5, BLOCK, BLOCK + 512))
  assert.deepEqual(await sides.compare(), { faults: [], rechecked: 1 })
})

test('a disk that cannot be read is told by its side, block by block', async () => {
  const there = new Sides()
  there.badThere.add(1)
  assert.deepEqual((await there.compare()).faults, [
    { offset: BLOCK, length: BLOCK, kind: 'unreadable-there' },
  ])
  const here = new Sides()
  here.badHere.add(3)
  assert.deepEqual((await here.compare()).faults, [
    { offset: 3 * BLOCK, length: BLOCK, kind: 'unreadable-here' },
  ])
})

test('a lost link is no difference', async () => {
  const sides = new Sides()
  sides.linkUp = false
  await assert.rejects(sides.compare(), QueryFailed)
})
