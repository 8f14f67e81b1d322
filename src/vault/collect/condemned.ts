import { randomBytes } from 'node:crypto'
import { isFault } from '#base/fault.ts'
import { VAULT_DAMAGED } from '../faults.ts'
import { type Keyring, sealWith, unsealWith } from '../keys/keyring.ts'
import { ifPresent, type ObjectStore } from '../object-store.ts'

/* What the collector is going to delete, said before it does. A session reads this after it has put its lease, and builds on none of it. */

export const CONDEMNED_PREFIX = 'condemned/'
export const WAITING_PREFIX = 'waiting/'
/** An empty object per checkpoint that somebody deleted; its manifest goes when no session can build on it any more. */
export const FORGOTTEN_PREFIX = 'forgotten/'
export const forgottenKey = (checkpoint: string): string => `${FORGOTTEN_PREFIX}${checkpoint}`

export interface Condemned {
  readonly key: string
  /** Hex ids. */
  readonly packs: readonly string[]
  readonly manifests: readonly string[]
}

export async function putCondemned(
  store: ObjectStore,
  keyring: Keyring,
  content: Omit<Condemned, 'key'>,
): Promise<Condemned> {
  const key = `${CONDEMNED_PREFIX}${randomBytes(16).toString('hex')}`
  const bytes = Buffer.from(JSON.stringify(content))
  await store.put(key, sealWith(keyring, 'condemned', key, bytes), { ifAbsent: true })
  return { key, ...content }
}

/** Throws VAULT_DAMAGED: without one of these lists it is not known what may be built on. */
export async function readCondemned(store: ObjectStore, keyring: Keyring): Promise<Condemned[]> {
  const all: Condemned[] = []
  for await (const { key } of store.list(CONDEMNED_PREFIX)) {
    const list = await readList(store, keyring, key)
    if (list !== undefined) all.push(list)
  }
  return all
}

/** undefined: it is gone, and its packs with it, so there is nothing left to build on. Throws VAULT_DAMAGED. */
export async function readList(
  store: ObjectStore,
  keyring: Keyring,
  key: string,
): Promise<Condemned | undefined> {
  const object = await ifPresent(store.get(key))
  if (object === undefined) return undefined
  const bytes = unsealWith(keyring, 'condemned', key, object)
  return { key, ...(JSON.parse(bytes.toString()) as Omit<Condemned, 'key'>) }
}

export async function readForgotten(store: ObjectStore): Promise<Set<string>> {
  const ids = new Set<string>()
  for await (const { key } of store.list(FORGOTTEN_PREFIX))
    ids.add(key.slice(FORGOTTEN_PREFIX.length))
  return ids
}

const waitingKey = (condemned: string): string =>
  `${WAITING_PREFIX}${condemned.slice(CONDEMNED_PREFIX.length)}`

/**
 * The sessions that ran when the list of leases was read after `condemned` had been put. One that cannot be read is removed, as if it had not been put yet: those of
 * them that still run have their leases now.
 */
export async function readWaiting(
  store: ObjectStore,
  keyring: Keyring,
  condemned: Condemned,
): Promise<readonly string[] | undefined> {
  const key = waitingKey(condemned.key)
  try {
    return await readSessions(store, keyring, key)
  } catch (error) {
    if (!isFault(error, VAULT_DAMAGED)) throw error
    await store.delete(key)
    return undefined
  }
}

/** Of an object `waiting/ID`. Throws VAULT_DAMAGED. */
export async function readSessions(
  store: ObjectStore,
  keyring: Keyring,
  key: string,
): Promise<readonly string[] | undefined> {
  const object = await ifPresent(store.get(key))
  if (object === undefined) return undefined
  return JSON.parse(unsealWith(keyring, 'waiting', key, object).toString()) as string[]
}

export async function putWaiting(
  store: ObjectStore,
  keyring: Keyring,
  condemned: Condemned,
  sessions: readonly string[],
): Promise<void> {
  const key = waitingKey(condemned.key)
  const bytes = Buffer.from(JSON.stringify(sessions))
  await store.put(key, sealWith(keyring, 'waiting', key, bytes), { ifAbsent: true })
}

/** The list itself goes last: until then nobody builds on what it names. `deleted` answers false when the store keeps the object. */
export async function removeCondemned(
  condemned: Condemned,
  deleted: (key: string) => Promise<boolean>,
): Promise<void> {
  if (await deleted(waitingKey(condemned.key))) await deleted(condemned.key)
}
