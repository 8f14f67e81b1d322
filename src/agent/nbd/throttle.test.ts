import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { type Device, Io, type IoError, type IoKind } from './device.ts'
import { ExportTable } from './exports.ts'
import { Bucket, BURST_MS, type Limit, LimitedDevice } from './throttle.ts'

/** Fires what is due as it is moved. */
class HandClock implements Clock {
  #nowMs = 1_000
  #timers: { atMs: number; fire: () => void }[] = []

  wallMs = (): number => this.#nowMs
  bootMs = (): number => this.#nowMs
  after(delayMs: number, fire: () => void): () => void {
    const timer = { atMs: this.#nowMs + delayMs, fire }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((one) => one !== timer)
    }
  }

  forward(ms: number): void {
    const endMs = this.#nowMs + ms
    for (;;) {
      const [next] = this.#timers.toSorted((a, b) => a.atMs - b.atMs)
      if (next === undefined || next.atMs > endMs) break
      this.#nowMs = Math.max(this.#nowMs, next.atMs)
      this.#timers = this.#timers.filter((one) => one !== next)
      next.fire()
    }
    this.#nowMs = endMs
  }
}

const NONE: Limit = { iops: null, bytesPerSecond: null, readOnly: false }

function lab(limit: Partial<Limit>) {
  const clock = new HandClock()
  const bucket = new Bucket(clock, { ...NONE, ...limit })
  const batches: Io[][] = []
  const errors: IoError[] = []
  const inner: Device = {
    sizeBytes: 1 << 30,
    submit: (batch, count) => void batches.push(batch.slice(0, count)),
  }
  const owner = { done: (_: Io, error: IoError) => void errors.push(error) }
  const io = (kind: IoKind, length = 4_096, more = false): Io => {
    const made = new Io(owner)
    Object.assign(made, { kind, length, more })
    made.arm()
    return made
  }
  const device = new LimitedDevice(inner, bucket)
  const submit = (...ios: Io[]) => device.submit(ios, ios.length)
  const passed = () => batches.flat().length
  return { clock, bucket, batches, errors, inner, io, device, submit, passed }
}

test('the mean is the limit, whatever the sizes, and idle time is worth a tenth of a second', () => {
  const { clock, device, io, submit, batches } = lab({ bytesPerSecond: 1_000_000 })
  clock.forward(60_000)
  const sizes = [512, 4_096, 70_000, 1_048_576, 16_384]
  for (let i = 0; i < 200; i++) submit(io('read', sizes[i % sizes.length]))
  const bytes = () => batches.flat().reduce((sum, { length }) => sum + length, 0)
  assert.ok(bytes() <= (1_000_000 * BURST_MS) / 1_000 + 1_048_576, 'the burst, and one request')
  clock.forward(20_000)
  const burst = (1_000_000 * BURST_MS) / 1_000
  assert.ok(Math.abs(bytes() - burst - 20_000_000) <= 1_048_576, String(bytes()))
  assert.ok(device.waiting > 0)
})

test('requests are counted, and the slowest limit lets one begin', () => {
  const { clock, io, submit, passed } = lab({ iops: 2 })
  for (let i = 0; i < 9; i++) submit(io('write'))
  assert.equal(passed(), 1)
  clock.forward(3_999)
  assert.ok(passed() >= 8 && passed() <= 9, String(passed()))
})

test('zeroes cost an operation and no bytes, and order is kept among all that change or read', () => {
  const { io, submit, batches, clock } = lab({ bytesPerSecond: 1_000 })
  const ios = [io('write', 4_000), io('zero', 2 ** 31), io('read', 1), io('zero', 9)]
  submit(...ios)
  assert.deepEqual(batches.flat(), [ios[0]])
  clock.forward(4_000)
  assert.deepEqual(batches.flat(), ios)
})

test('flushes pass those that wait, and the parts of a large write stay together', () => {
  const { io, submit, batches, clock } = lab({ bytesPerSecond: 1_000_000 })
  const parts = [io('write', 1_048_576, true), io('write', 1_048_576, true), io('write', 5)]
  const flush = io('flush', 0)
  submit(io('write', 200_000))
  submit(...parts, flush)
  assert.deepEqual(batches[1], [flush])
  clock.forward(200)
  assert.deepEqual(batches[2], parts)
})

test('a volume that may not be changed says so and is read', () => {
  const { io, submit, passed, errors, device } = lab({ readOnly: true })
  assert.equal(device.readOnly, true)
  submit(io('write'), io('read'), io('zero'), io('flush', 0))
  assert.equal(passed(), 2)
  assert.deepEqual(errors, [1, 1])
})

test('an export without a limit is its device; a limit comes and goes while it is served', () => {
  const { inner, bucket, io, passed, clock } = lab({ iops: 1 })
  const table = new ExportTable()
  let limited: Bucket | undefined
  table.limitBy(() => limited)
  const made = table.serve('volume', inner)
  assert.equal(made.device, inner)
  limited = bucket
  table.relimit(['volume', 'never served'])
  const front = made.device
  assert.ok(front instanceof LimitedDevice)
  assert.equal(table.serve('volume', inner), made, 'the same device again')
  front.submit([io('read'), io('read'), io('read')], 3)
  assert.equal(passed(), 1)
  limited = undefined
  table.relimit(['volume'])
  assert.equal(passed(), 3, 'what waited is carried out')
  assert.equal(made.device, inner)
  clock.forward(5_000)
  assert.equal(passed(), 3)
})

test('who takes an export away does not wait for its limit', async () => {
  const { inner, bucket, io, passed } = lab({ iops: 1 })
  const table = new ExportTable()
  table.limitBy(() => bucket)
  const made = table.serve('volume', inner)
  made.began(2)
  made.device.submit([io('read'), io('read')], 2)
  assert.equal(passed(), 1)
  const held = table.hold('volume')
  assert.equal(passed(), 2)
  made.ended()
  made.ended()
  await held
  const other: Device = { ...inner }
  table.serve('volume', other)
  assert.ok(made.device instanceof LimitedDevice && made.device.inner === other)
  table.release('volume')
  made.device.submit([io('read'), io('read')], 2)
  table.refuse('volume', 'gone')
  assert.equal(passed(), 4)
})
