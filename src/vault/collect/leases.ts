import type { Clock } from '#base/clock.ts'
import { LEASE_RENEW_MS } from '../limits.ts'
import type { ObjectStore } from '../object-store.ts'

/* A lease says that a session runs. It is no lock and nothing is safe because of it alone: who is wrongly taken for dead finds its manifest's
 * place occupied. Its age is told by the store's clock, and compared with that of an object put just before, so the clocks of hosts do not matter. */

export const LEASE_PREFIX = 'leases/'
export const leaseKey = (session: string): string => `${LEASE_PREFIX}${session}`
export const leaseSession = (key: string): string => key.slice(LEASE_PREFIX.length)

export interface Lease {
  /** By the store's clock, when the lease was last put. */
  readonly storeMs: number
  release(): Promise<void>
}

/** Durable when it settles; renewed until `release`. `failed` is told of a renewal that did not succeed; the next one may. */
export async function takeLease(
  store: ObjectStore,
  clock: Clock,
  session: string,
  about: object,
  failed: (error: unknown) => void,
): Promise<Lease> {
  const key = leaseKey(session)
  const body = Buffer.from(`${JSON.stringify(about)}\n`)
  await store.put(key, body)
  const storeMs = (await store.stat(key))?.modifiedMs ?? clock.wallMs()
  let ended = false
  let renewing: Promise<void> | undefined
  const schedule = () =>
    clock.after(LEASE_RENEW_MS, () => {
      renewing = store
        .put(key, body)
        .then(() => undefined, failed)
        .finally(() => {
          if (!ended) cancel = schedule()
        })
    })
  let cancel = schedule()
  return {
    storeMs,
    async release() {
      ended = true
      cancel()
      // A renewal on its way would bring the lease back.
      await renewing
      await store.delete(key)
    },
  }
}
