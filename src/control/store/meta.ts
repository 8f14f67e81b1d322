import { assert } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { newId } from '#base/ids.ts'
import { bit } from './bit.ts'
import type { Queries, Store, Transaction } from './store.ts'
import type { MetaRow } from './tables/meta.ts'

/* The database's knowledge of its own past: which life of it this is, and whether its history can be taken as
 * complete. The witness grants nothing on a history that may lack its end; see control/sites/witness.ts.
 *
 *   what happened                                history
 *   first start of a new database                complete
 *   start after a clean stop                     complete
 *   start after the process died, same boot      complete: every commit was in the WAL, which the kernel kept
 *   start after the host died                    complete: every commit was answered only when it was on the disk
 *   restore                                      doubtful: everything after the backup is gone
 *   PostgreSQL answers under another identity    doubtful: a standby or a copy took over
 *
 * After another boot the leases' CLOCK_BOOTTIME means nothing any more; that is the witness's business.
 */

/** The meta row. Present from the moment `openStore` resolved. */
export async function readMeta(db: Queries | Transaction): Promise<MetaRow> {
  const row = await db.selectFrom('meta').selectAll().where('id', '=', 1).executeTakeFirst()
  assert(row !== undefined, 'an opened database knows its incarnation')
  return row
}

/** Gives a new database its first incarnation; leaves an older one as it is. */
export async function ensureMeta(store: Store, clock: Clock): Promise<void> {
  const identity = await store.identity()
  await store.write(async (tx) => {
    const known = await tx.selectFrom('meta').select('id').where('id', '=', 1).executeTakeFirst()
    if (known !== undefined) return
    await tx
      .insertInto('meta')
      .values({
        id: 1,
        incarnation: newId(),
        incarnation_number: 1,
        created_at: clock.wallMs(),
        clean_shutdown: bit(true),
        boot_id: null,
        history_mark: newId(),
        engine_identity: identity,
      })
      .execute()
  })
}

export type HistoryDoubt = 'restored' | 'engine_changed'

export interface RunStart {
  /** Why no ownership record counts as trusted any more until it is reconciled; null: no new reason. */
  readonly doubt: HistoryDoubt | null
  /** The control plane before this one did not stop in order. Meaningful on SQLite only. */
  readonly unclean: boolean
}

/** A control plane starts on this database: clears the clean mark and says what the database has been through. */
export async function beginRun(store: Store, bootId: string): Promise<RunStart> {
  const identity = await store.identity()
  return await store.write(async (tx) => {
    const meta = await readMeta(tx)
    const doubt = doubtOf(meta, identity)
    await tx
      .updateTable('meta')
      .set({
        clean_shutdown: bit(false),
        boot_id: bootId,
        engine_identity: identity,
        ...(doubt === null ? {} : { history_mark: newId() }),
      })
      .where('id', '=', 1)
      .execute()
    return { doubt, unclean: !store.shared && doubt === null && meta.clean_shutdown === 0 }
  })
}

function doubtOf(meta: MetaRow, identity: string): HistoryDoubt | null {
  if (meta.boot_id === null) return meta.incarnation_number > 1 ? 'restored' : null
  return meta.engine_identity === identity ? null : 'engine_changed'
}

/** The engine answers under another identity: a standby took over. Every record needs reconciling. */
export async function doubtHistory(store: Store, identity: string): Promise<void> {
  await store.write(async (tx) => {
    const meta = await readMeta(tx)
    if (meta.engine_identity === identity) return
    await tx
      .updateTable('meta')
      .set({ engine_identity: identity, history_mark: newId() })
      .where('id', '=', 1)
      .execute()
  })
}

/** The last thing an orderly stop writes. On a shared database it says nothing and is not written. */
export async function endRun(store: Store): Promise<void> {
  if (store.shared) return
  await store.write(async (tx) => {
    await tx
      .updateTable('meta')
      .set({ clean_shutdown: bit(true) })
      .where('id', '=', 1)
      .execute()
  })
}
