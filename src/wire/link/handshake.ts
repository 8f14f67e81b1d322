import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'

/* The first bytes of a link, before any message.
 *
 *     dialler                                   listener
 *     preface (flags, nonce) ───────────────►
 *                            ◄─────────────── preface (flags, nonce)
 *     keyed only:
 *     proof(dialler) ────────────────────────►  checks; hangs up without a word if it is wrong
 *                            ◄─────────────── proof(listener); the dialler checks
 *     u32 length, hello ─────────────────────►
 *                            ◄─────────────── u32 length, hello or refuse
 *     then frames (frame.ts)
 *
 * Over TLS certificates say who is who. The keyed variant is for links that are not encrypted: it proves that the peer
 * knows the cluster's link key, and nothing about the bytes that follow. The listener proves last, so that a stranger who
 * dials learns nothing that could be tried against weak keys.
 */

export const PREFACE_BYTES = 40
export const PROOF_BYTES = 32
export const NONCE_BYTES = 32
const MAGIC = 0x48464c4b
export const LINK_VERSION = 1
const KEYED = 1

export interface Preface {
  readonly version: number
  readonly keyed: boolean
  readonly nonce: Buffer
}

export function encodePreface({ version, keyed, nonce }: Preface): Buffer {
  const buf = Buffer.alloc(PREFACE_BYTES)
  buf.writeUInt32BE(MAGIC, 0)
  buf.writeUInt16BE(version, 4)
  buf.writeUInt16BE(keyed ? KEYED : 0, 6)
  nonce.copy(buf, 8)
  return buf
}

/** undefined: not a link of ours. The version is for the caller to judge. */
export function decodePreface(buf: Buffer): Preface | undefined {
  if (buf.length < PREFACE_BYTES || buf.readUInt32BE(0) !== MAGIC) return undefined
  const flags = buf.readUInt16BE(6)
  if ((flags & ~KEYED) !== 0) return undefined
  return {
    version: buf.readUInt16BE(4),
    keyed: (flags & KEYED) !== 0,
    nonce: Buffer.from(buf.subarray(8, PREFACE_BYTES)),
  }
}

/** The key of the keyed variant, derived so that the cluster's secret can serve other purposes too. */
export function linkKey(secret: Uint8Array): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', 'holdfast link v1', 32))
}

export function proof(
  key: Uint8Array,
  by: 'dialler' | 'listener',
  diallerNonce: Uint8Array,
  listenerNonce: Uint8Array,
): Buffer {
  return createHmac('sha256', key)
    .update(`holdfast link v1 ${by}\n`)
    .update(diallerNonce)
    .update(listenerNonce)
    .digest()
}

export function proves(expected: Uint8Array, given: Uint8Array): boolean {
  return expected.length === given.length && timingSafeEqual(expected, given)
}
