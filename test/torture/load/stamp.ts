import { crc32 } from '@node-rs/crc32'
import { assert } from '#base/assert.ts'

/* A stamped block says which write it is, where it belongs, what it depends on, and whether it is whole. Little-endian:
 *
 *      0  8  "HFTORTUR"             24  8  moment of issue (a number that grows with every event of the run)
 *      8  8  run                    32  4  CRC-32 of the block with these four bytes zero
 *     16  4  sequence of the write  36  4  how many volumes follow
 *     20  4  volume << 20 | slot    40     per volume: sequence of the last write acknowledged there before the issue
 *                                          then filling
 */

export const BLOCK_BYTES = 4096
/** As many dependencies as a stamp has room for. */
export const VOLUMES_MAX = 16

export interface Stamp {
  /** In the order of issue, over all volumes; from 1. */
  readonly sequence: number
  readonly volume: number
  readonly slot: number
  readonly issued: number
  /** By volume: the last write that had been acknowledged there when this one was issued; 0: none. */
  readonly depends: readonly number[]
}

export type Found = Stamp | 'empty' | 'damaged'

const MAGIC = Buffer.from('HFTORTUR')
const CRC_AT = 32
const DEPENDS_AT = 40
const FILLING_AT = DEPENDS_AT + VOLUMES_MAX * 4
const ZEROES = Buffer.alloc(BLOCK_BYTES)

/** Writes a whole block at `at`. */
export function writeStamp(into: Buffer, at: number, run: Buffer, stamp: Stamp): void {
  assert(run.length === 8 && stamp.depends.length <= VOLUMES_MAX, 'a stamp has room for so much')
  const block = into.subarray(at, at + BLOCK_BYTES)
  block.fill(stamp.sequence & 0xff, FILLING_AT)
  block.fill(0, 0, FILLING_AT)
  MAGIC.copy(block, 0)
  run.copy(block, 8)
  block.writeUInt32LE(stamp.sequence, 16)
  block.writeUInt32LE((stamp.volume << 20) | stamp.slot, 20)
  block.writeDoubleLE(stamp.issued, 24)
  block.writeUInt32LE(stamp.depends.length, 36)
  for (const [index, one] of stamp.depends.entries()) {
    block.writeUInt32LE(one, DEPENDS_AT + index * 4)
  }
  block.writeUInt32LE(crc32(block), CRC_AT)
}

/** What a block holds. May change it. */
export function readStamp(block: Buffer, run: Buffer): Found {
  if (!block.subarray(0, 8).equals(MAGIC)) return block.equals(ZEROES) ? 'empty' : 'damaged'
  const crc = block.readUInt32LE(CRC_AT)
  block.writeUInt32LE(0, CRC_AT)
  if (crc32(block) !== crc || !block.subarray(8, 16).equals(run)) return 'damaged'
  const place = block.readUInt32LE(20)
  const count = block.readUInt32LE(36)
  return {
    sequence: block.readUInt32LE(16),
    volume: place >>> 20,
    slot: place & 0xfffff,
    issued: block.readDoubleLE(24),
    depends: Array.from({ length: count }, (_, index) =>
      block.readUInt32LE(DEPENDS_AT + index * 4),
    ),
  }
}
