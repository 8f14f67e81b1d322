import {
  HANDSHAKE,
  INFO,
  INIT_MAGIC,
  NAME_BYTES_MAX,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
} from './constants.ts'

/* The handshake: fixed newstyle.
 *
 *     server   INIT_MAGIC u64 | OPTION_MAGIC u64 | handshake flags u16
 *     client   client flags u32
 *     client   OPTION_MAGIC u64 | option u32 | length u32 | data          any number of times
 *     server   OPTION_REPLY_MAGIC u64 | option u32 | type u32 | length u32 | data
 *
 * Encoders return new buffers. Decoders get exactly the bytes of one item and answer undefined for anything malformed;
 * they never throw and never read outside what they were given. All numbers are big-endian.
 */

export const GREETING_BYTES = 18
export const CLIENT_FLAGS_BYTES = 4
export const OPTION_HEADER_BYTES = 16
export const OPTION_REPLY_HEADER_BYTES = 20

export function encodeGreeting(flags: number): Buffer {
  const bytes = Buffer.allocUnsafe(GREETING_BYTES)
  bytes.writeBigUInt64BE(INIT_MAGIC, 0)
  bytes.writeBigUInt64BE(OPTION_MAGIC, 8)
  bytes.writeUInt16BE(flags, 16)
  return bytes
}

/** The server's handshake flags. */
export function decodeGreeting(bytes: Buffer): number | undefined {
  if (bytes.length !== GREETING_BYTES) return undefined
  if (bytes.readBigUInt64BE(0) !== INIT_MAGIC) return undefined
  if (bytes.readBigUInt64BE(8) !== OPTION_MAGIC) return undefined
  return bytes.readUInt16BE(16)
}

export function encodeClientFlags(flags: number): Buffer {
  const bytes = Buffer.allocUnsafe(CLIENT_FLAGS_BYTES)
  bytes.writeUInt32BE(flags, 0)
  return bytes
}

/** The client's flags; undefined when it sets one that was not offered. */
export function decodeClientFlags(bytes: Buffer): number | undefined {
  if (bytes.length !== CLIENT_FLAGS_BYTES) return undefined
  const flags = bytes.readUInt32BE(0)
  return (flags & ~(HANDSHAKE.FIXED_NEWSTYLE | HANDSHAKE.NO_ZEROES)) === 0 ? flags : undefined
}

export interface OptionHeader {
  readonly option: number
  readonly length: number
}

export function encodeOption(option: number, data: Uint8Array = new Uint8Array()): Buffer {
  const bytes = Buffer.allocUnsafe(OPTION_HEADER_BYTES + data.length)
  bytes.writeBigUInt64BE(OPTION_MAGIC, 0)
  bytes.writeUInt32BE(option, 8)
  bytes.writeUInt32BE(data.length, 12)
  bytes.set(data, OPTION_HEADER_BYTES)
  return bytes
}

export function decodeOptionHeader(bytes: Buffer): OptionHeader | undefined {
  if (bytes.length !== OPTION_HEADER_BYTES) return undefined
  if (bytes.readBigUInt64BE(0) !== OPTION_MAGIC) return undefined
  return { option: bytes.readUInt32BE(8), length: bytes.readUInt32BE(12) }
}

export interface OptionReplyHeader {
  readonly option: number
  readonly type: number
  readonly length: number
}

export function encodeOptionReply(
  option: number,
  type: number,
  data: Uint8Array = new Uint8Array(),
): Buffer {
  const bytes = Buffer.allocUnsafe(OPTION_REPLY_HEADER_BYTES + data.length)
  bytes.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0)
  bytes.writeUInt32BE(option, 8)
  bytes.writeUInt32BE(type, 12)
  bytes.writeUInt32BE(data.length, 16)
  bytes.set(data, OPTION_REPLY_HEADER_BYTES)
  return bytes
}

export function decodeOptionReplyHeader(bytes: Buffer): OptionReplyHeader | undefined {
  if (bytes.length !== OPTION_REPLY_HEADER_BYTES) return undefined
  if (bytes.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) return undefined
  return {
    option: bytes.readUInt32BE(8),
    type: bytes.readUInt32BE(12),
    length: bytes.readUInt32BE(16),
  }
}

/** Data of INFO and GO: length u32 | name | count u16 | information requests u16 each. */
export interface ExportRequest {
  readonly name: string
  readonly infos: readonly number[]
}

export function encodeExportRequest({ name, infos }: ExportRequest): Buffer {
  const nameBytes = Buffer.from(name)
  const bytes = Buffer.allocUnsafe(4 + nameBytes.length + 2 + infos.length * 2)
  bytes.writeUInt32BE(nameBytes.length, 0)
  bytes.set(nameBytes, 4)
  let at = 4 + nameBytes.length
  bytes.writeUInt16BE(infos.length, at)
  for (const info of infos) bytes.writeUInt16BE(info, (at += 2))
  return bytes
}

export function decodeExportRequest(bytes: Buffer): ExportRequest | undefined {
  const name = decodeText(bytes, 0)
  if (name === undefined || bytes.length < name.end + 2) return undefined
  const count = bytes.readUInt16BE(name.end)
  if (bytes.length !== name.end + 2 + count * 2) return undefined
  const infos: number[] = []
  for (let i = 0; i < count; i++) infos.push(bytes.readUInt16BE(name.end + 2 + i * 2))
  return { name: name.text, infos }
}

/** Data of EXPORT_NAME: the name alone. */
export function decodeExportName(bytes: Buffer): string | undefined {
  return bytes.length > NAME_BYTES_MAX ? undefined : decodeUtf8(bytes)
}

/** Answer to EXPORT_NAME, which has no option reply header: size u64 | flags u16 | 124 zeroes unless agreed away. */
export function encodeExportNameReply(sizeBytes: number, flags: number, noZeroes: boolean): Buffer {
  const bytes = Buffer.alloc(noZeroes ? 10 : 134)
  bytes.writeBigUInt64BE(BigInt(sizeBytes), 0)
  bytes.writeUInt16BE(flags, 8)
  return bytes
}

export type Info =
  | { readonly kind: 'export'; readonly sizeBytes: number; readonly flags: number }
  | { readonly kind: 'name'; readonly name: string }
  | {
      readonly kind: 'block_size'
      readonly minimum: number
      readonly preferred: number
      readonly maximum: number
    }
  | { readonly kind: 'other'; readonly type: number }

export function encodeInfo(info: Exclude<Info, { kind: 'other' }>): Buffer {
  switch (info.kind) {
    case 'export': {
      const bytes = Buffer.allocUnsafe(12)
      bytes.writeUInt16BE(INFO.EXPORT, 0)
      bytes.writeBigUInt64BE(BigInt(info.sizeBytes), 2)
      bytes.writeUInt16BE(info.flags, 10)
      return bytes
    }
    case 'name': {
      const bytes = Buffer.allocUnsafe(2 + Buffer.byteLength(info.name))
      bytes.writeUInt16BE(INFO.NAME, 0)
      bytes.write(info.name, 2)
      return bytes
    }
    case 'block_size': {
      const bytes = Buffer.allocUnsafe(14)
      bytes.writeUInt16BE(INFO.BLOCK_SIZE, 0)
      bytes.writeUInt32BE(info.minimum, 2)
      bytes.writeUInt32BE(info.preferred, 6)
      bytes.writeUInt32BE(info.maximum, 10)
      return bytes
    }
  }
}

export function decodeInfo(bytes: Buffer): Info | undefined {
  if (bytes.length < 2) return undefined
  const type = bytes.readUInt16BE(0)
  switch (type) {
    case INFO.EXPORT: {
      if (bytes.length !== 12) return undefined
      const size = bytes.readBigUInt64BE(2)
      if (size > BigInt(Number.MAX_SAFE_INTEGER)) return undefined
      return { kind: 'export', sizeBytes: Number(size), flags: bytes.readUInt16BE(10) }
    }
    case INFO.NAME: {
      const name = decodeUtf8(bytes.subarray(2))
      return name === undefined ? undefined : { kind: 'name', name }
    }
    case INFO.BLOCK_SIZE:
      if (bytes.length !== 14) return undefined
      return {
        kind: 'block_size',
        minimum: bytes.readUInt32BE(2),
        preferred: bytes.readUInt32BE(6),
        maximum: bytes.readUInt32BE(10),
      }
    default:
      return { kind: 'other', type }
  }
}

/** Data of one SERVER reply to LIST: length u32 | name. */
export function encodeServer(name: string): Buffer {
  const nameBytes = Buffer.from(name)
  const bytes = Buffer.allocUnsafe(4 + nameBytes.length)
  bytes.writeUInt32BE(nameBytes.length, 0)
  bytes.set(nameBytes, 4)
  return bytes
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT: length u32 | export name | count u32 | (length u32 | query) each. */
export interface MetaContextRequest {
  readonly name: string
  readonly queries: readonly string[]
}

export function encodeMetaContextRequest({ name, queries }: MetaContextRequest): Buffer {
  const count = Buffer.allocUnsafe(4)
  count.writeUInt32BE(queries.length, 0)
  return Buffer.concat([encodeServer(name), count, ...queries.map(encodeServer)])
}

export function decodeMetaContextRequest(bytes: Buffer): MetaContextRequest | undefined {
  const name = decodeText(bytes, 0)
  if (name === undefined || bytes.length < name.end + 4) return undefined
  const count = bytes.readUInt32BE(name.end)
  let at = name.end + 4
  // Each query takes at least its length field, so a huge count fails on the first missing one.
  const queries: string[] = []
  for (let i = 0; i < count; i++) {
    const query = decodeText(bytes, at)
    if (query === undefined) return undefined
    queries.push(query.text)
    at = query.end
  }
  return at === bytes.length ? { name: name.text, queries } : undefined
}

/** Data of one META_CONTEXT reply: id u32 | name. */
export function encodeMetaContext(id: number, name: string): Buffer {
  const bytes = Buffer.allocUnsafe(4 + Buffer.byteLength(name))
  bytes.writeUInt32BE(id, 0)
  bytes.write(name, 4)
  return bytes
}

function decodeText(bytes: Buffer, at: number): { text: string; end: number } | undefined {
  if (bytes.length < at + 4) return undefined
  const length = bytes.readUInt32BE(at)
  const end = at + 4 + length
  if (length > NAME_BYTES_MAX || bytes.length < end) return undefined
  const text = decodeUtf8(bytes.subarray(at + 4, end))
  return text === undefined ? undefined : { text, end }
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The specification forbids NUL in names; broken UTF-8 would turn two names into one. */
function decodeUtf8(bytes: Buffer): string | undefined {
  try {
    const text = strictUtf8.decode(bytes)
    return text.includes('\0') ? undefined : text
  } catch {
    return undefined
  }
}
