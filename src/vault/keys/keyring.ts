import { randomBytes } from 'node:crypto'
import { Fault } from '#base/fault.ts'
import { derive, seal, type SealingKey, sealedKeyId, unseal } from '../format/sealed.ts'
import { VAULT_DAMAGED } from '../faults.ts'
import type { ObjectStore } from '../object-store.ts'

/* The data keys of a vault, each an object of its own, sealed by the master key. New records use the newest of the vault's own; older ones,
 * and those that came with checkpoints of other vaults, stay for reading. All of one origin share the key that chunks are named by, so that a rotation does
 * not end deduplication. */

export const KEYRING_PREFIX = 'keyring/'

export interface DataKey {
  /** 16 bytes. */
  readonly id: Buffer
  /** Everything encrypted under this key is derived from it; 32 bytes. */
  readonly secret: Buffer
  /** Chunks are named by it; 32 bytes. */
  readonly naming: Buffer
  /** Rises with each rotation. */
  readonly generation: number
  /** Vault that made it. */
  readonly origin: string
}

interface StoredDataKey {
  readonly id: string
  readonly secret: string
  readonly naming: string
  readonly generation: number
  readonly origin: string
}

export interface Keyring {
  /** The one that new records are made with. */
  readonly current: DataKey
  /** Throws VAULT_DAMAGED, naming `object`, when the key is not in the keyring. */
  byId(id: Buffer, object: string): DataKey
  all(): readonly DataKey[]
}

export const newDataKey = (origin: string, previous?: DataKey): DataKey => ({
  id: randomBytes(16),
  secret: randomBytes(32),
  naming: previous?.naming ?? randomBytes(32),
  generation: (previous?.generation ?? 0) + 1,
  origin,
})

const masterKey = (master: Buffer): SealingKey => ({ id: Buffer.alloc(16), secret: master })

export const keyringKey = (id: Buffer): string => `${KEYRING_PREFIX}${id.toString('hex')}`

/** Durable when it settles. A key that is there already is fine. */
export async function putDataKey(store: ObjectStore, master: Buffer, key: DataKey): Promise<void> {
  const name = keyringKey(key.id)
  const stored: StoredDataKey = {
    id: key.id.toString('hex'),
    secret: key.secret.toString('base64'),
    naming: key.naming.toString('base64'),
    generation: key.generation,
    origin: key.origin,
  }
  const content = Buffer.from(JSON.stringify(stored))
  await store.put(name, seal(masterKey(master), 'data-key', name, content), { ifAbsent: true })
}

/** Reads all data keys. `damaged` is told of those that cannot be read; without any of `origin` it throws. */
export async function readKeyring(
  store: ObjectStore,
  master: Buffer,
  origin: string,
  damaged: (fault: Fault) => void,
): Promise<Keyring> {
  const keys: DataKey[] = []
  const unreadable: Fault[] = []
  for await (const { key } of store.list(KEYRING_PREFIX)) {
    try {
      const bytes = unseal(masterKey(master), 'data-key', key, await store.get(key))
      const stored = JSON.parse(bytes.toString('utf8')) as StoredDataKey
      keys.push({
        id: Buffer.from(stored.id, 'hex'),
        secret: Buffer.from(stored.secret, 'base64'),
        naming: Buffer.from(stored.naming, 'base64'),
        generation: stored.generation,
        origin: stored.origin,
      })
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      unreadable.push(error)
      damaged(error)
    }
  }
  const own = keys
    .filter((key) => key.origin === origin)
    // Two rotations at once make two keys of one generation; all processes choose the same of them.
    .toSorted((a, b) => b.generation - a.generation || a.id.compare(b.id))
  const current = own[0]
  if (current === undefined) {
    const names = unreadable.map(({ detail }) => String(detail['object'])).join(', ')
    throw new Fault(
      VAULT_DAMAGED,
      `opening the vault: none of its own data keys is readable (${names})`,
      { object: KEYRING_PREFIX },
    )
  }
  const byHex = new Map(keys.map((key) => [key.id.toString('hex'), key]))
  return {
    current,
    byId(id, object) {
      const found = byHex.get(id.toString('hex'))
      if (found === undefined) {
        throw new Fault(
          VAULT_DAMAGED,
          `opening ${object}: it needs ${KEYRING_PREFIX}${id.toString('hex')}, which is missing or damaged`,
          { object, key: keyringKey(id) },
        )
      }
      return found
    },
    all: () => keys,
  }
}

/** Opens a sealed object of the vault with the data key that it names. */
export function unsealWith(
  keyring: Keyring,
  kind: Parameters<typeof unseal>[1],
  name: string,
  object: Buffer,
): Buffer {
  const { id, secret } = keyring.byId(sealedKeyId(kind, name, object), name)
  return unseal({ id, secret }, kind, name, object)
}

export function sealWith(
  keyring: Keyring,
  kind: Parameters<typeof seal>[1],
  name: string,
  content: Uint8Array,
): Buffer {
  return seal(keyring.current, kind, name, content)
}

/** Names blocks; nodes have names of their own, so that a block that looks like a node is not taken for one. */
export const blockNaming = (key: DataKey): Buffer => derive(key.naming, Buffer.alloc(0), 'blocks')
export const nodeNaming = (key: DataKey): Buffer => derive(key.naming, Buffer.alloc(0), 'nodes')
export const recordKey = (key: DataKey, salt: Buffer): Buffer => derive(key.secret, salt, 'records')
