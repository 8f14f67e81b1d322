import Type, { type Static } from 'typebox'

/* What two regions say to each other while a checkpoint goes from one vault to the other: docs/formats/replica-transfer.md. Requests over HTTPS, `POST
 * /replica/v1/NAME`; bodies as below, JSON or binary. All integers are big-endian. */

export const REPLICA_PATH = '/replica/v1/'
/** Of `open`: the right to send this replica. */
export const TICKET_SCHEME = 'Holdfast-Replica'
/** Of all others: what `open` answered. */
export const TRANSFER_HEADER = 'x-holdfast-transfer'

export const JSON_BYTES_MAX = 256 * 1024
export const VOLUMES_MAX = 64
/** Blocks asked for in one `have`. */
export const HAVE_BLOCKS_MAX = 1024
/** Payload after which a `put` is sent ... */
export const PUT_BYTES = 512 * 1024
/** ... and what no body exceeds: one record more, of the largest block there is. */
export const BODY_BYTES_MAX = PUT_BYTES + 9 * 1024 * 1024
export const PUT_ITEMS_MAX = 4096
const PUT_KEYS_MAX = 4096

const Uuid = Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' })
const Hex16 = Type.String({ pattern: '^[0-9a-f]{32}$' })
const Secret = Type.String({ pattern: '^[0-9A-Za-z+/]{43}=$' })
const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })

export const OpenTransfer = Type.Object({
  version: Type.Literal(1),
  replica: Uuid,
  /** Of the source. */
  vault: Uuid,
  checkpoint: Uuid,
  block_bytes: Type.Integer({ minimum: 4096, maximum: 8 * 1024 * 1024 }),
  created_ms: Count,
  labels: Type.Record(Type.String({ maxLength: 64 }), Type.String({ maxLength: 1024 })),
  volumes: Type.Array(
    Type.Object({
      id: Type.String({ minLength: 1, maxLength: 255 }),
      size_bytes: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    }),
    { maxItems: VOLUMES_MAX },
  ),
  /** The data key whose names the chunks have; the other vault wraps it with its own master key. */
  data_key: Type.Object({
    id: Hex16,
    secret: Secret,
    naming: Secret,
    generation: Count,
    origin: Uuid,
  }),
  /** Only what differs from this is sent: a checkpoint of the source, and its replica there. */
  base: Type.Union([Type.Null(), Type.Object({ checkpoint: Uuid, replica_checkpoint: Uuid })]),
})
export type OpenTransfer = Static<typeof OpenTransfer>

export const TransferOpened = Type.Union([
  Type.Object({ state: Type.Literal('done'), checkpoint: Uuid }),
  Type.Object({
    state: Type.Literal('open'),
    transfer: Type.String({ minLength: 16, maxLength: 256 }),
    /** The same again: what had arrived is still counted. */
    session: Uuid,
    /** False: there is nothing to build on, all blocks are asked for. */
    based: Type.Boolean(),
    /** Numbers of the volumes that have arrived as a whole. */
    volumes_done: Type.Array(Type.Integer({ minimum: 0, maximum: VOLUMES_MAX })),
  }),
])
export type TransferOpened = Static<typeof TransferOpened>

export const EndVolume = Type.Object({ volume: Type.Integer({ minimum: 0, maximum: VOLUMES_MAX }) })
export type EndVolume = Static<typeof EndVolume>

/** `arrived_bytes`: of records, in the session. */
export const TransferFinished = Type.Object({ checkpoint: Uuid, arrived_bytes: Count })
export type TransferFinished = Static<typeof TransferFinished>

/** Answer to `put`: what has arrived in the session and is durable, bytes of records. */
export const PutAnswer = Type.Object({ durable_bytes: Count })
export type PutAnswer = Static<typeof PutAnswer>

/** Why a request was refused. */
export const TransferRefusal = Type.Object({
  code: Type.String({ maxLength: 64 }),
  text: Type.String({ maxLength: 4096 }),
})
export type TransferRefusal = Static<typeof TransferRefusal>

export interface NamedBlock {
  readonly block: number
  readonly id: Buffer
}

const ID_BYTES = 32
const NAMED_BYTES = 8 + ID_BYTES

/** Body of `have`: which of these blocks have to be sent? */
export function encodeHave(volume: number, blocks: readonly NamedBlock[]): Buffer {
  const bytes = Buffer.alloc(8 + blocks.length * NAMED_BYTES)
  bytes.writeUInt32BE(volume, 0)
  bytes.writeUInt32BE(blocks.length, 4)
  for (const [i, { block, id }] of blocks.entries()) {
    bytes.writeBigUInt64BE(BigInt(block), 8 + i * NAMED_BYTES)
    id.copy(bytes, 16 + i * NAMED_BYTES)
  }
  return bytes
}

/** undefined: malformed. */
export function decodeHave(bytes: Buffer): { volume: number; blocks: NamedBlock[] } | undefined {
  if (bytes.length < 8) return undefined
  const count = bytes.readUInt32BE(4)
  if (count > HAVE_BLOCKS_MAX || bytes.length !== 8 + count * NAMED_BYTES) return undefined
  const blocks = Array.from({ length: count }, (_, i) => ({
    block: Number(bytes.readBigUInt64BE(8 + i * NAMED_BYTES)),
    id: bytes.subarray(16 + i * NAMED_BYTES, 8 + (i + 1) * NAMED_BYTES),
  }))
  return { volume: bytes.readUInt32BE(0), blocks }
}

/** Answer to `have`: bit n, most significant first, is set when block n of the request is to be sent. */
export function encodeWanted(wanted: readonly boolean[]): Buffer {
  const bytes = Buffer.alloc(Math.ceil(wanted.length / 8))
  for (const [i, one] of wanted.entries()) {
    if (one) bytes[i >>> 3] = (bytes[i >>> 3] ?? 0) | (0x80 >>> (i & 7))
  }
  return bytes
}

export function decodeWanted(bytes: Buffer, count: number): boolean[] | undefined {
  if (bytes.length !== Math.ceil(count / 8)) return undefined
  return Array.from({ length: count }, (_, i) => ((bytes[i >>> 3] ?? 0) & (0x80 >>> (i & 7))) !== 0)
}

/** A block as its pack holds it, or as it was compressed and sealed again for the way. */
export interface PutRecord {
  readonly kind: 'record'
  readonly block: number
  readonly id: Buffer
  /** Number in the list of keys. */
  readonly key: number
  readonly flags: number
  readonly bytes: Buffer
}
export interface PutZeroes {
  readonly kind: 'zeroes'
  readonly block: number
  readonly count: number
}
export type PutItem = PutRecord | PutZeroes

export interface Put {
  readonly volume: number
  /** That open the records. */
  readonly keys: readonly Buffer[]
  readonly items: readonly PutItem[]
}

const KIND_ZEROES = 0
const KIND_RECORD = 1
const ZEROES_BYTES = 1 + 8 + 4
const RECORD_HEAD_BYTES = 1 + 8 + ID_BYTES + 2 + 1 + 4

export function encodePut({ volume, keys, items }: Put): Buffer {
  const head = Buffer.alloc(12)
  head.writeUInt32BE(volume, 0)
  head.writeUInt32BE(keys.length, 4)
  head.writeUInt32BE(items.length, 8)
  const parts: Buffer[] = [head, ...keys]
  for (const item of items) {
    if (item.kind === 'zeroes') {
      const bytes = Buffer.alloc(ZEROES_BYTES)
      bytes.writeUInt8(KIND_ZEROES, 0)
      bytes.writeBigUInt64BE(BigInt(item.block), 1)
      bytes.writeUInt32BE(item.count, 9)
      parts.push(bytes)
      continue
    }
    const bytes = Buffer.alloc(RECORD_HEAD_BYTES)
    bytes.writeUInt8(KIND_RECORD, 0)
    bytes.writeBigUInt64BE(BigInt(item.block), 1)
    item.id.copy(bytes, 9)
    bytes.writeUInt16BE(item.key, 41)
    bytes.writeUInt8(item.flags, 43)
    bytes.writeUInt32BE(item.bytes.length, 44)
    parts.push(bytes, item.bytes)
  }
  return Buffer.concat(parts)
}

/** undefined: malformed. Buffers are views of `bytes`. */
export function decodePut(bytes: Buffer): Put | undefined {
  if (bytes.length < 12) return undefined
  const volume = bytes.readUInt32BE(0)
  const keyCount = bytes.readUInt32BE(4)
  const itemCount = bytes.readUInt32BE(8)
  if (keyCount > PUT_KEYS_MAX || itemCount > PUT_ITEMS_MAX) return undefined
  let at = 12 + keyCount * 32
  if (bytes.length < at) return undefined
  const keys = Array.from({ length: keyCount }, (_, i) => bytes.subarray(12 + i * 32, 44 + i * 32))
  const items: PutItem[] = []
  for (let i = 0; i < itemCount; i++) {
    const kind = bytes[at]
    if (kind === KIND_ZEROES && bytes.length >= at + ZEROES_BYTES) {
      const block = Number(bytes.readBigUInt64BE(at + 1))
      items.push({ kind: 'zeroes', block, count: bytes.readUInt32BE(at + 9) })
      at += ZEROES_BYTES
      continue
    }
    if (kind !== KIND_RECORD || bytes.length < at + RECORD_HEAD_BYTES) return undefined
    const key = bytes.readUInt16BE(at + 41)
    const length = bytes.readUInt32BE(at + 44)
    const end = at + RECORD_HEAD_BYTES + length
    if (key >= keyCount || bytes.length < end) return undefined
    items.push({
      kind: 'record',
      block: Number(bytes.readBigUInt64BE(at + 1)),
      id: bytes.subarray(at + 9, at + 41),
      key,
      flags: bytes.readUInt8(at + 43),
      bytes: bytes.subarray(at + RECORD_HEAD_BYTES, end),
    })
    at = end
  }
  return at === bytes.length ? { volume, keys, items } : undefined
}
