import { createHash } from 'node:crypto'
import { Fault } from '#base/fault.ts'
import { VAULT_DAMAGED, VAULT_VERSION } from '../faults.ts'
import { BLOCK_BYTES_MAX, BLOCK_BYTES_MIN } from '../limits.ts'

/* `vault.json`: what one must know before any key. Plain text; its digest is bound into every key slot, so a changed header shows. */

export const HEADER_KEY = 'vault.json'
export const FORMAT_VERSION = 1

export interface VaultHeader {
  readonly format: 'holdfast-vault'
  readonly version: number
  /** UUID. */
  readonly id: string
  readonly block_bytes: number
  readonly hash: 'blake3-keyed'
  readonly cipher: 'aes-256-gcm'
  readonly compression: 'zstd'
  readonly created: string
}

/** Text of a JSON object with a digest of its other members at its end, so that damage and a wrong key can be told apart. */
export function withDigest(value: object): Buffer {
  const digest = digestOf(value)
  return Buffer.from(`${JSON.stringify({ ...value, digest }, null, 1)}\n`)
}

/** Throws VAULT_DAMAGED when the digest does not fit. */
export function readDigested(bytes: Buffer, name: string): Record<string, unknown> {
  let value: Record<string, unknown>
  try {
    value = JSON.parse(bytes.toString('utf8')) as Record<string, unknown>
  } catch (error) {
    throw new Fault(VAULT_DAMAGED, `reading ${name}: no JSON`, { object: name }, error)
  }
  const { digest, ...rest } = value
  if (digest !== digestOf(rest)) {
    throw new Fault(VAULT_DAMAGED, `reading ${name}: its digest does not fit`, { object: name })
  }
  return rest
}

const digestOf = (value: object): string =>
  createHash('sha256').update(JSON.stringify(value)).digest('hex')

export const headerDigest = (header: VaultHeader): string => digestOf(header)

export function parseHeader(bytes: Buffer): VaultHeader {
  const value = readDigested(bytes, HEADER_KEY)
  if (value['format'] !== 'holdfast-vault' || typeof value['version'] !== 'number') {
    throw new Fault(VAULT_DAMAGED, `reading ${HEADER_KEY}: not a vault`, { object: HEADER_KEY })
  }
  const header = value as unknown as VaultHeader
  const known =
    header.hash === 'blake3-keyed' &&
    header.cipher === 'aes-256-gcm' &&
    header.compression === 'zstd'
  if (header.version > FORMAT_VERSION || !known) {
    throw new Fault(VAULT_VERSION, `opening a vault of version ${header.version}`, { ...value })
  }
  if (!isBlockBytes(header.block_bytes)) {
    throw new Fault(VAULT_DAMAGED, `reading ${HEADER_KEY}: no block size`, { object: HEADER_KEY })
  }
  return header
}

/** A power of two within the limits. */
export const isBlockBytes = (bytes: unknown): bytes is number =>
  typeof bytes === 'number' &&
  bytes >= BLOCK_BYTES_MIN &&
  bytes <= BLOCK_BYTES_MAX &&
  Number.isInteger(Math.log2(bytes))
