import { Fault } from '#base/fault.ts'
import { INDEX_PREFIX, listPacks, putIndex, readIndex } from '../backup/index-objects.ts'
import type { Keyring } from '../keys/keyring.ts'
import { RECORDS_PER_INDEX } from '../limits.ts'
import type { ObjectStore } from '../object-store.ts'

/* Index objects without packs go, and many small ones become few. They only repeat what is in the footers, so there is nothing to lose. */

const INDEX_OBJECTS_MAX = 32

/** `deleted` answers false when the store keeps the object; `say` is told what is done. */
export async function tidyIndexes(
  { store, keyring }: { readonly store: ObjectStore; readonly keyring: Keyring },
  deleted: (key: string) => Promise<unknown>,
  say: (text: string) => void,
): Promise<void> {
  const packs = await listPacks(store)
  const keys: string[] = []
  for await (const { key } of store.list(INDEX_PREFIX)) keys.push(key)
  const covered = new Set<string>()
  const small: string[] = []
  for (const key of keys) {
    let indexed
    try {
      indexed = await readIndex(store, keyring, key)
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      say(`an index object is damaged and was removed: ${error.message}`)
      await deleted(key)
      continue
    }
    const left = indexed.filter(({ id }) => {
      const hex = id.toString('hex')
      return packs.has(hex) && !covered.has(hex)
    })
    for (const { id } of left) covered.add(id.toString('hex'))
    const records = left.reduce((sum, pack) => sum + pack.records.length, 0)
    if (records === 0) await deleted(key)
    else if (left.length < indexed.length / 2 || records < RECORDS_PER_INDEX / 2) small.push(key)
  }
  if (small.length <= INDEX_OBJECTS_MAX) return
  say(`joining ${small.length} index objects`)
  let group: string[] = []
  let joined: Awaited<ReturnType<typeof readIndex>> = []
  const flush = async () => {
    if (joined.length > 0) await putIndex(store, keyring, joined)
    for (const key of group) await deleted(key)
    group = []
    joined = []
  }
  for (const key of small) {
    const indexed = await readIndex(store, keyring, key)
    joined.push(...indexed.filter(({ id }) => packs.has(id.toString('hex'))))
    group.push(key)
    if (joined.reduce((sum, pack) => sum + pack.records.length, 0) >= RECORDS_PER_INDEX)
      await flush()
  }
  await flush()
}
