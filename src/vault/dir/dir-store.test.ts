import assert from 'node:assert/strict'
import { randomFillSync } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { alignedBuffer, DIRECT_BYTES, isAligned, openDirect } from '#base/system/direct-io.ts'
import { storeContract } from '../store.contract.ts'
import { openDirStore } from './dir-store.ts'

const root = await mkdtemp(join(tmpdir(), 'holdfast-dir-store-'))
after(() => rm(root, { recursive: true, force: true }))

let count = 0
storeContract('directory', () => openDirStore(join(root, String(count++)), { create: true }))

test('a pack arrives whole past the page cache, and its ranges are read into pages that are given', async () => {
  const store = await openDirStore(join(root, 'direct'), { create: true })
  const MIB = 1024 * 1024
  // Neither ends with a page.
  const body = randomFillSync(alignedBuffer(3 * MIB + 123))
  const end = randomFillSync(Buffer.alloc(5000))
  assert.ok(isAligned(body, 0) && !isAligned(body.subarray(1), 0))
  await store.put('packs/ab/one', [body, end], { ifAbsent: true })
  // Memory that begins in the middle of a page goes the usual way.
  await store.put('packs/ab/two', [body.subarray(1), end], { ifAbsent: true })
  const whole = Buffer.concat([body, end])
  assert.ok((await store.get('packs/ab/one')).equals(whole))
  assert.ok((await store.get('packs/ab/two')).equals(whole.subarray(1)))

  const into = alignedBuffer(4 * MIB)
  const direct = await openDirect(join(root, 'direct/packs/ab/one'), 'read')
  await direct?.close()
  for (const [offset, length] of [
    [0, MIB],
    [4097, 2 * MIB],
    [whole.length - MIB - 7, MIB + 7],
  ] as const) {
    const expected = whole.subarray(offset, offset + length)
    const read = await store.get('packs/ab/one', { offset, length }, into)
    assert.ok(read.equals(expected))
    // A file system without this way has its own.
    if (direct !== undefined) assert.equal(read.buffer, into.buffer)
    const elsewhere = await store.get('packs/ab/one', { offset, length }, into.subarray(0, MIB))
    assert.ok(elsewhere.equals(expected))
    assert.ok((await store.get('packs/ab/one', { offset, length })).equals(expected))
  }
  await assert.rejects(
    store.get('packs/ab/one', { offset: whole.length - MIB, length: MIB + DIRECT_BYTES }, into),
    /too short/,
  )
  store.close()
})
