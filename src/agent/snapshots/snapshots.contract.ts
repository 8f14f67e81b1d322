/** What snapshots promise, whatever they are made of. Each kind calls `snapshotsContract` from a test of its own. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, suite, test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import {
  SNAPSHOT_EXISTS,
  SNAPSHOT_SEALED,
  SNAPSHOT_UNKNOWN,
  VOLUME_HAS_SNAPSHOTS,
} from './faults.ts'
import { SNAPSHOT_BLOCK_BYTES, type SnapshotKind, type Snapshots } from './snapshots.ts'

export interface SnapshotWorld {
  readonly volumes: VolumeStore
  readonly snapshots: Snapshots
  /** As after a stop of the process, clean or not: both are closed and opened again. */
  restart(): Promise<void>
  clean(): Promise<void>
}

const KIB = 1024
const BLOCK = SNAPSHOT_BLOCK_BYTES
/** Not a multiple of anything but a sector. */
const SIZE = 20 * BLOCK + 1536

/** What a client's device does with a volume. */
export async function guardedWrite(
  volume: Volume,
  offset: number,
  bytes: Uint8Array,
): Promise<void> {
  for (let wait = volume.guard(offset, bytes.length); wait !== null; ) {
    await wait
    wait = volume.guard(offset, bytes.length)
  }
  volume.writeSync(bytes, 0, bytes.length, offset)
}

export async function guardedZero(
  volume: Volume,
  offset: number,
  length: number,
  mayUnmap: boolean,
): Promise<void> {
  for (let wait = volume.guard(offset, length); wait !== null; ) {
    await wait
    wait = volume.guard(offset, length)
  }
  volume.zeroSync(offset, length, mayUnmap)
}

interface Readable {
  readonly sizeBytes: number
  read(buf: Uint8Array, bufOffset: number, length: number, offset: number): Promise<void>
}

export async function contentOf(from: Readable): Promise<Buffer> {
  const buf = Buffer.alloc(from.sizeBytes, 0xee)
  await from.read(buf, 0, buf.length, 0)
  return buf
}

export function assertSame(found: Buffer, wanted: Buffer, what: string): void {
  if (found.equals(wanted)) return
  assert.equal(found.length, wanted.length, `${what}: length`)
  const at = found.findIndex((byte, i) => byte !== wanted[i])
  assert.fail(
    `${what}: differs at ${at} (block ${Math.floor(at / BLOCK)}): ${found[at]}, not ${wanted[at]}`,
  )
}

export function snapshotsContract(
  name: string,
  kind: SnapshotKind,
  start: () => Promise<SnapshotWorld>,
): void {
  suite(`snapshots contract: ${name}`, () => {
    let world: SnapshotWorld
    beforeEach(async () => {
      world = await start()
      for (const id of ['v1', 'v2']) await world.volumes.create(id, SIZE, { mode: 'standalone' })
    })
    afterEach(async () => world.clean())

    const volume = (id: string) => world.volumes.open(id)
    const view = (id: string, of: string) => world.snapshots.open(id, of)
    const take = (id: string, volumes: readonly string[] = ['v1']) =>
      world.snapshots.take({ id, purpose: 'user', volumes })
    const snapshotContent = async (id: string, of: string) => {
      const opened = await view(id, of)
      try {
        return await contentOf(opened)
      } finally {
        await opened.close()
      }
    }

    test('a snapshot keeps what its volumes held, whatever is written afterwards', async () => {
      const [one, two] = [await volume('v1'), await volume('v2')]
      await guardedWrite(one, 5000, Buffer.alloc(100_000, 1))
      await guardedWrite(two, SIZE - 700, Buffer.alloc(700, 2))
      const before = [await contentOf(one), await contentOf(two)]
      const taken = await take('s1', ['v1', 'v2'])
      assert.deepEqual(
        taken.volumes.map((each) => [each.volume, each.kind, each.sizeBytes]),
        [
          ['v1', kind, SIZE],
          ['v2', kind, SIZE],
        ],
      )
      await guardedWrite(one, 0, Buffer.alloc(3 * BLOCK, 9))
      await guardedZero(two, SIZE - 4096, 4096, true)
      await one.zero(10 * BLOCK, 10 * BLOCK, true)
      assertSame(await snapshotContent('s1', 'v1'), before[0] as Buffer, 'v1')
      assertSame(await snapshotContent('s1', 'v2'), before[1] as Buffer, 'v2')
      await world.restart()
      assertSame(await snapshotContent('s1', 'v1'), before[0] as Buffer, 'v1 after a restart')
      await guardedWrite(await volume('v1'), 6 * BLOCK, Buffer.alloc(BLOCK, 8))
      assertSame(await snapshotContent('s1', 'v1'), before[0] as Buffer, 'v1 written again')
    })

    test('taking it again answers with the one that is there, another one of the name is refused', async () => {
      const [first, second] = await Promise.all([take('s1'), take('s1')])
      assert.deepEqual(first, second)
      await guardedWrite(await volume('v1'), 0, Buffer.alloc(10, 1))
      assert.equal((await take('s1')).takenMs, first.takenMs)
      await assert.rejects(take('s1', ['v2']), (error) => isFault(error, SNAPSHOT_EXISTS))
      await assert.rejects(take('s2', ['none']), (error) => isFault(error, VOLUME_UNKNOWN))
      assert.deepEqual(
        world.snapshots.list().map(({ id }) => id),
        ['s1'],
      )
    })

    test('at the moment all writes before are in and none after, over all volumes', async () => {
      const volumes = [await volume('v1'), await volume('v2')]
      let next = 1
      let noted = 0
      let going = true
      // One order over two volumes: stamp n goes to volume n mod 2 only when stamp n - 1 is written.
      const writer = (async () => {
        while (going) {
          const stamp = Buffer.alloc(4)
          stamp.writeUInt32BE(next)
          await guardedWrite(volumes[next % 2] as Volume, (next % 97) * 4 * KIB, stamp)
          next++
          if (next % 50 === 0) await new Promise((resolve) => setImmediate(resolve))
        }
      })()
      await world.snapshots.take({
        id: 's1',
        purpose: 'kept',
        volumes: ['v1', 'v2'],
        atMoment: () => (noted = next - 1),
      })
      going = false
      await writer
      const stamps = new Set<number>()
      for (const id of ['v1', 'v2']) {
        const content = await snapshotContent('s1', id)
        for (let at = 0; at < 97 * 4 * KIB; at += 4 * KIB) stamps.add(content.readUInt32BE(at))
      }
      assert.equal(Math.max(...stamps), noted)
      for (let stamp = Math.max(1, noted - 40); stamp <= noted; stamp++)
        assert.ok(stamps.has(stamp))
    })

    test('a moment that is refused leaves no snapshot, and lets the writers go on', async () => {
      const one = await volume('v1')
      await guardedWrite(one, 0, Buffer.alloc(BLOCK, 1))
      const no = new Error('not now')
      const refused = world.snapshots.take({
        id: 's1',
        purpose: 'user',
        volumes: ['v1', 'v2'],
        atMoment: () => {
          throw no
        },
      })
      await assert.rejects(refused, no)
      await guardedWrite(one, 0, Buffer.alloc(BLOCK, 2))
      assert.deepEqual(world.snapshots.list(), [])
      await world.restart()
      assert.deepEqual(world.snapshots.list(), [])
      await take('s1', ['v1', 'v2'])
      assert.equal((await snapshotContent('s1', 'v1'))[0], 2)
    })

    test('a rollback brings the volumes back, also those that have grown, and keeps other snapshots', async () => {
      const one = await volume('v1')
      await guardedWrite(one, 0, Buffer.alloc(4 * BLOCK, 1))
      const first = await contentOf(one)
      await take('s1')
      await guardedWrite(one, BLOCK, Buffer.alloc(BLOCK, 2))
      await guardedZero(one, 2 * BLOCK, BLOCK, true)
      await world.volumes.extend('v1', SIZE + 3 * BLOCK)
      await guardedWrite(one, SIZE - 10, Buffer.alloc(2 * BLOCK, 3))
      const second = await contentOf(one)
      await take('s2')
      await guardedWrite(one, 0, Buffer.alloc(BLOCK, 4))
      await world.snapshots.rollback('s1')
      const padded = Buffer.concat([first, Buffer.alloc(3 * BLOCK)])
      assertSame(await contentOf(one), padded, 'rolled back')
      assertSame(await snapshotContent('s2', 'v1'), second, 'the other snapshot')
      assertSame(await snapshotContent('s1', 'v1'), first, 'the snapshot itself')
      assert.equal(world.snapshots.show('s1')?.state, 'ready')
      await guardedWrite(one, 0, Buffer.alloc(BLOCK, 5))
      await world.snapshots.rollback('s2')
      assertSame(await contentOf(one), second, 'forward again')
      await world.restart()
      assertSame(await contentOf(await volume('v1')), second, 'after a restart')
    })

    test('changed ranges are those that were written, where that is known', async () => {
      const one = await volume('v1')
      await take('s1')
      await guardedWrite(one, BLOCK + 5, Buffer.alloc(10, 1))
      await guardedWrite(one, 3 * BLOCK - 1, Buffer.alloc(2, 1))
      await guardedWrite(one, SIZE - 1, Buffer.alloc(1, 1))
      const expected =
        kind === 'reflink'
          ? null
          : [
              { offset: BLOCK, length: 3 * BLOCK },
              { offset: 20 * BLOCK, length: 1536 },
            ]
      assert.deepEqual(world.snapshots.changedRanges('s1', 'v1'), expected)
      await world.restart()
      assert.deepEqual(world.snapshots.changedRanges('s1', 'v1'), expected)
    })

    test('a sealed snapshot holds the ranges that were kept and does not follow any more', async () => {
      const one = await volume('v1')
      await guardedWrite(one, 0, Buffer.alloc(4 * BLOCK, 1))
      const before = await contentOf(one)
      await take('s1')
      await guardedWrite(one, BLOCK, Buffer.alloc(2 * BLOCK, 2))
      await guardedWrite(one, 8 * BLOCK, Buffer.alloc(BLOCK, 2))
      const ranges = {
        v1: [
          { offset: BLOCK + 7, length: BLOCK },
          { offset: 8 * BLOCK, length: 1 },
        ],
      }
      const sealed = await world.snapshots.seal('s1', ranges)
      assert.equal(sealed.state, 'sealed')
      const expected = [
        { offset: BLOCK, length: 2 * BLOCK },
        { offset: 8 * BLOCK, length: BLOCK },
      ]
      assert.equal(one.guard(0, 4096), null)
      await guardedWrite(one, 0, Buffer.alloc(BLOCK, 7))
      for (const again of [false, true]) {
        if (again) await world.restart()
        assert.deepEqual(world.snapshots.changedRanges('s1', 'v1'), expected)
        const content = await snapshotContent('s1', 'v1')
        const wanted = Buffer.alloc(SIZE)
        for (const { offset, length } of expected)
          before.copy(wanted, offset, offset, offset + length)
        assertSame(content, wanted, 'sealed')
        await assert.rejects(world.snapshots.rollback('s1'), (error) =>
          isFault(error, SNAPSHOT_SEALED),
        )
      }
      assert.deepEqual(await world.snapshots.seal('s1'), world.snapshots.show('s1'))
      await world.volumes.delete('v1')
    })

    test('a clone is a volume of its own', async () => {
      const one = await volume('v1')
      await guardedWrite(one, 3000, Buffer.alloc(2 * BLOCK, 1))
      await guardedWrite(one, SIZE - 3, Buffer.alloc(3, 2))
      const before = await contentOf(one)
      await take('s1')
      await guardedWrite(one, 0, Buffer.alloc(BLOCK, 3))
      await world.snapshots.clone('s1', 'v1', 'clone')
      await world.snapshots.clone('s1', 'v1', 'clone')
      const clone = await volume('clone')
      assertSame(await contentOf(clone), before, 'clone')
      await guardedWrite(clone, 10 * BLOCK, Buffer.alloc(BLOCK, 4))
      assert.equal((await snapshotContent('s1', 'v1'))[10 * BLOCK], 0)
      await world.snapshots.delete('s1')
      assert.equal((await contentOf(clone))[10 * BLOCK], 4)
      assert.equal(world.volumes.record('clone')?.serving.mode, 'standby')
    })

    test('a volume with snapshots is not deleted, and deleting them ends their views', async () => {
      await take('s1')
      const opened = await view('s1', 'v1')
      await assert.rejects(world.volumes.delete('v1'), (error) =>
        isFault(error, VOLUME_HAS_SNAPSHOTS),
      )
      await world.snapshots.delete('s1')
      await world.snapshots.delete('s1')
      await assert.rejects(contentOf(opened), (error) => isFault(error, SNAPSHOT_UNKNOWN))
      await opened.close()
      assert.equal((await volume('v1')).guard(0, 10), null)
      await world.volumes.delete('v1')
      await assert.rejects(view('s1', 'v1'), (error) => isFault(error, SNAPSHOT_UNKNOWN))
    })

    test('extents of a snapshot cover the range, and data is never told as a hole', async () => {
      const one = await volume('v1')
      await guardedWrite(one, 4 * BLOCK, Buffer.alloc(BLOCK, 1))
      await guardedWrite(one, 9 * BLOCK + 100, Buffer.alloc(10, 1))
      await take('s1')
      await guardedZero(one, 4 * BLOCK, BLOCK, true)
      await guardedWrite(one, 0, Buffer.alloc(BLOCK, 3))
      const opened = await view('s1', 'v1')
      const content = await contentOf(opened)
      let at = 0
      for (const extent of await opened.extents(0, SIZE)) {
        assert.equal(extent.offset, at)
        at += extent.length
        const part = content.subarray(extent.offset, at)
        if (extent.hole) assert.ok(part.every((byte) => byte === 0))
      }
      assert.equal(at, SIZE)
      assert.equal((await opened.extents(0, SIZE, 1)).length, 1)
      await opened.close()
    })

    test('anything written, zeroed, grown, taken, rolled back, deleted: every snapshot stays byte for byte', async () => {
      const step = fc.record({
        kind: fc.constantFrom(
          'write',
          'write',
          'write',
          'zero',
          'long-zero',
          'grow',
          'take',
          'take',
          'rollback',
          'delete',
          'restart',
        ),
        volume: fc.constantFrom('v1', 'v2'),
        at: fc.double({ min: 0, max: 0.999, noNaN: true }),
        length: fc.oneof(fc.integer({ min: 1, max: 9000 }), fc.integer({ min: 1, max: 6 * BLOCK })),
        fill: fc.integer({ min: 1, max: 255 }),
      })
      let run = 0
      await fc.assert(
        fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
          run++
          const names = [`a${run}`, `b${run}`]
          const live = new Map<string, Buffer>()
          for (const id of names) {
            await world.volumes.create(id, SIZE, { mode: 'standalone' })
            live.set(id, Buffer.alloc(SIZE))
          }
          const taken = new Map<string, Map<string, Buffer>>()
          let count = 0
          for (const edit of steps) {
            const id = edit.volume === 'v1' ? `a${run}` : `b${run}`
            const open = await volume(id)
            const model = live.get(id) as Buffer
            const offset = Math.floor(edit.at * open.sizeBytes)
            const length = Math.min(edit.length, open.sizeBytes - offset)
            const [oldest] = taken.keys()
            switch (edit.kind) {
              case 'write':
                await guardedWrite(open, offset, Buffer.alloc(length, edit.fill))
                model.fill(edit.fill, offset, offset + length)
                break
              case 'zero':
                await guardedZero(open, offset, length, edit.fill % 2 === 0)
                model.fill(0, offset, offset + length)
                break
              case 'long-zero':
                await open.zero(offset, length, edit.fill % 2 === 0)
                model.fill(0, offset, offset + length)
                break
              case 'grow':
                await world.volumes.extend(id, open.sizeBytes + edit.length)
                live.set(id, Buffer.concat([model, Buffer.alloc(edit.length)]))
                break
              case 'take': {
                const snapshot = `r${run}-${count++}`
                await take(snapshot, names)
                taken.set(
                  snapshot,
                  new Map([...live].map(([of, bytes]) => [of, Buffer.from(bytes)])),
                )
                break
              }
              case 'rollback': {
                if (oldest === undefined) break
                await world.snapshots.rollback(oldest)
                for (const of of names) {
                  const grown = Buffer.alloc((live.get(of) as Buffer).length)
                  taken.get(oldest)?.get(of)?.copy(grown)
                  live.set(of, grown)
                }
                break
              }
              case 'delete':
                if (oldest === undefined) break
                await world.snapshots.delete(oldest)
                taken.delete(oldest)
                break
              case 'restart':
                await world.restart()
                break
            }
          }
          for (const [id, model] of live) assertSame(await contentOf(await volume(id)), model, id)
          for (const [snapshot, contents] of taken) {
            for (const [id, model] of contents) {
              assertSame(await snapshotContent(snapshot, id), model, `${id} in ${snapshot}`)
            }
            await world.snapshots.delete(snapshot)
          }
          for (const id of names) await world.volumes.delete(id)
        }),
        { numRuns: 12 },
      )
    })
  })
}
