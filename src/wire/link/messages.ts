import Type, { type Static, type TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { OwnershipRecord } from '../site/witness.ts'

/* What the two ends of a link tell each other outside of the byte stream of writes. JSON, because it is rare, and grows. */

const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })

/** Bits of `features`. A side that needs a bit which the other lacks refuses the link. */
export const FEATURES = {
  /** ZERO frames; TRIM is zeroes that may unmap on both sides alike. */
  ZERO: 1,
  /** CHECKSUM answers truncated SHA-256 of 64 KiB blocks. */
  SHA256_64K: 2,
  /** CHANGES is answered. A replica without it counts as having changed everything. */
  CHANGES: 4,
} as const
export const FEATURES_HERE = FEATURES.ZERO | FEATURES.SHA256_64K | FEATURES.CHANGES
export const FEATURES_NEEDED = FEATURES.ZERO | FEATURES.SHA256_64K

export const HelloMember = Type.Object({
  index: Type.Integer({ minimum: 1, maximum: 4_294_967_295 }),
  sizeBytes: Count,
  /** The first copy of this member reached the sender in full. */
  joined: Type.Boolean(),
  /** The sender's volume is one hole: a copy need not compare, and may skip what reads as zeroes. */
  blank: Type.Boolean(),
})

/** First message in both directions; the replica, which dials, speaks first. */
export const Hello = Type.Object({
  kind: Type.Literal('hello'),
  features: Type.Integer({ minimum: 0, maximum: 0xffff_ffff }),
  site: Type.String({ minLength: 1, maxLength: 64 }),
  record: OwnershipRecord,
  role: Type.Union([
    Type.Literal('none'),
    Type.Literal('writer'),
    Type.Literal('replica'),
    Type.Literal('fenced'),
  ]),
  bootId: Type.String({ maxLength: 64 }),
  runId: Type.String({ maxLength: 64 }),
  /** Port at which the sender's process takes heartbeats; left out: nowhere. */
  beats: Type.Optional(Type.Integer({ minimum: 1, maximum: 65_535 })),
  clean: Type.Boolean(),
  divergent: Type.Boolean(),
  consistent: Type.Boolean(),
  complete: Type.Optional(Type.Boolean()),
  exact: Type.Optional(Type.Boolean()),
  applied: Count,
  /** Epoch of the last rise that this side took part in. */
  baseEpoch: Count,
  unfit: Type.Union([Type.Literal('failed'), Type.Literal('no_space'), Type.Null()]),
  members: Type.Array(HelloMember, { maxItems: 1024 }),
})
export type Hello = Static<typeof Hello>

/** Instead of a hello, or at any later time: the link is not wanted. `record` is the sender's, when it has one. */
export const Refuse = Type.Object({
  kind: Type.Literal('refuse'),
  code: Type.String({ maxLength: 64 }),
  text: Type.String({ maxLength: 500 }),
  record: Type.Union([OwnershipRecord, Type.Null()]),
})
export type Refuse = Static<typeof Refuse>

export const LinkMessage = Type.Union([
  Refuse,
  Type.Object({ kind: Type.Literal('catch_up'), sequence: Count }),
  Type.Object({ kind: Type.Literal('copy_begin'), sequence: Count }),
  Type.Object({
    kind: Type.Literal('rise'),
    epoch: Count,
    members: Type.Array(Type.Integer({ minimum: 1 }), { maxItems: 1024 }),
  }),
  Type.Object({ kind: Type.Literal('risen'), epoch: Count }),
  Type.Object({ kind: Type.Literal('epoch'), record: OwnershipRecord }),
  Type.Object({ kind: Type.Literal('epoch_accepted'), epoch: Count }),
  /** Writer: the copy of this member is done; make it durable and remember. Replica: done. */
  Type.Object({ kind: Type.Literal('join'), member: Type.Integer({ minimum: 1 }) }),
  Type.Object({ kind: Type.Literal('joined'), member: Type.Integer({ minimum: 1 }) }),
])
export type LinkMessage = Static<typeof LinkMessage>

/** Longest JSON of one message: 1024 members fit with room to spare. */
export const MESSAGE_BYTES_MAX = 512 * 1024

export function encodeMessage(message: LinkMessage | Hello): Buffer {
  return Buffer.from(JSON.stringify(message))
}

/** undefined: not a message that this version understands; the link is to be dropped. */
export function decodeMessage(bytes: Uint8Array): LinkMessage | undefined {
  return decode(LinkMessage, bytes)
}

export function decodeHello(bytes: Uint8Array): Hello | Refuse | undefined {
  return decode(Hello, bytes) ?? decode(Refuse, bytes)
}

function decode<T extends TSchema>(schema: T, bytes: Uint8Array): Static<T> | undefined {
  if (bytes.length > MESSAGE_BYTES_MAX) return undefined
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8'))
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
  return Value.Check(schema, value) ? (value as Static<T>) : undefined
}
