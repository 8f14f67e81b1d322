import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { sleep } from '#base/clock.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { connectNbd, type NbdClient } from '#client/nbd/client.ts'
import { MemoryBudget } from './budget.ts'
import type { Device, Io } from './device.ts'
import { ExportTable } from './exports.ts'
import { NbdServer } from './server.ts'

const MIB = 1024 * 1024
const BUDGET = 128 * MIB

/** Remembers the last byte of each write, and answers when it is let go. */
class SlowDevice implements Device {
  readonly sizeBytes = 1024 * MIB
  readonly seen = new Map<number, number>()
  readonly #waiting: Io[] = []
  stands = false

  submit(batch: readonly Io[], count: number): void {
    for (const io of batch.slice(0, count)) {
      if (this.stands) this.#waiting.push(io)
      else this.#finish(io)
    }
  }

  #finish(io: Io): void {
    if (io.kind === 'write') {
      this.seen.set(io.offset + io.length - 1, io.slab?.bytes[io.at + io.length - 1] ?? 0)
    }
    io.complete(0)
  }

  go(): void {
    this.stands = false
    for (const io of this.#waiting.splice(0)) this.#finish(io)
  }
}

async function server(t: TestContext): Promise<{
  readonly nbd: NbdServer
  readonly held: SlowDevice
  readonly free: SlowDevice
  readonly open: (name: string) => Promise<NbdClient>
  readonly end: () => Promise<void>
}> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-budget-'))
  const unix = join(directory, 'nbd')
  const [held, free] = [new SlowDevice(), new SlowDevice()]
  const exports = new ExportTable()
  exports.serve('held', held)
  exports.serve('free', free)
  const log = createLog('test', 'fatal')
  const nbd = new NbdServer({ exports, log, clock: systemClock, memoryBytes: BUDGET })
  await nbd.listenUnix(unix)
  const clients: NbdClient[] = []
  const end = async () => {
    for (const client of clients) client.destroy()
    await nbd.close()
    await rm(directory, { recursive: true, force: true })
  }
  t.after(end)
  return {
    nbd,
    held,
    free,
    async open(exportName) {
      const client = await connectNbd({ unix }, { exportName })
      clients.push(client)
      return client
    },
    end,
  }
}

/** Until the use of memory has stopped changing. */
async function still(nbd: NbdServer): Promise<number> {
  for (let last = -1, same = 0; ; ) {
    await sleep(systemClock, 20)
    same = nbd.memoryUsed === last ? same + 1 : 0
    last = nbd.memoryUsed
    if (same === 5) return last
  }
}

test('many clients with large writes for a device that stands still take no more than the budget, and all are served in the end', async (t) => {
  const { nbd, held, open } = await server(t)
  held.stands = true
  const clients = await Promise.all(Array.from({ length: 16 }, () => open('held')))
  const data = Buffer.alloc(4 * MIB)
  const writes: Promise<void>[] = []
  for (const [number, client] of clients.entries()) {
    for (let i = 0; i < 8; i++) {
      const bytes = Buffer.from(data)
      bytes[bytes.length - 1] = number + 1
      writes.push(client.write((number * 8 + i) * bytes.length, bytes))
    }
  }
  const used = await still(nbd)
  assert.ok(used <= BUDGET, `${used} bytes are in memory`)
  assert.ok(used >= BUDGET / 2 - 4 * MIB, 'and the first half is used')
  held.go()
  await Promise.all(writes)
  assert.equal(await still(nbd), 0)
  for (const number of clients.keys()) {
    for (let i = 0; i < 8; i++) {
      assert.equal(held.seen.get((number * 8 + i + 1) * data.length - 1), number + 1)
    }
  }
})

test('while one device stands still and its clients have filled their part, clients of another go on', async (t) => {
  const { nbd, held, free, open, end } = await server(t)
  held.stands = true
  const greedy = await Promise.all(Array.from({ length: 4 }, () => open('held')))
  const other = await open('free')
  const lost: Promise<unknown>[] = []
  for (const client of greedy) {
    for (let i = 0; i < 16; i++) {
      lost.push(client.write(i * 4 * MIB, Buffer.alloc(4 * MIB)).catch(() => undefined))
    }
  }
  const used = await still(nbd)
  assert.ok(used > BUDGET / 2 - 4 * MIB, 'the first half is taken')
  for (let i = 0; i < 20; i++) await other.write(i * MIB, Buffer.alloc(MIB, i + 1))
  assert.equal(free.seen.get(20 * MIB - 1), 20)
  assert.equal((await other.read(0, MIB)).length, MIB)
  await end()
  held.go()
  await Promise.all(lost)
  assert.equal(nbd.memoryUsed, 0, 'clients that left give their memory back')
})

test('clients that leave in the middle of a write, a read or a reply leave nothing behind', async (t) => {
  const { nbd, held, open } = await server(t)
  for (let round = 0; round < 10; round++) {
    held.stands = round % 2 === 0
    const client = await open('held')
    const asked = [
      client.write(0, Buffer.alloc(24 * MIB)),
      client.read(0, 16 * MIB),
      client.write(4096, Buffer.alloc(4096)),
      client.read(8192, 4096),
    ].map((one: Promise<unknown>) => one.catch(() => undefined))
    await sleep(systemClock, round * 3)
    client.destroy()
    await Promise.all(asked)
    held.go()
  }
  assert.equal(await still(nbd), 0)
})

test('a crowd of clients that wait for each answer makes one small buffer each, once, and a large request grows its client’s alone', async (t) => {
  const { nbd, free, open } = await server(t)
  const clients = await Promise.all(Array.from({ length: 64 }, () => open('free')))
  const data = Buffer.alloc(4096, 7)
  const round = () => Promise.all(clients.map((client, i) => client.write(i * MIB, data)))
  await round()
  assert.ok(nbd.slabsMade <= clients.length, `${nbd.slabsMade} buffers`)
  for (let i = 0; i < 20; i++) await round()
  assert.ok(nbd.slabsMade <= clients.length, `${nbd.slabsMade} buffers after 20 rounds`)
  assert.equal(free.seen.get(63 * MIB + 4095), 7)
  await clients[0]?.write(0, Buffer.alloc(4 * MIB, 9))
  assert.ok(nbd.slabsMade <= clients.length + 1)
  for (let i = 0; i < 20; i++) await round()
  assert.ok(nbd.slabsMade <= clients.length + 1)
})

test('a crowd with large requests gives its large buffers back when it is idle', async (t) => {
  const { nbd, open } = await server(t)
  const clients = await Promise.all(Array.from({ length: 48 }, () => open('free')))
  for (const client of clients) await client.write(0, Buffer.alloc(3 * MIB))
  // What is in use beyond 256 MiB goes back as soon as its connection has nothing under way.
  assert.ok(nbd.slabsInUse <= 33, `${nbd.slabsInUse} of 8 MiB`)
})

test('the second half of the budget goes by shares', () => {
  const budget = new MemoryBudget(1000)
  const who = { resume: () => undefined }
  for (let i = 0; i < 5; i++) budget.connected()
  assert.ok(budget.admits(who, 0, 500))
  budget.take(500)
  assert.ok(!budget.admits(who, 500, 1), 'who has more than its share waits')
  assert.ok(!budget.admits(who, 0, 101), 'as does who wants more than its share')
  assert.ok(budget.admits(who, 0, 100))
  budget.take(500)
  assert.ok(!budget.admits(who, 0, 1), 'nothing is above all of it')
})

test('who waits is told once when there is room', async () => {
  const budget = new MemoryBudget(1000)
  let told = 0
  const who = { resume: () => void told++ }
  budget.connected()
  budget.take(1000)
  assert.ok(!budget.admits(who, 0, 10))
  assert.equal(budget.waiting, 1)
  budget.give(400)
  budget.give(400)
  await new Promise((resolve) => setImmediate(resolve))
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(told, 1)
  assert.equal(budget.waiting, 0)
})
