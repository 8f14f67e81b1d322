import { Fault } from '#base/fault.ts'
import { isUuid } from '#base/ids.ts'
import { COLLECTOR_BUSY } from '../faults.ts'
import { ifPresent, type ObjectStore } from '../object-store.ts'
import { leaseKey } from './leases.ts'

/* The object `collector` says whose turn it is. Nothing is safe because of it: two collectors at once would do no harm, only the same work twice. */

export const COLLECTOR_KEY = 'collector'

/** `storeMs`: the store's time now. One whose lease is older than `expiryMs` is taken over. Throws COLLECTOR_BUSY. */
export async function becomeCollector(
  store: ObjectStore,
  id: string,
  storeMs: number,
  expiryMs: number,
): Promise<void> {
  const body = Buffer.from(`${JSON.stringify({ session: id })}\n`)
  if (await store.put(COLLECTOR_KEY, body, { ifAbsent: true })) return
  const other = await otherCollector(store)
  const theirs = other === undefined ? undefined : await store.stat(leaseKey(other))
  if (theirs !== undefined && storeMs - theirs.modifiedMs <= expiryMs) {
    throw new Fault(COLLECTOR_BUSY, 'collecting', { session: other })
  }
  await store.put(COLLECTOR_KEY, body)
}

/** undefined: it has just ended, or what it put cannot be read any more. */
async function otherCollector(store: ObjectStore): Promise<string | undefined> {
  const body = await ifPresent(store.get(COLLECTOR_KEY))
  if (body === undefined) return undefined
  try {
    const other: unknown = JSON.parse(body.toString())
    const session = (other as { readonly session?: unknown } | null)?.session
    return typeof session === 'string' && isUuid(session) ? session : undefined
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}
