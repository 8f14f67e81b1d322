import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test, type TestContext } from 'node:test'
import { Fault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { BLOCK_BYTES, FRAME_BYTES, STATUS } from '#wire/link/frame.ts'
import { VOLUME_READ_ERROR } from '#agent/volumes/faults.ts'
import type { SessionCore } from '../core.ts'
import { MemoryVolume, nextTurn } from '../data-path.test-kit.ts'
import type { Members } from '../members.ts'
import { type PeerQueries, QueryFailed } from '../peer-queries.ts'
import type { Writer, WriterMember } from '../writer/writer.ts'
import type { WriterEnd } from '../writer/writer-end.ts'
import { checksums } from './checksums.ts'
import { Verifying } from './verifying.ts'

/** A step is 1 MiB: two of them, of which the second ends in the middle of a block, and one. */
const SIZES = [1024 * 1024 + BLOCK_BYTES + 512, 3 * BLOCK_BYTES] as const

/** Two sites in memory that should be equal. */
class World {
  readonly directory: string
  readonly ours = SIZES.map((size) => new MemoryVolume(size))
  readonly theirs = SIZES.map((size) => new MemoryVolume(size))
  readonly session = {
    role: 'writer',
    phase: 'following',
    linked: true,
    stored: { record: { epoch: 3 } },
    gate: { sequence: 0, acknowledged: 0, bytes: 0 },
  }
  /** Sent blocks: member, block. */
  readonly repaired: [number, number][] = []
  readonly badThere = new Set<string>()
  /** What is sent again does not get there. */
  lossy = false
  flushes = 0
  linkUp = true
  /** Questions that are answered yet before the link goes. */
  answersLeft = Number.POSITIVE_INFINITY
  verifying: Verifying

  constructor(t: TestContext) {
    this.directory = mkdtempSync(join(tmpdir(), 'holdfast-verifying-'))
    t.after(() => rmSync(this.directory, { recursive: true }))
    for (const [i, volume] of this.ours.entries()) {
      volume.bytes.fill(i + 1)
      this.theirs[i]?.bytes.fill(i + 1)
    }
    this.verifying = this.start()
  }

  start(): Verifying {
    const members = SIZES.map((_, i) => ({
      index: i + 1,
      volume: this.ours[i] as MemoryVolume,
      stored: { pair: `p-${i + 1}` },
    }))
    const writer = {
      members: new Map(members.map((member) => [member.index, member])),
      sendAll: () => undefined,
      flushAll: async () => {
        this.flushes++
        return true
      },
      sendCopy: (member: WriterMember, bytes: Buffer, offset: number, length: number) =>
        this.#sent(member.index, bytes, offset, length),
    } as unknown as Writer
    this.verifying = new Verifying({
      core: {
        id: 's',
        log: createLog('test', 'silent'),
        clock: systemClock,
        now: () => systemClock.bootMs(),
        session: this.session,
        broken: null,
        ended: false,
        closing: false,
        fatal: (error: unknown) => assert.fail(String(error)),
      } as unknown as SessionCore,
      members: {
        values: () => members,
        volumeId: ({ pair }: { pair: string }) => pair.replace('p', 'v'),
      } as unknown as Members,
      link: {
        peerJoined: new Set([1, 2]),
        queries: {
          checksums: (index: number, offset: number, length: number) =>
            this.#sums(index, offset, length),
        } as unknown as PeerQueries,
      } as unknown as WriterEnd,
      writer: () => writer,
      directory: this.directory,
    })
    return this.verifying
  }

  async #sums(index: number, offset: number, length: number): Promise<Buffer> {
    const bytes = this.theirs[index - 1]?.bytes.subarray(offset, offset + length)
    if (this.answersLeft-- <= 0) throw new QueryFailed('the link is down')
    await nextTurn()
    if (!this.linkUp || bytes === undefined) throw new QueryFailed('the link is down')
    for (let at = offset; at < offset + length; at += BLOCK_BYTES) {
      if (this.badThere.has(`${index} ${at / BLOCK_BYTES}`)) {
        throw new QueryFailed('bad', STATUS.IO)
      }
    }
    return await checksums(Buffer.from(bytes))
  }

  #sent(index: number, bytes: Buffer, offset: number, length: number): number {
    this.repaired.push([index, offset / BLOCK_BYTES])
    const there = this.theirs[index - 1] as MemoryVolume
    if (!this.lossy) {
      this.badThere.delete(`${index} ${offset / BLOCK_BYTES}`)
      if (bytes.length === FRAME_BYTES) there.zeroSync(offset, length)
      else there.writeSync(bytes, FRAME_BYTES, length, offset)
    }
    this.session.gate.acknowledged = ++this.session.gate.sequence
    return this.session.gate.sequence
  }

  async run(repair: boolean, until: readonly string[] = ['done']): Promise<void> {
    await this.verifying.begin({ session: 's', epoch: 3, run: 'r', repair, rate_bytes: 0 })
    await this.reach(until)
  }

  async reach(states: readonly string[]): Promise<void> {
    const endMs = performance.now() + 60_000
    while (!states.includes(this.verifying.show().run?.state ?? '')) {
      assert.ok(performance.now() < endMs, JSON.stringify(this.verifying.show().run))
      await nextTurn()
    }
  }

  get found() {
    const { run, members } = this.verifying.show()
    assert.ok(run !== null)
    const ranges = run.ranges.map(({ pair, offset, length, kind, repaired }) => [
      pair,
      offset / BLOCK_BYTES,
      length,
      kind,
      repaired,
    ])
    return {
      ranges,
      compared: run.compared_bytes,
      mismatched: run.mismatched_bytes,
      repaired: run.repaired_bytes,
      members: members.map(({ mismatched_bytes: bytes }) => bytes),
    }
  }
}

const ALL = SIZES[0] + SIZES[1]
const TAIL = 512

/** A byte of a block at the replica is another one. */
function damage(world: World, member: number, block: number): void {
  const { bytes } = world.theirs[member - 1] as MemoryVolume
  const at = Math.min((block + 1) * BLOCK_BYTES, bytes.length) - 1
  bytes[at] = 99
}

describe('a verification', () => {
  test('compares every byte of every member, and finds what differs wherever it is', async (t) => {
    const world = new World(t)
    // The first block, neighbours on both sides of a step's end, the short end, and the other member.
    for (const block of [0, 14, 15, 16, 17]) damage(world, 1, block)
    damage(world, 2, 2)
    await world.run(false)
    assert.deepEqual(world.found, {
      ranges: [
        ['p-1', 0, BLOCK_BYTES, 'differs', false],
        ['p-1', 14, 3 * BLOCK_BYTES + TAIL, 'differs', false],
        ['p-2', 2, BLOCK_BYTES, 'differs', false],
      ],
      compared: ALL,
      mismatched: 5 * BLOCK_BYTES + TAIL,
      repaired: 0,
      members: [4 * BLOCK_BYTES + TAIL, BLOCK_BYTES],
    })
    assert.deepEqual(world.repaired, [], 'nobody has asked for it')
    await world.verifying.close(false)
  })

  test('repairs the replica from the writer, makes it durable, and calls it repaired when it is equal', async (t) => {
    const world = new World(t)
    world.ours[0]?.bytes.fill(0, 0, 2 * BLOCK_BYTES)
    // Begins with zeroes, and is none.
    world.ours[0]?.bytes.fill(7, BLOCK_BYTES + 8192, BLOCK_BYTES + 8704)
    world.theirs[0]?.bytes.fill(5, 0, 2 * BLOCK_BYTES)
    damage(world, 2, 1)
    world.badThere.add('1 16')
    const before = world.ours.map(({ bytes }) => Buffer.from(bytes))
    await world.run(true)
    for (const [i, { bytes }] of world.ours.entries()) {
      assert.ok(bytes.equals(before[i] as Buffer), 'the writer is the truth')
      assert.ok(world.theirs[i]?.bytes.equals(bytes))
    }
    assert.deepEqual(world.repaired, [
      [1, 0],
      [1, 1],
      [1, 16],
      [2, 1],
    ])
    const { ranges, repaired, members } = world.found
    assert.ok(ranges.every(([, , , , done]) => done === true))
    assert.deepEqual([repaired, members], [4 * BLOCK_BYTES, [0, 0]])
    assert.equal(world.flushes, 3, 'one for each step that had something')
    await world.verifying.close(false)
  })

  test('does not call repaired what still differs after it was sent again', async (t) => {
    const world = new World(t)
    world.lossy = true
    damage(world, 1, 3)
    await world.run(true)
    assert.deepEqual(world.found.ranges, [['p-1', 3, BLOCK_BYTES, 'differs', false]])
    assert.deepEqual([world.found.repaired, world.found.members], [0, [BLOCK_BYTES, 0]])
    await world.verifying.close(false)
  })

  test('tells a block that this disk cannot read, and overwrites nothing with it', async (t) => {
    const world = new World(t)
    const volume = world.ours[0] as MemoryVolume
    volume.readFault = new Fault(VOLUME_READ_ERROR, 'reading')
    t.mock.method(volume, 'readSync', (buf: Buffer, at: number, length: number, offset: number) => {
      if (offset === 5 * BLOCK_BYTES) throw new Fault(VOLUME_READ_ERROR, 'reading')
      buf.set(volume.bytes.subarray(offset, offset + length), at)
    })
    await world.run(true)
    assert.deepEqual(world.found.ranges, [['p-1', 5, BLOCK_BYTES, 'unreadable-here', false]])
    assert.deepEqual(world.repaired, [])
    await world.verifying.close(false)
  })

  test('waits while the sites are not in sync, and goes on from where it was, also in another process', async (t) => {
    const world = new World(t)
    damage(world, 1, 1)
    damage(world, 2, 0)
    world.linkUp = false
    await world.run(false, ['waiting'])
    assert.equal(world.found.compared, 0, 'what was not answered counts for nothing')
    world.linkUp = true
    world.session.phase = 'held'
    world.verifying.tick()
    await nextTurn()
    assert.equal(world.verifying.show().run?.state, 'waiting')
    await world.verifying.close(true)
    world.start()
    await world.verifying.load()
    world.session.phase = 'following'
    world.verifying.tick()
    await world.reach(['done'])
    const { ranges, compared, members } = world.found
    assert.deepEqual(ranges, [
      ['p-1', 1, BLOCK_BYTES, 'differs', false],
      ['p-2', 0, BLOCK_BYTES, 'differs', false],
    ])
    assert.deepEqual([compared, members], [ALL, [BLOCK_BYTES, BLOCK_BYTES]])
    await world.verifying.close(false)
  })

  test('goes on behind the last step that was answered, and leaves out nothing', async (t) => {
    const world = new World(t)
    damage(world, 1, 17)
    damage(world, 2, 0)
    world.answersLeft = 1
    await world.run(false, ['waiting'])
    assert.equal(world.found.compared, 1024 * 1024)
    world.answersLeft = Number.POSITIVE_INFINITY
    world.verifying.tick()
    await world.reach(['done'])
    const { ranges, compared } = world.found
    assert.deepEqual(ranges, [
      ['p-1', 17, TAIL, 'differs', false],
      ['p-2', 0, BLOCK_BYTES, 'differs', false],
    ])
    assert.equal(compared, ALL)
    await world.verifying.close(false)
  })

  test('is not done when the sites fall out of step before its end', async (t) => {
    const world = new World(t)
    let asked = 0
    const volume = world.ours[0] as MemoryVolume
    volume.onRead = () => {
      if (++asked === 2) world.session.phase = 'held'
    }
    await world.run(false, ['waiting', 'done'])
    assert.equal(world.verifying.show().run?.state, 'waiting')
    await world.verifying.close(false)
  })
})
