import { existsSync, readFileSync } from 'node:fs'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { migrate } from './migrations/run.ts'
import { refuseForgetfulPostgres } from './postgres/durability.ts'
import { openPostgres } from './postgres/store.ts'
import { openSqlite } from './sqlite/store.ts'
import { STORE_MISSING, STORE_URL, type Store } from './store.ts'

export interface OpenStore {
  /** `sqlite:PATH` (relative to the working directory) or `postgres://USER@HOST:PORT/NAME`. */
  readonly url: string
  /** File holding the PostgreSQL password; its last line break is ignored. */
  readonly passwordFile?: string | undefined
  readonly clock: Clock
  readonly log: Log
  /** False: a SQLite database that does not exist is refused, not made. Default true. */
  readonly create?: boolean
  /** 0 to 1. Default: the system's. */
  readonly random?: () => number
}

/** Opens the state database and brings its schema up to date, or refuses with a fault that says what to do. */
export async function openStore(options: OpenStore): Promise<Store> {
  const store = connectStore(options)
  try {
    await checkDurability(store)
    await migrate(store, options.clock)
  } catch (error) {
    await store.close()
    throw error
  }
  return store
}

/** Throws STORE_NOT_DURABLE when the engine could lose commits now: its settings and its standbys change under our feet. */
export async function checkDurability(store: Store): Promise<void> {
  if (store.engine === 'postgres') await refuseForgetfulPostgres(store.db)
}

/** Opens the database as it is, without looking at its schema: for restore and for tests of migrations. */
export function connectStore(options: OpenStore): Store {
  const { url, clock, log, passwordFile, create = true, random = Math.random } = options
  if (url.startsWith('sqlite:') && url.length > 'sqlite:'.length) {
    const path = url.slice('sqlite:'.length)
    if (!create && !existsSync(path)) throw new Fault(STORE_MISSING, `opening ${path}`)
    return openSqlite(path, clock)
  }
  if (/^postgres(?:ql)?:\/\//.test(url)) {
    const password =
      passwordFile === undefined
        ? undefined
        : readFileSync(passwordFile, 'utf8').replace(/\r?\n$/, '')
    return openPostgres({ url, password, clock, log, random })
  }
  throw new Fault(STORE_URL, 'opening the state database')
}
