import { AsyncLocalStorage } from 'node:async_hooks'
import type { Kysely, Transaction as KyselyTransaction } from 'kysely'
import { assert } from '#base/assert.ts'
import { fault } from '#base/fault.ts'
import type { Database } from './schema.ts'

/* The state database, whichever engine holds it.
 *
 * Promises, the same on both engines and checked by store.contract.ts:
 *
 * - `write` commits all of what its function did, or nothing. When it resolves, the change is durable: it survives
 *   the death of the process and a power loss of the host (SQLite: WAL with synchronous=FULL; PostgreSQL:
 *   synchronous_commit=on, also on the standby if there is one).
 * - Writes are serialisable: each sees the database as if it ran alone. So a function may read, decide and
 *   write without thinking of others. SQLite runs them one by one; PostgreSQL runs them side by side and repeats the
 *   ones that collided.
 * - THEREFORE the function given to `write` may run more than once. It changes nothing but the transaction; whatever must
 *   happen once, after the fact, goes to `afterCommit`.
 * - `read` sees one committed state from first to last query and cannot write. `db` is for single queries.
 * - When `write` rejects because the connection broke during COMMIT, the change may have happened. Callers that care
 *   make their writes repeatable (attempt ids, compare-and-set) and read again.
 */

/** For single queries on committed data. Refuses to write. */
export type Queries = Kysely<Database>

/** One transaction; both a `Queries` for reading and the only way to write. */
export type Transaction = KyselyTransaction<Database>

export type Engine = 'sqlite' | 'postgres'

export interface Store {
  readonly engine: Engine
  /** True: other control planes may work on the same database at this moment. */
  readonly shared: boolean
  readonly db: Queries
  /**
   * Runs `run` on one consistent snapshot. It holds one of a few connections meanwhile: neither `read` nor `db` is used inside, because as many
   * of those as there are connections, each waiting for a second one, would wait for ever.
   */
  read<T>(run: (db: Queries) => Promise<T>): Promise<T>
  /** Runs `run` in a serialisable transaction, again from the start when it collided. Never nest. */
  write<T>(run: (tx: Transaction) => Promise<T>): Promise<T>
  /** Runs `then` once after `tx` has committed; forgets it when it rolls back. `then` must not throw. */
  afterCommit(tx: Transaction, then: () => void): void
  /** Names the database behind the connections: changes when a standby was promoted. `sqlite` for SQLite. */
  identity(): Promise<string>
  /** Tells when a new connection met another database than before (PostgreSQL failing over under our feet). */
  onIdentityChange(then: (identity: string) => void): void
  /** Tells once that the disk failed: from here on every write ends in STORE_FAILED. */
  onFailure(then: (error: unknown) => void): void
  /**
   * Keeps every other control plane from using this database until `close` or the end of the process. Does nothing
   * on a shared engine. Throws STORE_IN_USE.
   */
  claim(): Promise<void>
  /** Waits for running transactions, then lets go. Calling it twice is fine. */
  close(): Promise<void>
}

export const STORE_URL = fault({
  code: 'STORE_URL',
  retry: 'never',
  text: 'The address of the state database cannot be used.',
  hint: 'Give sqlite:PATH or postgres://USER@HOST:PORT/NAME.',
})
export const STORE_MISSING = fault({
  code: 'STORE_MISSING',
  retry: 'never',
  text: 'There is no state database at this place.',
  hint: 'Check the configuration of the control plane, or the directory of `holdfast up`.',
})
export const STORE_IN_USE = fault({
  code: 'STORE_IN_USE',
  retry: 'later',
  text: 'Another control plane works on this SQLite database.',
  hint: 'Stop it first. Several control planes at once need PostgreSQL.',
})
export const STORE_BUSY = fault({
  code: 'STORE_BUSY',
  retry: 'later',
  text: 'The state database gave no chance to write: others held it, or collided with this change every time.',
  hint: 'Repeat. If it stays, look for a long transaction in another process on the same database.',
})
export const STORE_FULL = fault({
  code: 'STORE_FULL',
  retry: 'later',
  text: 'The disk of the state database is full; nothing of the change was made.',
  hint: 'Make space on the file system of the database. Everything goes on by itself then.',
})
export const STORE_FAILED = fault({
  code: 'STORE_FAILED',
  retry: 'never',
  text: 'The disk failed under the state database. Nothing more is written until the control plane is started again.',
  hint: 'Check the disk and the file system, then start again; restore a backup if the database is damaged.',
})
export const STORE_UNREACHABLE = fault({
  code: 'STORE_UNREACHABLE',
  retry: 'later',
  text: 'The state database does not answer.',
  hint: 'Check that PostgreSQL runs, that its address is right and that the account may log in.',
})

const inside = new AsyncLocalStorage<true>()
const reading = new AsyncLocalStorage<{ open: boolean }>()
const hooks = new WeakMap<object, (() => void)[]>()

/** For implementations: runs one attempt of a write and, when `attempt` resolved, its hooks outside of it. */
export async function guardedWrite<T>(
  attempt: (begin: (tx: Transaction) => void) => Promise<T>,
): Promise<T> {
  assert(inside.getStore() === undefined, 'a write is never started inside another write')
  const waiting: (() => void)[] = []
  const result = await inside.run(true, () =>
    attempt((tx) => {
      waiting.length = 0
      hooks.set(tx, waiting)
    }),
  )
  for (const then of waiting) then()
  return result
}

/** For implementations: runs what was given to `read`, which has its connection by now. */
export async function guardedRead<T>(run: () => Promise<T>): Promise<T> {
  // What was begun inside and goes on afterwards may read again.
  const under = { open: true }
  try {
    return await reading.run(under, run)
  } finally {
    under.open = false
  }
}

/** For implementations: before a reading connection is taken. */
export function takesOneReader(): void {
  assert(reading.getStore()?.open !== true, 'a read is never started inside another read')
}

/** For implementations: runs `then` as if no write were under way, so that it may begin one of its own. */
export const outsideWrites = (then: () => void): void => inside.exit(then)

/** For implementations: see Store.afterCommit. */
export function registerAfterCommit(tx: Transaction, then: () => void): void {
  const waiting = hooks.get(tx)
  assert(waiting !== undefined, 'afterCommit is given a transaction of write')
  waiting.push(then)
}
