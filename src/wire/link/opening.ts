import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'

/* How two agents open a connection to each other, whatever it is for: a preface each, and on a connection that is not
 * encrypted a proof each that the other knows the cluster's secret. Every purpose has a magic and a label of its own, so that
 * no proof of one can serve for another. All numbers are big-endian.
 *
 *     0    magic u32
 *     4    version u16
 *     6    flags u16: 1 keyed
 *     8    nonce, 32 bytes
 */

export const NONCE_BYTES = 32
export const PREFACE_BYTES = 8 + NONCE_BYTES
export const PROOF_BYTES = 32
const KEYED = 1

export interface Preface {
  readonly version: number
  readonly keyed: boolean
  readonly nonce: Buffer
}

export interface Opening {
  readonly encodePreface: (preface: Preface) => Buffer
  /** undefined: something else speaks there. The version is for the caller to judge. */
  readonly decodePreface: (bytes: Buffer) => Preface | undefined
  /** The key of the keyed variant, derived so that the cluster's secret can serve other purposes too. */
  readonly deriveKey: (secret: Uint8Array) => Buffer
  readonly proof: (
    key: Uint8Array,
    by: 'dialler' | 'listener',
    diallerNonce: Uint8Array,
    listenerNonce: Uint8Array,
  ) => Buffer
}

export const openingOf = (magic: number, label: string): Opening => ({
  encodePreface: ({ version, keyed, nonce }) => {
    const bytes = Buffer.alloc(PREFACE_BYTES)
    bytes.writeUInt32BE(magic, 0)
    bytes.writeUInt16BE(version, 4)
    bytes.writeUInt16BE(keyed ? KEYED : 0, 6)
    nonce.copy(bytes, 8)
    return bytes
  },

  decodePreface: (bytes) => {
    if (bytes.length < PREFACE_BYTES || bytes.readUInt32BE(0) !== magic) return undefined
    const flags = bytes.readUInt16BE(6)
    if ((flags & ~KEYED) !== 0) return undefined
    return {
      version: bytes.readUInt16BE(4),
      keyed: (flags & KEYED) !== 0,
      nonce: Buffer.from(bytes.subarray(8, PREFACE_BYTES)),
    }
  },

  deriveKey: (secret) => Buffer.from(hkdfSync('sha256', secret, '', label, PROOF_BYTES)),

  proof: (key, by, diallerNonce, listenerNonce) =>
    createHmac('sha256', key)
      .update(`${label} ${by}\n`)
      .update(diallerNonce)
      .update(listenerNonce)
      .digest(),
})

export function proves(expected: Uint8Array, given: Uint8Array): boolean {
  return expected.length === given.length && timingSafeEqual(expected, given)
}
