import { crc32 } from 'node:zlib'
import { Fault } from '#base/fault.ts'
import { VAULT_DAMAGED } from '../faults.ts'
import { type Entry, ID_BYTES } from './entry.ts'

/* A pack: header, records one after the other, sealed footer that lists them, trailer. Byte tables in docs/formats/vault.md. */

const MAGIC = Buffer.from('HFVPACK1')
const END_MAGIC = Buffer.from('HFVPEND1')
export const PACK_HEADER_BYTES = 96
export const PACK_TRAILER_BYTES = 16
export const FOOTER_ENTRY_BYTES = ID_BYTES + 8

export interface PackHeader {
  readonly packId: Buffer
  /** Data key that the record key is derived from. */
  readonly keyId: Buffer
  /** 32 bytes, drawn by each process that writes. */
  readonly salt: Buffer
  readonly sessionId: Buffer
}

/** Two characters of the id keep directories small. */
export const packKey = (id: Buffer): string => {
  const hex = id.toString('hex')
  return `packs/${hex.slice(0, 2)}/${hex}`
}

export function packIdOf(key: string): Buffer | undefined {
  const match = /^packs\/([0-9a-f]{2})\/([0-9a-f]{32})$/.exec(key)
  return match?.[2]?.startsWith(match[1] ?? '?') === true ? Buffer.from(match[2], 'hex') : undefined
}

export function encodePackHeader(header: PackHeader): Buffer {
  const bytes = Buffer.alloc(PACK_HEADER_BYTES)
  MAGIC.copy(bytes)
  header.packId.copy(bytes, 8)
  header.keyId.copy(bytes, 24)
  header.salt.copy(bytes, 40)
  header.sessionId.copy(bytes, 72)
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 88)), 88)
  return bytes
}

/** Throws VAULT_DAMAGED, also for the header of another pack. */
export function decodePackHeader(bytes: Buffer, name: string): PackHeader {
  if (
    bytes.length < PACK_HEADER_BYTES ||
    !bytes.subarray(0, 8).equals(MAGIC) ||
    bytes.readUInt32BE(88) !== crc32(bytes.subarray(0, 88)) ||
    bytes.readUInt32BE(92) !== 0
  ) {
    throw damagedPack(name, 'its header is damaged')
  }
  const header = {
    packId: Buffer.from(bytes.subarray(8, 24)),
    keyId: Buffer.from(bytes.subarray(24, 40)),
    salt: Buffer.from(bytes.subarray(40, 72)),
    sessionId: Buffer.from(bytes.subarray(72, 88)),
  }
  if (packKey(header.packId) !== name) throw damagedPack(name, 'it is another pack')
  return header
}

export function encodePackTrailer(footerBytes: number, records: number): Buffer {
  const bytes = Buffer.alloc(PACK_TRAILER_BYTES)
  bytes.writeUInt32BE(footerBytes, 0)
  bytes.writeUInt32BE(records, 4)
  END_MAGIC.copy(bytes, 8)
  return bytes
}

export function decodePackTrailer(
  bytes: Buffer,
  name: string,
): { readonly footerBytes: number; readonly records: number } {
  if (bytes.length !== PACK_TRAILER_BYTES || !bytes.subarray(8).equals(END_MAGIC)) {
    throw damagedPack(name, 'its end is damaged or missing')
  }
  return { footerBytes: bytes.readUInt32BE(0), records: bytes.readUInt32BE(4) }
}

/** What a footer and an index say of one record. */
export type PackRecord = Pick<Entry, 'id' | 'offset' | 'length' | 'flags'>

export function encodePackRecords(records: readonly PackRecord[]): Buffer {
  const bytes = Buffer.alloc(4 + records.length * FOOTER_ENTRY_BYTES)
  bytes.writeUInt32BE(records.length, 0)
  for (const [i, record] of records.entries()) {
    const at = 4 + i * FOOTER_ENTRY_BYTES
    record.id.copy(bytes, at)
    bytes.writeUInt32BE(record.offset, at + ID_BYTES)
    bytes.writeUIntBE(record.length, at + ID_BYTES + 4, 3)
    bytes.writeUInt8(record.flags, at + ID_BYTES + 7)
  }
  return bytes
}

/** The list at `at`, its entries as they are encoded, a view; `next` is where it ends. Throws VAULT_DAMAGED. */
export function packRecordsAt(
  bytes: Buffer,
  at: number,
  name: string,
): { readonly list: Buffer; readonly next: number } {
  const count = at + 4 <= bytes.length ? bytes.readUInt32BE(at) : -1
  const next = at + 4 + count * FOOTER_ENTRY_BYTES
  if (count < 0 || next > bytes.length) throw damagedPack(name, 'its list of records is cut off')
  return { list: bytes.subarray(at + 4, next), next }
}

/** What `packRecordsAt` gives. The ids are views. */
export function decodePackRecords(list: Buffer): PackRecord[] {
  const records: PackRecord[] = []
  for (let at = 0; at < list.length; at += FOOTER_ENTRY_BYTES) {
    records.push({
      id: list.subarray(at, at + ID_BYTES),
      offset: list.readUInt32BE(at + ID_BYTES),
      length: list.readUIntBE(at + ID_BYTES + 4, 3),
      flags: list.readUInt8(at + ID_BYTES + 7),
    })
  }
  return records
}

const damagedPack = (name: string, what: string): Fault =>
  new Fault(VAULT_DAMAGED, `reading ${name}: ${what}`, { object: name, kind: 'pack' })
