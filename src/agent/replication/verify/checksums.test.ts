import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BLOCK_BYTES, CHECKSUM_BYTES } from '#wire/link/frame.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import { MemoryVolume } from '../data-path.test-kit.ts'
import { checksums, checksumsOf, differing, zeroChecksums } from './checksums.ts'

const SIZE = 20 * BLOCK_BYTES + 512

test('checksums of a range are those of its bytes, wherever it has holes and wherever it ends', async () => {
  const memory = new MemoryVolume(SIZE)
  const volume = memory as unknown as Volume
  for (const block of [3, 4, 20])
    memory.bytes.fill(block, block * BLOCK_BYTES, block * BLOCK_BYTES + 512)
  for (const [first, length] of [
    [0, 3 * BLOCK_BYTES],
    [0, 4 * BLOCK_BYTES],
    [3, BLOCK_BYTES],
    [4, 5 * BLOCK_BYTES],
    [5, SIZE - 5 * BLOCK_BYTES],
    [0, SIZE],
  ] as const) {
    const bytes = memory.bytes.subarray(first * BLOCK_BYTES, first * BLOCK_BYTES + length)
    const expected = await checksums(Buffer.from(bytes))
    const found = await checksumsOf(volume, first * BLOCK_BYTES, length)
    assert.ok(found.equals(expected), `${length} bytes from block ${first}`)
  }
  assert.ok(
    zeroChecksums(BLOCK_BYTES + 512).equals(await checksums(Buffer.alloc(BLOCK_BYTES + 512))),
  )
})

test('what differs is told to the last byte of the range, neighbours as one', async () => {
  const length = 4 * BLOCK_BYTES + 512
  const ours = await checksums(Buffer.alloc(length, 1))
  const theirs = Buffer.from(ours)
  for (const block of [0, 2, 3, 4]) {
    // The last bit of a sum counts as the others do.
    const at = (block + 1) * CHECKSUM_BYTES - 1
    theirs[at] = (theirs[at] as number) ^ 1
  }
  assert.deepEqual(differing(ours, theirs, length), [
    { at: 0, length: BLOCK_BYTES },
    { at: 2 * BLOCK_BYTES, length: 2 * BLOCK_BYTES + 512 },
  ])
})
