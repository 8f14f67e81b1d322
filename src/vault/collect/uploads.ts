import { Fault } from '#base/fault.ts'
import { checkpointIdOf } from '../format/manifest.ts'
import { packIdOf } from '../format/pack.ts'
import type { ObjectStore, Upload } from '../object-store.ts'

/* Parts of objects that nobody will complete are paid for, and seen by nobody. Whose a pack is its id tells; of anything else it is only known that it is nobody's when nobody runs. */

/** To be read before the leases: whoever has begun one of them, and still runs, has had a lease before. */
export async function unfinishedUploads(
  store: ObjectStore,
  say: (text: string) => void,
): Promise<readonly Upload[]> {
  try {
    return (await store.uploads?.()) ?? []
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    // The right to list them is one that nothing else needs.
    say(`unfinished uploads stay: ${error.message}`)
    return []
  }
}

/** What a vault puts that may be large. A bucket holds uploads of others, and the vault's prefix may be empty. */
const isOurs = (key: string): boolean =>
  packIdOf(key) !== undefined ||
  checkpointIdOf(key) !== undefined ||
  /^(index|moves|condemned|waiting)\/[0-9a-f]{32}$/.test(key)

/** Those of the vault that are old enough, and whose sessions are not among the `live` ones. */
export function abandoned(
  uploads: readonly Upload[],
  live: ReadonlySet<string>,
  { storeMs, graceMs }: { readonly storeMs: number; readonly graceMs: number },
): Upload[] {
  const prefixes = sessionPrefixes(live)
  return uploads.filter(({ key, startedMs }) => {
    if (!isOurs(key) || Math.max(0, storeMs - startedMs) < graceMs) return false
    return key.startsWith('packs/') ? !prefixes.has(key.slice(-32, -16)) : live.size === 0
  })
}

/** What the ids of their packs begin with. */
export const sessionPrefixes = (sessions: ReadonlySet<string>): Set<string> =>
  new Set([...sessions].map((session) => session.replaceAll('-', '').slice(0, 16)))
