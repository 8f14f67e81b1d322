/** A restore into a volume of a session: as a client of its export, only inside the agent. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import { type Device, type Io, IO_ERRORS } from '#agent/nbd/device.ts'
import { ExportTable } from '#agent/nbd/exports.ts'
import { VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import { RESTORE_CUT_OFF } from './faults.ts'
import { sessionTarget } from './volume-target.ts'

const MIB = 1024 * 1024

/** A session's device: notes what it is given, and answers when it is told to. */
class Noted implements Device {
  readonly sizeBytes = 64 * MIB
  readonly content = Buffer.alloc(this.sizeBytes)
  readonly waiting: Io[] = []
  readonly kinds: string[] = []
  most = 0
  answering = true
  error: 0 | 5 | 28 = IO_ERRORS.ok

  submit(batch: readonly Io[], count: number): void {
    for (const io of batch.slice(0, count)) {
      this.kinds.push(io.kind)
      this.waiting.push(io)
      this.most = Math.max(this.most, this.waiting.length)
    }
    if (this.answering) setImmediate(() => this.answer())
  }

  answer(): void {
    for (const io of this.waiting.splice(0)) {
      if (io.kind === 'write')
        io.slab?.bytes.copy(this.content, io.offset, io.at, io.at + io.length)
      if (io.kind === 'zero') this.content.fill(0, io.offset, io.offset + io.length)
      io.complete(this.error)
    }
  }
}

async function withTarget(
  act: (
    target: Awaited<ReturnType<typeof sessionTarget>>,
    device: Noted,
    exports: ExportTable,
  ) => Promise<void>,
): Promise<void> {
  const exports = new ExportTable()
  const device = new Noted()
  exports.serve('pair', device)
  const { signal } = new AbortController()
  const target = await sessionTarget(exports, 'pair', systemClock, signal)
  await act(target, device, exports)
  target.close()
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

test('long writes and zeroes go in parts, a few at a time, and everything arrives', () =>
  withTarget(async (target, device) => {
    const bytes = Buffer.alloc(10 * MIB + 17, 'bytes')
    await target.write(MIB + 1, bytes)
    assert.ok(device.content.subarray(MIB + 1, MIB + 1 + bytes.length).equals(bytes))
    assert.ok(device.most <= 4, `${device.most} on their way at a time`)
    await target.zero(2 * MIB, 40 * MIB)
    assert.ok(device.content.subarray(2 * MIB, 42 * MIB).equals(Buffer.alloc(40 * MIB)))
    await target.flush()
    assert.equal(device.kinds.at(-1), 'flush')
  }))

test('while the export is held nothing is given to the device, and all of it afterwards', () =>
  withTarget(async (target, device, exports) => {
    await exports.hold('pair')
    const written = target.write(0, Buffer.alloc(MIB, 1))
    await turn()
    assert.deepEqual(device.kinds, [])
    exports.release('pair')
    await written
    assert.equal(device.content[MIB - 1], 1)
  }))

test('a hold waits for what a restore has on its way', () =>
  withTarget(async (target, device, exports) => {
    device.answering = false
    const written = target.write(0, Buffer.alloc(4096, 1))
    await turn()
    let held = false
    const holding = exports.hold('pair').then(() => (held = true))
    await turn()
    assert.equal(held, false)
    device.answer()
    await Promise.all([written, holding])
  }))

test('the loss of the right to write ends a restore, and says so', () =>
  withTarget(async (target, device, exports) => {
    device.answering = false
    const written = target.write(0, Buffer.alloc(4 * MIB, 1))
    written.catch(() => undefined)
    await turn()
    exports.refuse('pair', 'written at az2 now')
    device.answer()
    await assert.rejects(written, (error) => isFault(error, RESTORE_CUT_OFF))
    await assert.rejects(target.flush(), /written at az2 now/)
  }))

test('a disk that is full is told as such, any other failure as cut off', () =>
  withTarget(async (target, device) => {
    device.error = IO_ERRORS.ENOSPC
    await assert.rejects(target.write(0, Buffer.alloc(10)), (e) => isFault(e, VOLUME_NO_SPACE))
    device.error = IO_ERRORS.EIO
    await assert.rejects(target.zero(0, 10), (e) => isFault(e, RESTORE_CUT_OFF))
  }))

test('a session that does not serve yet is waited for, until the restore is ended', async () => {
  const exports = new ExportTable()
  const stop = new AbortController()
  const waiting = sessionTarget(exports, 'pair', systemClock, stop.signal)
  exports.refuse('pair', 'not ready')
  await turn()
  exports.serve('pair', new Noted())
  const target = await waiting
  await target.flush()
  target.close()
  const other = sessionTarget(exports, 'other', systemClock, stop.signal)
  stop.abort(new Error('cancelled'))
  await assert.rejects(other, /cancelled/)
})

test('a reserved name opens for no client, whoever serves it', () => {
  const exports = new ExportTable()
  exports.serve('pair', new Noted())
  exports.reserve('pair', 'it is being restored')
  assert.deepEqual(exports.open('pair'), { refusal: 'policy', reason: 'it is being restored' })
  assert.ok(exports.find('pair') !== undefined)
  exports.unreserve('pair')
  assert.ok('device' in exports.open('pair'))
})
