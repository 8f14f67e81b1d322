/** What every volume does, whatever it is made of. Each backend calls `volumeContract` from a test of its own. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, suite, test } from 'node:test'
import fc from 'fast-check'
import { BrokenInvariant } from '#base/assert.ts'
import { isFault } from '#base/fault.ts'
import { VOLUME_CLOSED } from './faults.ts'
import { type Volume, ZERO_SYNC_BYTES_MAX } from './volume.ts'

export interface VolumeMaker {
  /** A volume that reads as zeroes. */
  make(sizeBytes: number): Promise<Volume>
  /** Another handle on the same data, as after a restart; the first one has been closed. */
  reopen(): Promise<Volume>
  clean(): Promise<void>
  /** Zeroed ranges are told as holes. */
  readonly holes: boolean
}

const MIB = 1024 * 1024
const SIZE = 8 * MIB + 512

export function volumeContract(name: string, start: () => Promise<VolumeMaker>): void {
  suite(`volume contract: ${name}`, () => {
    let maker: VolumeMaker
    let volume: Volume
    beforeEach(async () => {
      maker = await start()
      volume = await maker.make(SIZE)
    })
    afterEach(async () => {
      await volume.close()
      await maker.clean()
    })

    const bytes = async (offset: number, length: number): Promise<Buffer> => {
      const buf = Buffer.alloc(length, 0xee)
      await volume.read(buf, 0, length, offset)
      return buf
    }
    const write = (offset: number, data: Uint8Array) =>
      volume.writeSync(data, 0, data.length, offset)

    test('a new volume has its size and reads as zeroes to its last byte', async () => {
      assert.equal(volume.sizeBytes, SIZE)
      assert.equal(volume.failed, undefined)
      assert.deepEqual(await bytes(0, 4096), Buffer.alloc(4096))
      assert.deepEqual(await bytes(SIZE - 700, 700), Buffer.alloc(700))
    })

    test('any sequence of writes and zeroes reads back as in a plain array', async () => {
      const edit = fc.record({
        kind: fc.constantFrom('write', 'zero', 'unmap', 'long-zero', 'long-unmap'),
        offset: fc.integer({ min: 0, max: SIZE - 1 }),
        length: fc.oneof(fc.integer({ min: 1, max: 9000 }), fc.integer({ min: 1, max: 3 * MIB })),
        fill: fc.integer({ min: 1, max: 255 }),
      })
      const model = Buffer.alloc(SIZE)
      await fc.assert(
        fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 6 }), async (edits) => {
          for (const { kind, offset, length, fill } of edits) {
            const size = Math.min(length, SIZE - offset)
            const short = Math.min(size, ZERO_SYNC_BYTES_MAX)
            if (kind === 'write') write(offset, Buffer.alloc(size, fill))
            else if (kind === 'zero') volume.zeroSync(offset, short, false)
            else if (kind === 'unmap') volume.zeroSync(offset, short, true)
            else await volume.zero(offset, size, kind === 'long-unmap')
            const changed = kind === 'zero' || kind === 'unmap' ? short : size
            model.fill(kind === 'write' ? fill : 0, offset, offset + changed)
          }
          assert.ok((await bytes(0, SIZE)).equals(model))
        }),
        { numRuns: 15 },
      )
    })

    test('reads and writes use exactly the part of the buffer that was named', async () => {
      const source = Buffer.from('..payload..')
      volume.writeSync(source, 2, 7, 100)
      assert.equal((await bytes(99, 9)).toString(), '\0payload\0')
      const target = Buffer.alloc(9, 0x2e)
      volume.readSync(target, 1, 7, 100)
      assert.equal(target.toString(), '.payload.')
      await volume.read(target, 0, 3, 104)
      assert.equal(target.toString(), 'oadyload.')
    })

    test('a cached read either has it all or says so', async () => {
      write(4096, Buffer.alloc(4096, 5))
      const buf = Buffer.alloc(4096 + 10)
      const had = volume.readCached(buf, 10, 4096, 4096)
      if (!had) await volume.read(buf, 10, 4096, 4096)
      assert.deepEqual(buf.subarray(10), Buffer.alloc(4096, 5))
      assert.deepEqual(buf.subarray(0, 10), Buffer.alloc(10))
    })

    test('what was flushed is there after reopening', async () => {
      write(12_345, Buffer.from('kept'))
      await volume.flush()
      await volume.close()
      volume = await maker.reopen()
      assert.equal((await bytes(12_345, 4)).toString(), 'kept')
    })

    test('flushes that come together all resolve', async () => {
      write(0, Buffer.from('x'))
      await Promise.all([volume.flush(), volume.flush(), volume.flush()])
    })

    test('extents cover the asked range in order without gaps', async () => {
      write(MIB, Buffer.alloc(64 * 1024, 1))
      write(3 * MIB, Buffer.alloc(64 * 1024, 1))
      volume.zeroSync(MIB, 32 * 1024, true)
      for (const [offset, length] of [
        [0, SIZE],
        [MIB + 100, 2 * MIB],
        [SIZE - 1, 1],
      ] as const) {
        const extents = await volume.extents(offset, length)
        let at = offset
        for (const extent of extents) {
          assert.equal(extent.offset, at)
          assert.ok(extent.length > 0)
          at += extent.length
        }
        assert.equal(at, offset + length)
      }
    })

    test('data is never told as a hole', async () => {
      const starts = [5, 70_000, 2 * MIB, SIZE - 10]
      for (const start of starts) write(start, Buffer.from([1]))
      for (const start of starts) {
        const [extent] = await volume.extents(start, 1)
        assert.equal(extent?.hole, false)
      }
    })

    test('unmapped ranges are told as holes by backends that have them', async (t) => {
      if (!maker.holes) return t.skip('this backend has no holes')
      write(0, Buffer.alloc(4 * MIB, 1))
      volume.zeroSync(MIB, MIB, true)
      const kinds = (await volume.extents(0, 4 * MIB)).map((extent) => extent.hole)
      assert.deepEqual(kinds, [false, true, false])
      assert.ok((await volume.allocatedBytes()) < 4 * MIB)
      const two = await volume.extents(0, SIZE, 2)
      assert.equal(two.length, 2)
    })

    test('zeroing without unmapping keeps the space', async (t) => {
      if (!maker.holes) return t.skip('this backend has no holes')
      await volume.zero(0, 4 * MIB, false)
      assert.ok((await volume.allocatedBytes()) >= 4 * MIB)
      assert.deepEqual(await bytes(MIB, 4096), Buffer.alloc(4096))
    })

    test('a range outside the volume is a mistake of the caller', () => {
      assert.throws(() => write(SIZE, Buffer.from('x')), BrokenInvariant)
      assert.throws(() => volume.readSync(Buffer.alloc(2), 0, 2, SIZE - 1), BrokenInvariant)
      assert.throws(() => volume.zeroSync(SIZE - 1, 2, true), BrokenInvariant)
      assert.throws(() => write(-1, Buffer.from('x')), BrokenInvariant)
    })

    test('a closed volume refuses everything, and closing twice is fine', async () => {
      const closed = (error: unknown) => isFault(error, VOLUME_CLOSED)
      // One that is on its way gets its data or is refused; it never reads from a file that has been closed.
      const reading = volume.read(Buffer.alloc(4096), 0, 4096, 0)
      reading.catch((error: unknown) => assert.ok(closed(error)))
      await volume.close()
      await volume.close()
      assert.throws(() => write(0, Buffer.from('x')), closed)
      await assert.rejects(volume.read(Buffer.alloc(1), 0, 1, 0), closed)
      await assert.rejects(volume.flush(), closed)
      await assert.rejects(volume.zero(0, 1, true), closed)
      await assert.rejects(volume.extents(0, 1), closed)
    })
  })
}
