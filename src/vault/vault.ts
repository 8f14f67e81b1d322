import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import { type BackupOptions, type BackupSession, beginBackup } from './backup/session.ts'
import { forgottenKey, readForgotten } from './collect/condemned.ts'
import { leaseKey } from './collect/leases.ts'
import { type CollectOptions, type Collected, collect } from './collect/collect.ts'
import { lockCheckpoint, lockedUntil } from './collect/locks.ts'
import {
  BACKUP_MISUSED,
  CHECKPOINT_LOCKED,
  CHECKPOINT_UNKNOWN,
  OBJECT_MISSING,
  VAULT_DAMAGED,
  VAULT_EXISTS,
  VAULT_KEY_REFUSED,
  VAULT_KEY_WRONG,
  VAULT_MISSING,
} from './faults.ts'
import {
  checkpointIdOf,
  decodeManifest,
  isRevokedSize,
  type Manifest,
  MANIFEST_PREFIX,
  manifestKey,
  REVOKED,
} from './format/manifest.ts'
import {
  withDigest,
  FORMAT_VERSION,
  HEADER_KEY,
  headerDigest,
  isBlockBytes,
  parseHeader,
  type VaultHeader,
} from './keys/header.ts'
import {
  type DataKey,
  KEYRING_PREFIX,
  keyringKey,
  type Keyring,
  newDataKey,
  putDataKey,
  readKeyring,
} from './keys/keyring.ts'
import {
  type ArgonCost,
  decodeSlot,
  encodeSlot,
  type KeySlot,
  makeSlot,
  openSlot,
  SLOT_PREFIX,
  slotKey,
  type VaultSecret,
} from './keys/slots.ts'
import { BLOCK_BYTES_DEFAULT } from './limits.ts'
import type { ObjectStore } from './object-store.ts'
import { type Checkpoint, createCheckpoint } from './restore/checkpoint.ts'
import { type VerifyOptions, type VerifyReport, verifyVault } from './verify/verify.ts'
import { randomBytes } from 'node:crypto'

/* A vault: checkpoints of volumes, deduplicated and encrypted, in a directory or a bucket. Readable with the store, one secret and this module. */

export interface VaultDeps {
  readonly store: ObjectStore
  readonly clock: Clock
}

export interface InitOptions {
  readonly blockBytes?: number
  readonly label?: string
  readonly argon?: ArgonCost
}

export interface Vault {
  readonly header: VaultHeader
  readonly store: ObjectStore
  /** Objects that could not be read while opening: key slots and data keys. */
  readonly damaged: readonly Fault[]
  /** Ids of all checkpoints that are not being deleted, in order. */
  checkpointIds(): Promise<string[]>
  /** Whether `checkpointIds` would tell this one: asked of two objects, however many there are. */
  holds(id: string): Promise<boolean>
  /** All checkpoints that are not being deleted, oldest first. Those whose manifest is damaged are told, not listed. */
  checkpoints(damaged?: (fault: Fault) => void): Promise<Manifest[]>
  /** Throws CHECKPOINT_UNKNOWN or VAULT_DAMAGED. */
  checkpoint(id: string): Promise<Checkpoint>
  begin(options?: BackupOptions): Promise<BackupSession>
  /** Ends a backup whose process is gone: from here on it cannot commit, and no collector waits for it. False: it has committed. */
  revoke(session: string): Promise<boolean>
  /** Deletes a checkpoint: it is not listed any more, and its space comes free with the next collections. Throws CHECKPOINT_LOCKED. */
  forget(id: string): Promise<void>
  /** Keeps a checkpoint until a time, at least. Never shortens. Answers the time that holds now. */
  lock(id: string, untilMs: number): Promise<number>
  /** End of the lock in ms since 1970, or 0. */
  lockedUntil(id: string): Promise<number>
  collect(options?: CollectOptions): Promise<Collected>
  verify(options?: VerifyOptions): Promise<VerifyReport>
  keys(): Promise<KeySlot[]>
  addKey(
    secret: VaultSecret,
    options?: { readonly label?: string; readonly argon?: ArgonCost },
  ): Promise<KeySlot>
  /** Throws VAULT_KEY_REFUSED for the last slot. */
  removeKey(id: string): Promise<void>
  /** From the next backup on, records are made with a new data key. Nothing is written again. */
  rotateDataKey(): Promise<void>
  /** Data keys, for a vault that is to take over checkpoints with their chunk names. */
  dataKeys(): readonly DataKey[]
  /** Takes over the data keys of another vault. */
  adoptDataKeys(keys: readonly DataKey[]): Promise<void>
}

/** Small objects fetched together; S3 answers each in some ten milliseconds. */
const READS_AT_A_TIME = 32

/** Makes a vault in an empty store. The header comes last: before it there is no vault. */
export async function initVault(
  { store, clock }: VaultDeps,
  secret: VaultSecret,
  options: InitOptions = {},
): Promise<Vault> {
  const blockBytes = options.blockBytes ?? BLOCK_BYTES_DEFAULT
  if (!isBlockBytes(blockBytes)) {
    throw new Fault(BACKUP_MISUSED, `making a vault: ${String(blockBytes)} is no block size`)
  }
  if ((await store.stat(HEADER_KEY)) !== undefined) {
    throw new Fault(VAULT_EXISTS, `making a vault at ${store.name}`)
  }
  const created = new Date(clock.wallMs()).toISOString()
  const header: VaultHeader = {
    format: 'holdfast-vault',
    version: FORMAT_VERSION,
    id: newId(),
    block_bytes: blockBytes,
    hash: 'blake3-keyed',
    cipher: 'aes-256-gcm',
    compression: 'zstd',
    created,
  }
  const master = randomBytes(32)
  const key = newDataKey(header.id)
  await putDataKey(store, master, key)
  const slot = await putSlot(store, master, secret, header, created, options)
  const ours = new Set([keyringKey(key.id), slotKey(slot.id)])
  if (!(await store.put(HEADER_KEY, withDigest(header), { ifAbsent: true }))) {
    for (const object of ours) await store.delete(object)
    throw new Fault(VAULT_EXISTS, `making a vault at ${store.name}`)
  }
  // What attempts left behind that did not get this far would show as damaged for ever.
  for (const prefix of [KEYRING_PREFIX, SLOT_PREFIX]) {
    for await (const object of store.list(prefix)) {
      if (!ours.has(object.key)) await store.delete(object.key)
    }
  }
  return await openVault({ store, clock }, secret)
}

/** Throws VAULT_MISSING, VAULT_KEY_WRONG, VAULT_DAMAGED or VAULT_VERSION. */
export async function openVault({ store, clock }: VaultDeps, secret: VaultSecret): Promise<Vault> {
  const header = await readHeader(store)
  const damaged: Fault[] = []
  const master = await unwrapMaster(store, header, secret, damaged)
  const keyring = await readKeyring(store, master, header.id, (fault) => damaged.push(fault))
  return createVault({ store, clock }, header, master, keyring, damaged)
}

async function readHeader(store: ObjectStore): Promise<VaultHeader> {
  try {
    return parseHeader(await store.get(HEADER_KEY))
  } catch (error) {
    if (isFault(error, OBJECT_MISSING)) {
      throw new Fault(VAULT_MISSING, `opening a vault at ${store.name}`, {}, error)
    }
    throw error
  }
}

async function readSlots(store: ObjectStore, damaged: (fault: Fault) => void): Promise<KeySlot[]> {
  const slots: KeySlot[] = []
  for await (const { key } of store.list(SLOT_PREFIX)) {
    try {
      slots.push(decodeSlot(await store.get(key), key))
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      damaged(error)
    }
  }
  return slots.toSorted((a, b) => (a.created < b.created ? -1 : 1))
}

async function unwrapMaster(
  store: ObjectStore,
  header: VaultHeader,
  secret: VaultSecret,
  damaged: Fault[],
): Promise<Buffer> {
  for (const slot of await readSlots(store, (fault) => damaged.push(fault))) {
    const master = await openSlot(slot, secret, headerDigest(header))
    if (master !== undefined) return master
  }
  const also = damaged.map((fault) => ` ${fault.message}`).join('')
  throw new Fault(VAULT_KEY_WRONG, `opening the vault at ${store.name}${also}`)
}

async function putSlot(
  store: ObjectStore,
  master: Buffer,
  secret: VaultSecret,
  header: VaultHeader,
  created: string,
  { label = '', argon }: { readonly label?: string; readonly argon?: ArgonCost },
): Promise<KeySlot> {
  const slot = await makeSlot(master, secret, {
    label,
    created,
    binding: headerDigest(header),
    ...(argon === undefined ? {} : { argon }),
  })
  await store.put(slotKey(slot.id), encodeSlot(slot), { ifAbsent: true })
  return slot
}

function createVault(
  { store, clock }: VaultDeps,
  header: VaultHeader,
  master: Buffer,
  opened: Keyring,
  damaged: readonly Fault[],
): Vault {
  let keyring = opened
  const now = () => new Date(clock.wallMs()).toISOString()
  const deps = () => ({ store, keyring, clock, blockBytes: header.block_bytes })

  async function manifestOf(id: string): Promise<Manifest> {
    let object: Buffer
    try {
      object = await store.get(manifestKey(id))
    } catch (error) {
      if (!isFault(error, OBJECT_MISSING)) throw error
      throw new Fault(CHECKPOINT_UNKNOWN, `looking for checkpoint ${id}`, { id }, error)
    }
    if (!object.equals(REVOKED)) return decodeManifest(keyring, id, object)
    throw new Fault(CHECKPOINT_UNKNOWN, `looking for checkpoint ${id}: it was revoked`, { id })
  }

  async function checkpointIds(): Promise<string[]> {
    const forgotten = await readForgotten(store)
    const ids: string[] = []
    for await (const { key, bytes } of store.list(MANIFEST_PREFIX)) {
      const id = checkpointIdOf(key)
      if (id !== undefined && !isRevokedSize(bytes) && !forgotten.has(id)) ids.push(id)
    }
    return ids.toSorted()
  }

  return {
    header,
    store,
    damaged,
    checkpointIds,
    async holds(id) {
      const manifest = await store.stat(manifestKey(id))
      if (manifest === undefined || isRevokedSize(manifest.bytes)) return false
      return (await store.stat(forgottenKey(id))) === undefined
    },
    async checkpoints(damagedManifest) {
      const ids = await checkpointIds()
      const all: Manifest[] = []
      const read = async (id: string) => {
        try {
          all.push(await manifestOf(id))
        } catch (error) {
          if (isFault(error, CHECKPOINT_UNKNOWN)) return // deleted meanwhile
          if (!(error instanceof Fault) || damagedManifest === undefined) throw error
          damagedManifest(error)
        }
      }
      for (let at = 0; at < ids.length; at += READS_AT_A_TIME) {
        await Promise.all(ids.slice(at, at + READS_AT_A_TIME).map(read))
      }
      return all.toSorted((a, b) => a.createdMs - b.createdMs || (a.id < b.id ? -1 : 1))
    },
    async checkpoint(id) {
      return createCheckpoint(store, keyring, await manifestOf(id))
    },
    async begin(options = {}) {
      return await beginBackup(deps(), options)
    },
    async revoke(session) {
      const key = manifestKey(session)
      // Whoever comes first at this key decides.
      const first = await store.put(key, REVOKED, { ifAbsent: true })
      await store.delete(leaseKey(session))
      return first || isRevokedSize((await store.stat(key))?.bytes ?? 0)
    },
    async forget(id) {
      try {
        await manifestOf(id)
      } catch (error) {
        // There is no other way to be rid of it, and nothing is collected as long as it is there.
        if (!isFault(error, VAULT_DAMAGED)) throw error
      }
      await refuseLocked(id)
      await store.put(forgottenKey(id), new Uint8Array(0))
      try {
        // A lock that came in between wins.
        await refuseLocked(id)
      } catch (error) {
        await store.delete(forgottenKey(id))
        throw error
      }
    },
    async lock(id, untilMs) {
      const manifest = await manifestOf(id)
      await lockCheckpoint(deps(), manifest, untilMs)
      if ((await store.stat(forgottenKey(id))) !== undefined) {
        throw new Fault(CHECKPOINT_UNKNOWN, `locking ${id}: it is being deleted`, { id })
      }
      await manifestOf(id)
      return await lockedUntil(store, id)
    },
    lockedUntil: (id) => lockedUntil(store, id),
    collect: (options = {}) => collect(deps(), options),
    verify: (options = {}) => verifyVault(deps(), options),
    keys: () => readSlots(store, () => undefined),
    addKey: (secret, options = {}) => putSlot(store, master, secret, header, now(), options),
    async removeKey(id) {
      const slots = await readSlots(store, () => undefined)
      if (!slots.some((slot) => slot.id === id)) {
        throw new Fault(VAULT_KEY_REFUSED, `removing key ${id}: there is no such slot`)
      }
      if (slots.length === 1) {
        throw new Fault(VAULT_KEY_REFUSED, `removing key ${id}: it is the only one`)
      }
      await store.delete(slotKey(id))
    },
    async rotateDataKey() {
      await putDataKey(store, master, newDataKey(header.id, keyring.current))
      keyring = await readKeyring(store, master, header.id, () => undefined)
    },
    dataKeys: () => keyring.all(),
    async adoptDataKeys(keys) {
      for (const key of keys) await putDataKey(store, master, key)
      keyring = await readKeyring(store, master, header.id, () => undefined)
    },
  }

  async function refuseLocked(id: string): Promise<void> {
    const untilMs = await lockedUntil(store, id)
    if (untilMs <= clock.wallMs()) return
    throw new Fault(
      CHECKPOINT_LOCKED,
      `deleting checkpoint ${id}, which is locked until ${new Date(untilMs).toISOString()}`,
      { id, untilMs },
    )
  }
}
