import { crc32c } from '@node-rs/crc32'

/* The map of a before-image: which blocks were preserved, in the order in which they were. docs/formats/snapshot-store.md has the byte table.
 *
 *     header, 4096 bytes | record, record, ... each 16 bytes
 *
 * The header is changed in place, within its first sector: a snapshot without space must be able to say so without needing any. A record's checksum
 * is seeded with its place, so that a record that lies somewhere else is none.
 */

export const MAP_HEADER_BYTES = 4096
export const MAP_RECORD_BYTES = 16
const MAGIC = 0x4846534d
const VERSION = 1
const HEADER_CHECKED_BYTES = 20

/** failed: a block that was needed could not be preserved */
const STATES = ['following', 'failed', 'sealed'] as const
export type MapState = (typeof STATES)[number]

export interface MapHeader {
  readonly state: MapState
  /** Size of the volume when the snapshot was taken. */
  readonly sizeBytes: number
  readonly blockBytes: number
}

/**
 * batch  `value` records of data and holes follow, which count together or not at all; everything before it is durable, its data too
 * data   one block, `value` is the CRC32C of what it held
 * hole   `value` blocks that read as zeroes, nothing is stored of them
 */
const KINDS = ['', 'data', 'hole', 'batch'] as const
export interface MapRecord {
  readonly kind: 'data' | 'hole' | 'batch'
  readonly block: number
  readonly value: number
}

export function encodeMapHeader({ state, sizeBytes, blockBytes }: MapHeader): Buffer {
  const buf = Buffer.alloc(MAP_HEADER_BYTES)
  buf.writeUInt32BE(MAGIC, 0)
  buf.writeUInt16BE(VERSION, 4)
  buf.writeUInt8(STATES.indexOf(state), 6)
  buf.writeBigUInt64BE(BigInt(sizeBytes), 8)
  buf.writeUInt32BE(blockBytes, 16)
  buf.writeUInt32BE(crc32c(buf.subarray(0, HEADER_CHECKED_BYTES)), HEADER_CHECKED_BYTES)
  return buf
}

/** null: damaged, or of another version. */
export function decodeMapHeader(buf: Buffer): MapHeader | null {
  if (buf.length < MAP_HEADER_BYTES || buf.readUInt32BE(0) !== MAGIC) return null
  if (buf.readUInt16BE(4) !== VERSION) return null
  const checksum = crc32c(buf.subarray(0, HEADER_CHECKED_BYTES))
  if (buf.readUInt32BE(HEADER_CHECKED_BYTES) !== checksum) return null
  const state = STATES[buf.readUInt8(6)]
  if (state === undefined) return null
  return { state, sizeBytes: Number(buf.readBigUInt64BE(8)), blockBytes: buf.readUInt32BE(16) }
}

/** `index`: the record's place, the first one has 0. */
export function encodeMapRecord(
  buf: Buffer,
  offset: number,
  index: number,
  record: MapRecord,
): void {
  buf.writeUInt32BE(record.block, offset + 4)
  buf.writeUInt32BE(KINDS.indexOf(record.kind) << 24, offset + 8)
  buf.writeUInt32BE(record.value, offset + 12)
  buf.writeUInt32BE(recordChecksum(buf, offset, index), offset)
}

/** null: no record lies here, or a torn one. */
export function decodeMapRecord(buf: Buffer, offset: number, index: number): MapRecord | null {
  if (buf.length < offset + MAP_RECORD_BYTES) return null
  if (buf.readUInt32BE(offset) !== recordChecksum(buf, offset, index)) return null
  const kind = KINDS[buf.readUInt8(offset + 8)]
  if (kind === undefined || kind === '') return null
  return { kind, block: buf.readUInt32BE(offset + 4), value: buf.readUInt32BE(offset + 12) }
}

const recordChecksum = (buf: Buffer, offset: number, index: number): number =>
  crc32c(buf.subarray(offset + 4, offset + MAP_RECORD_BYTES), (index + 1) >>> 0)
