import { Fault } from '#base/fault.ts'
import { VAULT_DAMAGED } from '../faults.ts'
import { PACK_ID_BYTES } from './entry.ts'

/* Where the records of a rewritten pack are now. Stored under the old pack's id before that pack is deleted. */

export interface Move {
  /** In the old pack. */
  readonly from: number
  readonly pack: Buffer
  readonly slot: number
  readonly offset: number
  readonly length: number
  readonly flags: number
}

const MOVE_BYTES = 2 + PACK_ID_BYTES + 2 + 4 + 3 + 1

export const movesKey = (pack: Buffer): string => `moves/${pack.toString('hex')}`

export function encodeMoves(moves: readonly Move[]): Buffer {
  const bytes = Buffer.alloc(moves.length * MOVE_BYTES)
  for (const [i, move] of moves.entries()) {
    const at = i * MOVE_BYTES
    bytes.writeUInt16BE(move.from, at)
    move.pack.copy(bytes, at + 2)
    bytes.writeUInt16BE(move.slot, at + 18)
    bytes.writeUInt32BE(move.offset, at + 20)
    bytes.writeUIntBE(move.length, at + 24, 3)
    bytes.writeUInt8(move.flags, at + 27)
  }
  return bytes
}

export function decodeMoves(bytes: Buffer, name: string): Map<number, Move> {
  if (bytes.length % MOVE_BYTES !== 0) {
    throw new Fault(VAULT_DAMAGED, `reading ${name}: it is cut off`, { object: name })
  }
  const moves = new Map<number, Move>()
  for (let at = 0; at < bytes.length; at += MOVE_BYTES) {
    const from = bytes.readUInt16BE(at)
    moves.set(from, {
      from,
      pack: Buffer.from(bytes.subarray(at + 2, at + 18)),
      slot: bytes.readUInt16BE(at + 18),
      offset: bytes.readUInt32BE(at + 20),
      length: bytes.readUIntBE(at + 24, 3),
      flags: bytes.readUInt8(at + 27),
    })
  }
  return moves
}
