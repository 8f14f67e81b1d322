import { hash } from 'node:crypto'
import { BLOCK_BYTES, CHECKSUM_BYTES } from '#wire/link/frame.ts'
import type { Volume } from '#agent/volumes/volume.ts'

/* Checksums by which the two sites find what differs: 128 bits of SHA-256 per 64 KiB block, about 1.1 GB/s on one core with SHA
 * instructions. A CRC is faster but misses one difference in four billion blocks by chance, and any that a guest makes on
 * purpose; a copy that skips such a block is silent corruption. */

/** Hashed in one go, a quarter of a millisecond; then the loop sees to its clients. */
const STEP_BYTES = 256 * 1024
/** Memory that is read into again and again: fresh pages for each read cost as much time as the hash does. */
const SPARE_BYTES = 1024 * 1024
const SPARES_MAX = 8
const spares: Buffer[] = []
const ZERO_BLOCK = Buffer.alloc(BLOCK_BYTES)
const ZERO_SUM = hash('sha256', ZERO_BLOCK, 'buffer').subarray(0, CHECKSUM_BYTES)

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** The checksums of a range that begins at a block's start, and its bytes unless all of it is a hole. */
export async function checksumsOf(volume: Volume, offset: number, length: number): Promise<Buffer> {
  const [first] = await volume.extents(offset, length, 1)
  if (first?.hole === true && first.length === length) return zeroChecksums(length)
  if (length > SPARE_BYTES) {
    const data = Buffer.allocUnsafeSlow(length)
    await volume.read(data, 0, length, offset)
    return await checksums(data)
  }
  const spare = spares.pop() ?? Buffer.allocUnsafeSlow(SPARE_BYTES)
  await volume.read(spare, 0, length, offset)
  const sums = await checksums(spare.subarray(0, length))
  // Not after a failure: a read that was given up could still write into it.
  if (spares.length < SPARES_MAX) spares.push(spare)
  return sums
}

/** As `checksumsOf`, of one block at most, read in this very turn: nothing that is written later is in it. */
export async function checksumAtOnce(
  volume: Volume,
  offset: number,
  length: number,
): Promise<Buffer> {
  const data = Buffer.allocUnsafe(length)
  volume.readSync(data, 0, length, offset)
  return await checksums(data)
}

export async function checksums(data: Buffer): Promise<Buffer> {
  const blocks = Math.ceil(data.length / BLOCK_BYTES)
  const sums = Buffer.alloc(blocks * CHECKSUM_BYTES)
  for (let block = 0; block < blocks; block++) {
    const at = block * BLOCK_BYTES
    if (block > 0 && at % STEP_BYTES === 0) await nextTurn()
    const bytes = data.subarray(at, at + BLOCK_BYTES)
    hash('sha256', bytes, 'buffer').copy(sums, block * CHECKSUM_BYTES, 0, CHECKSUM_BYTES)
  }
  return sums
}

/** The checksums of `length` zeroes. */
export function zeroChecksums(length: number): Buffer {
  const blocks = Math.ceil(length / BLOCK_BYTES)
  const sums = Buffer.alloc(blocks * CHECKSUM_BYTES)
  for (let block = 0; block < blocks; block++) ZERO_SUM.copy(sums, block * CHECKSUM_BYTES)
  const rest = length % BLOCK_BYTES
  if (rest > 0) {
    const last = hash('sha256', ZERO_BLOCK.subarray(0, rest), 'buffer')
    last.copy(sums, (blocks - 1) * CHECKSUM_BYTES, 0, CHECKSUM_BYTES)
  }
  return sums
}

/** True when all bytes are zero; at most BLOCK_BYTES of them. */
export const isZero = (bytes: Buffer): boolean => ZERO_BLOCK.subarray(0, bytes.length).equals(bytes)

/** Ranges (relative, in bytes) of neighbouring blocks whose checksums differ. */
export function differing(
  ours: Buffer,
  theirs: Buffer,
  length: number,
): { readonly at: number; readonly length: number }[] {
  const found: { at: number; length: number }[] = []
  const blocks = Math.ceil(length / BLOCK_BYTES)
  for (let block = 0; block < blocks; block++) {
    const sum = block * CHECKSUM_BYTES
    const end = sum + CHECKSUM_BYTES
    if (ours.compare(theirs, sum, end, sum, end) === 0) continue
    const at = block * BLOCK_BYTES
    const size = Math.min(BLOCK_BYTES, length - at)
    const last = found.at(-1)
    if (last !== undefined && last.at + last.length === at) last.length += size
    else found.push({ at, length: size })
  }
  return found
}
