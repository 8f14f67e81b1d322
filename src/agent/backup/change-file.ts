import { createHash } from 'node:crypto'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { BlockSet } from '#agent/replication/copy/block-set.ts'

/* Sets of 64 KiB blocks in a file, with a description of what they are. docs/formats/change-tracking.md describes it for readers.
 *
 * Damage must never pass for a set: a block that is missing in it would be missing in a backup. So the whole file stands under a digest, and whatever is
 * not understood is nothing. */

const MAGIC = Buffer.from('HFBLOCKS')
const VERSION = 2
const HEAD_BYTES = 16
const DIGEST_BYTES = 32
/** Largest bitmap: a volume of 256 TiB. */
const BITS_BYTES_MAX = 512 * 1024 * 1024

interface Head {
  readonly about: unknown
  /** Blocks of the volume, and bytes in the file, of each set. */
  readonly sets: readonly { readonly blocks: number; readonly bytes: number }[]
}

export function encodeSets(about: unknown, sets: readonly BlockSet[]): Buffer {
  const bodies = sets.map((set) => zstdCompressSync(bitsOf(set)))
  const head: Head = {
    about,
    sets: sets.map(({ blocks }, i) => ({ blocks, bytes: bodies[i]?.length ?? 0 })),
  }
  const text = Buffer.from(JSON.stringify(head))
  const fixed = Buffer.alloc(HEAD_BYTES)
  MAGIC.copy(fixed)
  fixed.writeUInt8(VERSION, 8)
  fixed.writeUInt32BE(text.length, 12)
  const content = Buffer.concat([fixed, text, ...bodies])
  return Buffer.concat([content, createHash('sha256').update(content).digest()])
}

/** undefined: damaged, or of another version. */
export function decodeSets(bytes: Buffer): { about: unknown; sets: BlockSet[] } | undefined {
  if (bytes.length < HEAD_BYTES + DIGEST_BYTES || !bytes.subarray(0, 8).equals(MAGIC)) {
    return undefined
  }
  const content = bytes.subarray(0, bytes.length - DIGEST_BYTES)
  const digest = createHash('sha256').update(content).digest()
  if (!digest.equals(bytes.subarray(content.length)) || content[8] !== VERSION) return undefined
  let at = HEAD_BYTES + content.readUInt32BE(12)
  const { about, sets } = JSON.parse(content.toString('utf8', HEAD_BYTES, at)) as Head
  const read = sets.map((one) => {
    const body = content.subarray(at, at + one.bytes)
    at += one.bytes
    const set = new BlockSet(one.blocks)
    set.addBits(zstdDecompressSync(body, { maxOutputLength: BITS_BYTES_MAX }), 0)
    return set
  })
  return { about, sets: read }
}

/** Bit n, least significant first, is block n; up to the last block of the set. */
function bitsOf(set: BlockSet): Buffer {
  let last = -1
  const runs: [number, number][] = []
  for (let from = set.next(0); from >= 0; from = set.next(last)) {
    last = set.runEnd(from, set.blocks)
    runs.push([from, last])
  }
  const bits = Buffer.alloc(Math.ceil(Math.max(0, last) / 8))
  for (const [from, end] of runs) {
    for (let block = from; block < end; ) {
      if (block % 8 === 0 && end - block >= 8) {
        bits[block / 8] = 0xff
        block += 8
      } else {
        bits[block >>> 3] = (bits[block >>> 3] ?? 0) | (1 << (block & 7))
        block++
      }
    }
  }
  return bits
}
