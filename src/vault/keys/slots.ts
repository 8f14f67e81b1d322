import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { hashRaw } from '@node-rs/argon2'
import { Fault } from '#base/fault.ts'
import { VAULT_DAMAGED } from '../faults.ts'
import { derive } from '../format/sealed.ts'
import { readDigested, withDigest } from './header.ts'

/* A key slot holds the vault's master key, wrapped by what one user knows or has. Slots come and go without any data being touched. */

export type VaultSecret =
  | { readonly kind: 'passphrase'; readonly passphrase: string }
  /** Content of a key file, 32 bytes at least. */
  | { readonly kind: 'key-file'; readonly content: Buffer }

export const KEY_FILE_BYTES_MIN = 32
/** Larger ones are a mistake: somebody named the wrong file. */
export const KEY_FILE_BYTES_MAX = 64 * 1024

/**
 * argon2id, the second recommendation of RFC 9106, section 4: 64 MiB, three passes, four lanes, which cores share. A guess takes a tenth of a second or two. Stored
 * with each slot, so they can be raised later.
 */
export const ARGON_DEFAULT: ArgonCost = { memory_kib: 64 * 1024, passes: 3, lanes: 4 }

export interface ArgonCost {
  readonly memory_kib: number
  readonly passes: number
  readonly lanes: number
}

/** The library's enum is not there at run time. */
const ARGON2ID = 2

/** What a slot's own parameters may ask of whoever opens it: a forged slot must not eat the machine. */
const ARGON_MAX: ArgonCost = { memory_kib: 4 * 1024 * 1024, passes: 64, lanes: 64 }

export interface KeySlot {
  readonly version: 1
  /** 16 hex characters, also the object's name. */
  readonly id: string
  readonly kind: VaultSecret['kind']
  readonly label: string
  readonly created: string
  /** base64 */
  readonly salt: string
  readonly argon2id?: ArgonCost
  readonly nonce: string
  /** base64 of the encrypted master key and its tag. */
  readonly wrapped: string
}

export const SLOT_PREFIX = 'keys/'
export const slotKey = (id: string): string => `${SLOT_PREFIX}${id}.json`

export const encodeSlot = (slot: KeySlot): Buffer => withDigest(slot)

export function decodeSlot(bytes: Buffer, name: string): KeySlot {
  const slot = readDigested(bytes, name) as unknown as KeySlot
  if (slotKey(slot.id) === name) return slot
  // Whoever removes a key by its id would remove the other one.
  throw new Fault(VAULT_DAMAGED, `reading ${name}: it is of another slot`, { object: name })
}

export interface SlotSettings {
  readonly label: string
  readonly created: string
  /** Digest of the vault's header. */
  readonly binding: string
  readonly argon?: ArgonCost
}

export async function makeSlot(
  master: Buffer,
  secret: VaultSecret,
  { label, created, binding, argon = ARGON_DEFAULT }: SlotSettings,
): Promise<KeySlot> {
  const salt = randomBytes(32)
  const nonce = randomBytes(12)
  const open = {
    version: 1 as const,
    id: randomBytes(8).toString('hex'),
    kind: secret.kind,
    label,
    created,
    salt: salt.toString('base64'),
    ...(secret.kind === 'passphrase' ? { argon2id: argon } : {}),
    nonce: nonce.toString('base64'),
  }
  const cipher = createCipheriv('aes-256-gcm', await wrappingKey(secret, salt, argon), nonce)
  cipher.setAAD(bound(open, binding))
  const wrapped = Buffer.concat([cipher.update(master), cipher.final(), cipher.getAuthTag()])
  return { ...open, wrapped: wrapped.toString('base64') }
}

/** The master key, or undefined when this secret is not the slot's. */
export async function openSlot(
  slot: KeySlot,
  secret: VaultSecret,
  binding: string,
): Promise<Buffer | undefined> {
  if (slot.kind !== secret.kind) return undefined
  const cost = slot.argon2id ?? ARGON_DEFAULT
  if (
    !(cost.memory_kib <= ARGON_MAX.memory_kib) ||
    !(cost.passes <= ARGON_MAX.passes) ||
    !(cost.lanes <= ARGON_MAX.lanes)
  ) {
    return undefined
  }
  const { wrapped, ...open } = slot
  const bytes = Buffer.from(wrapped, 'base64')
  if (bytes.length !== 48) return undefined
  const key = await wrappingKey(secret, Buffer.from(slot.salt, 'base64'), cost)
  const decipher = createDecipheriv('aes-256-gcm', key, Buffer.from(slot.nonce, 'base64'), {
    authTagLength: 16,
  })
  decipher.setAAD(bound(open, binding))
  decipher.setAuthTag(bytes.subarray(32))
  const master = decipher.update(bytes.subarray(0, 32))
  try {
    decipher.final()
  } catch {
    return undefined // another passphrase or file
  }
  return master
}

const bound = (open: object, binding: string): Buffer =>
  Buffer.from(`${JSON.stringify(open)}${binding}`)

async function wrappingKey(secret: VaultSecret, salt: Buffer, cost: ArgonCost): Promise<Buffer> {
  if (secret.kind === 'key-file') return derive(secret.content, salt, 'key file')
  return await hashRaw(secret.passphrase.normalize('NFC'), {
    algorithm: ARGON2ID,
    salt,
    memoryCost: cost.memory_kib,
    timeCost: cost.passes,
    parallelism: cost.lanes,
    outputLen: 32,
  })
}
