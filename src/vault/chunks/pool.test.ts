import assert from 'node:assert/strict'
import { randomBytes, randomFillSync } from 'node:crypto'
import { test } from 'node:test'
import { openRecord } from '../format/record.ts'
import { createPool, type ThreadPool } from './pool.ts'
import { endThread, takeThread } from './resting-threads.ts'
import { readResult, STORED } from './thread-protocol.ts'

const BLOCK = 4096
const lengths = [BLOCK, BLOCK, 100]

function poolWith(recordKey: Buffer): ThreadPool {
  return createPool({
    blockBytes: BLOCK,
    level: 1,
    naming: Buffer.alloc(32, 1),
    recordKey,
    threads: 1,
    inlineBatches: 0,
  })
}

async function assertSeals(pool: ThreadPool, key: Buffer): Promise<void> {
  const batch = await pool.acquire()
  randomFillSync(batch.input)
  await pool.seal(batch, lengths)
  for (const [i, length] of lengths.entries()) {
    const result = readResult(batch.results, i)
    assert.equal(result.state, STORED)
    const record = batch.output.subarray(result.offset, result.offset + result.length)
    const block = batch.input.subarray(i * BLOCK, i * BLOCK + length)
    assert.ok(openRecord(key, result.id, result.flags, record, BLOCK)?.equals(block))
  }
  pool.release(batch)
}

test('a thread that rests is taken by the next pool, and works with the memory and the key of that one', async (t) => {
  for (let i = 0; i < 3; i++) {
    const key = randomBytes(32)
    const pool = poolWith(key)
    await assertSeals(pool, key)
    pool.close(true)
  }
  const thread = takeThread()
  t.after(() => endThread(thread))
  // A new one would have another number each time: three pools have started one.
  const other = takeThread()
  t.after(() => endThread(other))
  assert.equal(other.threadId, thread.threadId + 1)
})

test('a thread that still owes an answer is not taken by anybody else', async () => {
  const key = randomBytes(32)
  const left = poolWith(key)
  const batch = await left.acquire()
  const sealing = left.seal(batch, lengths)
  left.close(true)
  const next = poolWith(key)
  await assertSeals(next, key)
  next.close()
  await sealing
})

test('memory of a pool that ended well serves the next one; nobody gets what may still be read into or written', async () => {
  const pools = Array.from({ length: 4 }, () => poolWith(randomBytes(32)))
  const [well, failed, held, busy] = pools as [ThreadPool, ThreadPool, ThreadPool, ThreadPool]
  const memories = new Map<ThreadPool, ArrayBufferLike>()
  for (const pool of pools) {
    const batch = await pool.acquire()
    memories.set(pool, batch.input.buffer)
    if (pool === busy) void pool.seal(batch, lengths)
    if (pool !== held) pool.release(batch)
  }
  for (const pool of [held, busy, well]) pool.close(true)
  failed.close()

  const next = poolWith(randomBytes(32))
  const taken = new Set<ArrayBufferLike>()
  for (let i = 0; i <= next.writersMax; i++) taken.add((await next.acquire()).input.buffer)
  next.close()
  assert.deepEqual(
    [...memories].map(([, memory]) => taken.has(memory)),
    [true, false, false, false],
  )
})

test('a pool that is closed makes no record: threads that begin anew would repeat nonces', async () => {
  const pool = poolWith(randomBytes(32))
  const batch = await pool.acquire()
  await pool.seal(batch, lengths)
  pool.close()
  await assert.rejects(pool.seal(batch, lengths), /closed/)
})
