import { assert } from '#base/assert.ts'

/* An entry says where a chunk is: its id, its pack and the place in it. It is a hint as far as the place goes: when the collector
 * has moved the chunk, the pack is gone and its `moves` object knows the new place (docs/formats/vault.md).
 *
 * Entries are kept as bytes, 58 each, because a node has a thousand of them and a table of objects would be ten times as large. */

export const ENTRY_BYTES = 58
export const ID_BYTES = 32
export const PACK_ID_BYTES = 16

const PACK = 32
const SLOT = 48
const OFFSET = 50
const LENGTH = 54
const FLAGS = 57

/** Reads as zeroes; nothing is stored. All other fields are zero. */
export const FLAG_ZERO = 0xff
export const FLAG_ZSTD = 1
/** A tree node instead of a block of data. */
export const FLAG_NODE = 2

/** Longest record that a length of 24 bits can tell. */
export const RECORD_BYTES_MAX = 2 ** 24 - 1

export interface Entry {
  readonly id: Buffer
  readonly pack: Buffer
  /** Number of the record in its pack, from 0. */
  readonly slot: number
  /** Bytes from the beginning of the pack. */
  readonly offset: number
  readonly length: number
  readonly flags: number
}

export function writeEntry(target: Buffer, at: number, entry: Entry): void {
  assert(entry.id.length === ID_BYTES && entry.pack.length === PACK_ID_BYTES, 'entry ids are whole')
  entry.id.copy(target, at)
  entry.pack.copy(target, at + PACK)
  target.writeUInt16BE(entry.slot, at + SLOT)
  target.writeUInt32BE(entry.offset, at + OFFSET)
  target.writeUIntBE(entry.length, at + LENGTH, 3)
  target.writeUInt8(entry.flags, at + FLAGS)
}

/** The buffers of the result are copies. */
export function readEntry(source: Buffer, at: number): Entry {
  return {
    id: Buffer.from(source.subarray(at, at + ID_BYTES)),
    pack: Buffer.from(source.subarray(at + PACK, at + SLOT)),
    slot: source.readUInt16BE(at + SLOT),
    offset: source.readUInt32BE(at + OFFSET),
    length: source.readUIntBE(at + LENGTH, 3),
    flags: source.readUInt8(at + FLAGS),
  }
}

export const isZeroEntry = (source: Buffer, at: number): boolean => source[at + FLAGS] === FLAG_ZERO

export const hasId = (source: Buffer, at: number, id: Buffer): boolean =>
  source[at + FLAGS] !== FLAG_ZERO && source.compare(id, 0, ID_BYTES, at, at + ID_BYTES) === 0

export function writeZeroEntry(target: Buffer, at: number): void {
  target.fill(0, at, at + ENTRY_BYTES - 1)
  target[at + FLAGS] = FLAG_ZERO
}

export function zeroEntry(): Buffer {
  const entry = Buffer.alloc(ENTRY_BYTES)
  writeZeroEntry(entry, 0)
  return entry
}
