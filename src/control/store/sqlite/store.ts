import { chmodSync, closeSync, fsyncSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Kysely } from 'kysely'
import { type Clock, sleep } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Database } from '../schema.ts'
import {
  guardedRead,
  guardedWrite,
  registerAfterCommit,
  STORE_BUSY,
  STORE_FAILED,
  STORE_FULL,
  STORE_IN_USE,
  type Store,
  takesOneReader,
} from '../store.ts'
import { sqliteDialect } from './dialect.ts'

/* One writing connection and a few reading ones on a WAL database. Our own writes queue for the writing connection; other
 * processes (the CLI, a backup) take part through SQLite's own locks.
 *
 * A failed fdatasync is told once: the kernel then takes the pages for written, and a later commit that "succeeds" may stand
 * behind lost ones in the log, where recovery after a power loss never reaches it. So the first I/O error ends all writing of
 * this process (STORE_FAILED). A start moves the whole log into the database first, which writes everything again.
 *
 * A disk without space is another matter: SQLite is told so by the write itself, before anything counts as committed, and takes the transaction back. So that
 * is a refusal (STORE_FULL), and the next write may find room. There is one exception: when the index of the log, a file of its own, cannot grow. Before
 * a transaction has begun that is the same refusal. Within one it comes after the log has taken the commit, which a later process would find there: nobody
 * can say whether the change was made, so it ends all writing. A quota or a limit on files (EDQUOT, EFBIG) is an I/O error to SQLite, and so to us.
 */

/** How long SQLite itself waits, blocking the event loop, before the lock is asked for again later. */
const LOCK_WAIT_MS = 20
/** Between such attempts the event loop is free. */
const LOCK_RETRY_MS = 10
/** After this long a write is refused with STORE_BUSY. A large change by the CLI takes well below a second. */
const LOCK_GIVE_UP_MS = 10_000
const READERS = 4
const SQLITE_BUSY = 5
const SQLITE_IOERR = 10
const SQLITE_CORRUPT = 11
const SQLITE_FULL = 13
const SQLITE_NOTADB = 26
/** No room for the index of the log. An extended code of SQLITE_IOERR: https://sqlite.org/rescode.html#ioerr_shmsize */
const SQLITE_IOERR_SHMSIZE = 4874

export function openSqlite(path: string, clock: Clock): Store {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  closeSync(openSync(path, 'a', 0o600))
  chmodSync(path, 0o600)
  syncDirectory(dirname(path))
  const open = () => {
    const database = new DatabaseSync(path, { timeout: LOCK_WAIT_MS })
    return set(
      database,
      'pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on',
    )
  }
  /** Closes it where that does not go. */
  const set = (database: DatabaseSync, pragmas: string) => {
    try {
      database.exec(pragmas)
      return database
    } catch (error) {
      database.close()
      throw refusedRoom(error) ? new Fault(STORE_FULL, `opening ${path}`, { path }, error) : error
    }
  }
  const begin = async (database: DatabaseSync) => {
    const giveUpMs = clock.bootMs() + LOCK_GIVE_UP_MS
    for (;;) {
      try {
        return database.exec('begin immediate')
      } catch (error) {
        if (refusedRoom(error)) {
          throw new Fault(STORE_FULL, `starting a transaction on ${path}`, { path }, error)
        }
        if (!isBusy(error)) throw error
        if (clock.bootMs() > giveUpMs) {
          throw new Fault(STORE_BUSY, `starting a transaction on ${path}`, {}, error)
        }
        await sleep(clock, LOCK_RETRY_MS)
      }
    }
  }
  const writer = new Kysely<Database>({
    dialect: sqliteDialect({
      connections: 1,
      open: () => {
        const database = open()
        // Gives way to other processes: the next start that is alone does it.
        if (!logMoved) set(database, 'pragma wal_checkpoint(truncate)')
        logMoved = true
        return database
      },
      begin,
    }),
  })
  const reader = new Kysely<Database>({
    dialect: sqliteDialect({
      connections: READERS,
      taking: takesOneReader,
      open: () => set(open(), 'pragma query_only = on'),
      begin: async (database) => database.exec('begin'),
    }),
  })
  let logMoved = false
  let failure: unknown
  const failureListeners: ((error: unknown) => void)[] = []
  const writing = async <T>(run: () => Promise<T>): Promise<T> => {
    if (failure !== undefined) throw new Fault(STORE_FAILED, `writing ${path}`, { path }, failure)
    try {
      return await run()
    } catch (error) {
      if (codeOf(error) === SQLITE_FULL) {
        throw new Fault(STORE_FULL, `writing ${path}`, { path }, error)
      }
      if (!isDiskError(error)) throw error
      failure = error
      for (const then of failureListeners) then(error)
      throw new Fault(STORE_FAILED, `writing ${path}`, { path }, error)
    }
  }
  let lock: DatabaseSync | undefined
  let closing: Promise<void> | undefined

  return {
    engine: 'sqlite',
    shared: false,
    db: reader,
    read: (run) => reader.transaction().execute((db) => guardedRead(() => run(db))),
    write: (run) =>
      writing(() =>
        guardedWrite((started) =>
          writer.transaction().execute((tx) => {
            started(tx)
            return run(tx)
          }),
        ),
      ),
    afterCommit: registerAfterCommit,
    identity: async () => 'sqlite',
    onIdentityChange: () => {},
    onFailure: (then) => void failureListeners.push(then),
    async claim() {
      if (lock !== undefined) return
      // The kernel drops this lock with the process, however that ends. The file itself stays and means nothing.
      const candidate = new DatabaseSync(`${path}.lock`, { timeout: 0 })
      try {
        candidate.exec('pragma locking_mode = exclusive; begin exclusive')
      } catch (error) {
        candidate.close()
        if (!isBusy(error)) throw error
        throw new Fault(STORE_IN_USE, `claiming ${path}`, { path }, error)
      }
      lock = candidate
    },
    close() {
      closing ??= (async () => {
        await reader.destroy()
        await writer.destroy()
        lock?.close()
      })()
      return closing
    },
  }
}

const extendedCodeOf = (error: unknown): number =>
  error instanceof Error && 'errcode' in error ? Number(error.errcode) : 0
const codeOf = (error: unknown): number => extendedCodeOf(error) & 0xff

/** Of a statement outside of a transaction: nothing of it was made. */
const refusedRoom = (error: unknown): boolean =>
  codeOf(error) === SQLITE_FULL || extendedCodeOf(error) === SQLITE_IOERR_SHMSIZE

const isBusy = (error: unknown): boolean => codeOf(error) === SQLITE_BUSY
const isDiskError = (error: unknown): boolean =>
  [SQLITE_IOERR, SQLITE_CORRUPT, SQLITE_NOTADB].includes(codeOf(error))

/** A new file is there after a power loss only when its directory was written too. */
function syncDirectory(path: string): void {
  const descriptor = openSync(path, 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}
