import { openingOf } from './opening.ts'

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

export const LINK_VERSION = 1

/** See opening.ts. */
export const {
  encodePreface,
  decodePreface,
  deriveKey: linkKey,
  proof,
} = openingOf(0x48464c4b, 'holdfast link v1')
