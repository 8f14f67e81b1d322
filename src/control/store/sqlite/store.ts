import { chmodSync, closeSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Kysely } from 'kysely'
import { type Clock, sleep } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Database } from '../schema.ts'
import {
  guardedWrite,
  registerAfterCommit,
  STORE_BUSY,
  STORE_IN_USE,
  type Store,
} from '../store.ts'
import { sqliteDialect } from './dialect.ts'

/* One writing connection and a few reading ones on a WAL database. Our own writes queue for the writing connection; other
 * processes (the CLI, a backup) take part through SQLite's own locks. */

/** How long SQLite itself waits, blocking the event loop, before the lock is asked for again later. */
const LOCK_WAIT_MS = 20
/** Between such attempts the event loop is free. */
const LOCK_RETRY_MS = 10
/** After this long a write is refused with STORE_BUSY. A large change by the CLI takes well below a second. */
const LOCK_GIVE_UP_MS = 10_000
const READERS = 4
const SQLITE_BUSY = 5

export function openSqlite(path: string, clock: Clock): Store {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  closeSync(openSync(path, 'a', 0o600))
  chmodSync(path, 0o600)
  const open = () => {
    const database = new DatabaseSync(path, { timeout: LOCK_WAIT_MS })
    database.exec('pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on')
    return database
  }
  const begin = async (database: DatabaseSync) => {
    const giveUpMs = clock.bootMs() + LOCK_GIVE_UP_MS
    for (;;) {
      try {
        return database.exec('begin immediate')
      } catch (error) {
        if (!isBusy(error)) throw error
        if (clock.bootMs() > giveUpMs) {
          throw new Fault(STORE_BUSY, `starting a transaction on ${path}`, {}, error)
        }
        await sleep(clock, LOCK_RETRY_MS)
      }
    }
  }
  const writer = new Kysely<Database>({
    dialect: sqliteDialect({ connections: 1, open, begin }),
  })
  const reader = new Kysely<Database>({
    dialect: sqliteDialect({
      connections: READERS,
      open: () => {
        const database = open()
        database.exec('pragma query_only = on')
        return database
      },
      begin: async (database) => database.exec('begin'),
    }),
  })
  let lock: DatabaseSync | undefined
  let closing: Promise<void> | undefined

  return {
    engine: 'sqlite',
    shared: false,
    db: reader,
    read: (run) => reader.transaction().execute(run),
    write: (run) =>
      guardedWrite((started) =>
        writer.transaction().execute((tx) => {
          started(tx)
          return run(tx)
        }),
      ),
    afterCommit: registerAfterCommit,
    identity: async () => 'sqlite',
    onIdentityChange: () => {},
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

const isBusy = (error: unknown): boolean =>
  error instanceof Error && 'errcode' in error && error.errcode === SQLITE_BUSY
