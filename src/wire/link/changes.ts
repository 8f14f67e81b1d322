/* The answer to CHANGES: which blocks of a member the replica has changed itself, or may have, since the common base.
 *
 *     0    1: everything may differ, nothing follows · 0: as follows
 *     1    zero, 7 bytes
 *     8    one bit per region of 4 MiB, least significant first, in whole bytes: compare all of its blocks
 *     ...  one bit per block of 64 KiB, least significant first, 8 bytes per region: send it
 */

/** Unit in which changes are asked for, bytes. */
export const CHANGES_REGION_BYTES = 4 * 1024 * 1024
export const BLOCKS_PER_REGION = 64
/** Most regions of one question, 256 GiB of a volume: its answer takes half a megabyte. */
export const CHANGES_REGIONS_MAX = 65_536

const HEAD_BYTES = 8

export interface Changes {
  /** Bits of regions to be compared. */
  readonly compare: Uint8Array
  /** Bits of blocks to be sent. */
  readonly send: Uint8Array
}

/** `changes` null: everything may differ. */
export function encodeChanges(changes: Changes | null): Buffer {
  if (changes === null) return Buffer.from([1, 0, 0, 0, 0, 0, 0, 0])
  return Buffer.concat([Buffer.alloc(HEAD_BYTES), changes.compare, changes.send])
}

/** null: everything may differ, also when the answer is not what was asked for. */
export function decodeChanges(payload: Buffer, regions: number): Changes | null {
  const compareBytes = Math.ceil(regions / 8)
  const bytes = HEAD_BYTES + compareBytes + regions * (BLOCKS_PER_REGION / 8)
  if (payload[0] !== 0 || payload.length !== bytes) return null
  return {
    compare: payload.subarray(HEAD_BYTES, HEAD_BYTES + compareBytes),
    send: payload.subarray(HEAD_BYTES + compareBytes),
  }
}
