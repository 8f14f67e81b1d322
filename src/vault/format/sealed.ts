import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { Fault } from '#base/fault.ts'
import { VAULT_DAMAGED, VAULT_VERSION } from '../faults.ts'
import { OBJECT_BYTES_MAX } from '../limits.ts'

/* The envelope of everything that is not a record in a pack: manifests, indexes, pack footers, data keys ... (docs/formats/vault.md,
 * "Sealed objects").
 *
 * Each sealing draws a salt of 256 bits and derives a key of its own from it, so one nonce, zero, is used once per key. The
 * header and the object's name are authenticated: an object that was moved to another name, or whose header was changed, does not open. */

const MAGIC = Buffer.from('HFSEALED')
const VERSION = 1
export const SEALED_HEADER_BYTES = 60
const TAG_BYTES = 16
const NONCE = Buffer.alloc(12)

export type SealedKind =
  | 'data-key'
  | 'footer'
  | 'index'
  | 'manifest'
  | 'moves'
  | 'condemned'
  | 'waiting'

const KIND_NUMBERS: Record<SealedKind, number> = {
  'data-key': 1,
  footer: 2,
  index: 3,
  manifest: 4,
  moves: 5,
  condemned: 6,
  waiting: 7,
}

/** A key of 32 bytes and the id (16 bytes) under which it is found again. */
export interface SealingKey {
  readonly id: Buffer
  readonly secret: Buffer
}

export const derive = (secret: Buffer, salt: Uint8Array, purpose: string): Buffer =>
  Buffer.from(hkdfSync('sha256', secret, salt, `holdfast vault ${purpose}`, 32))

/** Encrypts `content` for the object `name`. */
export function seal(key: SealingKey, kind: SealedKind, name: string, content: Uint8Array): Buffer {
  const header = Buffer.alloc(SEALED_HEADER_BYTES)
  MAGIC.copy(header)
  header.writeUInt8(VERSION, 8)
  header.writeUInt8(KIND_NUMBERS[kind], 9)
  key.id.copy(header, 12)
  randomBytes(32).copy(header, 28)
  const cipher = createCipheriv('aes-256-gcm', sealKey(key.secret, header, kind), NONCE)
  cipher.setAAD(Buffer.concat([header, Buffer.from(name)]))
  const body = cipher.update(zstdCompressSync(content))
  cipher.final()
  return Buffer.concat([header, body, cipher.getAuthTag()])
}

/** Which key opens it. Throws VAULT_DAMAGED when it is not a sealed object of this kind. */
export function sealedKeyId(kind: SealedKind, name: string, object: Buffer): Buffer {
  if (object.length < SEALED_HEADER_BYTES + TAG_BYTES || !object.subarray(0, 8).equals(MAGIC)) {
    throw new Fault(VAULT_DAMAGED, `opening ${name}: no ${kind} begins like this`, {
      object: name,
      kind,
    })
  }
  if (object.readUInt8(8) > VERSION) {
    throw new Fault(VAULT_VERSION, `opening ${name}`, { object: name, version: object[8] })
  }
  if (object.readUInt8(9) !== KIND_NUMBERS[kind]) {
    throw new Fault(VAULT_DAMAGED, `opening ${name}: it is not a ${kind}`, { object: name, kind })
  }
  return object.subarray(12, 28)
}

/** Throws VAULT_DAMAGED when a single bit differs, or it is another object's content. */
export function unseal(key: SealingKey, kind: SealedKind, name: string, object: Buffer): Buffer {
  sealedKeyId(kind, name, object)
  const header = object.subarray(0, SEALED_HEADER_BYTES)
  try {
    const secret = sealKey(key.secret, header, kind)
    const decipher = createDecipheriv('aes-256-gcm', secret, NONCE, { authTagLength: TAG_BYTES })
    decipher.setAAD(Buffer.concat([header, Buffer.from(name)]))
    decipher.setAuthTag(object.subarray(object.length - TAG_BYTES))
    const body = decipher.update(object.subarray(SEALED_HEADER_BYTES, object.length - TAG_BYTES))
    decipher.final()
    return zstdDecompressSync(body, { maxOutputLength: OBJECT_BYTES_MAX })
  } catch (error) {
    throw new Fault(
      VAULT_DAMAGED,
      `opening ${name}: the ${kind} does not authenticate`,
      { object: name, kind },
      error,
    )
  }
}

const sealKey = (secret: Buffer, header: Buffer, kind: SealedKind): Buffer =>
  derive(secret, header.subarray(28, 60), `sealed ${kind}`)
