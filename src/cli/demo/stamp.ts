import { crc32 } from '@node-rs/crc32'
import { assert } from '#base/assert.ts'

/* A stamped block: 4 KiB that say which write they are, where they belong, and whether they are whole.
 *
 *     0  8  "HFSTAMP1"            24  4  chain
 *     8  8  run                   28  4  step in the chain, from 1
 *    16  4  sequence, from 1      32  4  CRC-32 of the block with these four bytes zero
 *    20  4  volume                36  4  slot (offset / 4096)
 *    40     filling
 * Numbers are little-endian.
 */

export const BLOCK_BYTES = 4096

export interface Stamp {
  /** In the order in which writes were issued, over all volumes; from 1. */
  readonly sequence: number
  readonly volume: number
  readonly slot: number
  /** Writes of one chain depend on each other: each was issued after the one before was acknowledged. */
  readonly chain: number
  readonly step: number
}

const MAGIC = Buffer.from('HFSTAMP1')
const CRC_AT = 32
const FILLING_AT = 40

/** Writes stamp and filling into `block`. `run`: 8 bytes that tell this run's blocks from any other's. */
export function writeStamp(block: Buffer, run: Buffer, filling: Buffer, stamp: Stamp): void {
  assert(block.length === BLOCK_BYTES && run.length === 8, 'a block has 4096 bytes, a run id 8')
  filling.copy(block, FILLING_AT, FILLING_AT)
  MAGIC.copy(block, 0)
  run.copy(block, 8)
  block.writeUInt32LE(stamp.sequence, 16)
  block.writeUInt32LE(stamp.volume, 20)
  block.writeUInt32LE(stamp.chain, 24)
  block.writeUInt32LE(stamp.step, 28)
  block.writeUInt32LE(0, CRC_AT)
  block.writeUInt32LE(stamp.slot, 36)
  block.writeUInt32LE(crc32(block), CRC_AT)
}

/** The stamp of a whole block of this run, 'empty' for zeroes, 'damaged' for anything else. May change `block`. */
export function readStamp(block: Buffer, run: Buffer): Stamp | 'empty' | 'damaged' {
  if (!block.subarray(0, 8).equals(MAGIC)) return isZero(block) ? 'empty' : 'damaged'
  const crc = block.readUInt32LE(CRC_AT)
  block.writeUInt32LE(0, CRC_AT)
  if (crc32(block) !== crc || !block.subarray(8, 16).equals(run)) return 'damaged'
  return {
    sequence: block.readUInt32LE(16),
    volume: block.readUInt32LE(20),
    chain: block.readUInt32LE(24),
    step: block.readUInt32LE(28),
    slot: block.readUInt32LE(36),
  }
}

const ZEROES = Buffer.alloc(BLOCK_BYTES)

export const isZero = (block: Buffer): boolean => block.equals(ZEROES)
