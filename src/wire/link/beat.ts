import { openingOf } from './opening.ts'

/* What two agents send each other to say that they live. docs/formats/heartbeat.md has the tables.
 *
 *     dialler                                   listener
 *     preface (flags, nonce) ───────────────►
 *                            ◄─────────────── preface (flags, nonce)
 *     keyed only:
 *     proof(dialler) ────────────────────────►  checks; hangs up without a word if it is wrong
 *                            ◄─────────────── proof(listener); the dialler checks
 *     greeting ──────────────────────────────►
 *                            ◄─────────────── greeting
 *     then beats in both directions, for ever
 *
 * The opening is the link's (opening.ts) under another magic and another label.
 */

export const BEAT_VERSION = 1

export const {
  encodePreface: encodeBeatPreface,
  decodePreface: decodeBeatPreface,
  deriveKey: beatKey,
  proof: beatProof,
} = openingOf(0x48464254, 'holdfast beat v1')

// -- greeting -----------------------------------------------------------------------------------------------------------

/** Who beats. `run_id` is what links know the process by. Texts of 1 to 64 characters. */
export interface BeatGreeting {
  readonly site: string
  readonly agent: string
  readonly run_id: string
  readonly boot_id: string
}

const TEXT_MAX = 64

/** Longest JSON of a greeting. */
export const GREETING_BYTES_MAX = 1024

/** With its length in front. */
export function encodeGreeting(greeting: BeatGreeting): Buffer {
  const body = Buffer.from(JSON.stringify(greeting))
  const head = Buffer.alloc(2)
  head.writeUInt16BE(body.length, 0)
  return Buffer.concat([head, body])
}

/** The JSON without its length; undefined: not understood. */
export function decodeGreeting(bytes: Buffer): BeatGreeting | undefined {
  let value: unknown
  try {
    value = JSON.parse(bytes.toString('utf8'))
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
  return isGreeting(value) ? value : undefined
}

/** By hand: the schema library would be most of what the heartbeat thread loads. */
function isGreeting(value: unknown): value is BeatGreeting {
  if (typeof value !== 'object' || value === null) return false
  const texts = value as Record<string, unknown>
  return ['site', 'agent', 'run_id', 'boot_id'].every((name) => {
    const text = texts[name]
    return typeof text === 'string' && text.length > 0 && text.length <= TEXT_MAX
  })
}

// -- beats --------------------------------------------------------------------------------------------------------------

export const BEAT_BYTES = 16
const BEAT_MAGIC = 0x4842
/** Longer times are sent as this one. */
export const BEAT_MS_MAX = 0xffff_ffff

export interface Beat {
  /** 1, 2, 3 ... on each connection. */
  readonly number: number
  /** For how long the sender's data plane has not moved, ms. */
  readonly stuckMs: number
  /** How long ago the sender heard a beat of the receiver, ms; BEAT_MS_MAX: never on this connection. */
  readonly heardMs: number
}

export function encodeBeat({ number, stuckMs, heardMs }: Beat): Buffer {
  const bytes = Buffer.alloc(BEAT_BYTES)
  bytes.writeUInt16BE(BEAT_MAGIC, 0)
  bytes.writeUInt32BE(number, 4)
  bytes.writeUInt32BE(Math.min(BEAT_MS_MAX, Math.max(0, Math.round(stuckMs))), 8)
  bytes.writeUInt32BE(Math.min(BEAT_MS_MAX, Math.max(0, Math.round(heardMs))), 12)
  return bytes
}

/** undefined: no beat; the connection is to be dropped. */
export function decodeBeat(bytes: Buffer): Beat | undefined {
  if (bytes.length < BEAT_BYTES || bytes.readUInt16BE(0) !== BEAT_MAGIC) return undefined
  return {
    number: bytes.readUInt32BE(4),
    stuckMs: bytes.readUInt32BE(8),
    heardMs: bytes.readUInt32BE(12),
  }
}
