import { CompiledQuery, Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { assert } from '#base/assert.ts'
import { type Clock, sleep } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import type { Database } from '../schema.ts'
import {
  guardedRead,
  guardedWrite,
  outsideWrites,
  registerAfterCommit,
  STORE_BUSY,
  STORE_FULL,
  STORE_UNREACHABLE,
  type Store,
  takesOneReader,
} from '../store.ts'

/* Two pools: the reading one can only read, by a setting of its sessions. Writes are SERIALIZABLE; PostgreSQL ends the
 * ones that collide with an error, and they run again after a short random pause. */

const WRITERS = 8
const READERS = 8
/** SQLSTATE of a server without space. */
const DISK_FULL = '53100'
/** Collisions in a row before a write is refused with STORE_BUSY. */
const ATTEMPTS_MAX = 20
const RETRY_MS = 5
const CONNECT_MS = 5_000
/** Longest statement, and longest silence inside a transaction, before PostgreSQL ends it. */
const STATEMENT_MS = 30_000

/** Serialisation failure, deadlock. */
const COLLISIONS = new Set(['40001', '40P01'])
/** Connection class, shutdowns, and the sockets' own codes. */
const UNREACHABLE = /^(08...|57P0[123]|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EPIPE|ENOTFOUND)$/

const INT8 = 20
const NUMERIC = 1700

export interface PostgresOptions {
  readonly url: string
  readonly password: string | undefined
  readonly clock: Clock
  readonly log: Log
  /** 0 to 1; spreads the repeats of colliding writes. */
  readonly random: () => number
}

export function openPostgres({ url, password, clock, log, random }: PostgresOptions): Store {
  let known: string | undefined
  const listeners: ((identity: string) => void)[] = []
  const meet = (identity: string) => {
    const before = known
    known = identity
    if (before === undefined || before === identity) return
    // A write's own connection may be the one that met it.
    for (const listener of listeners) outsideWrites(() => listener(identity))
  }

  const pool = (max: number, settings: string, taking = () => {}) => {
    const made = new pg.Pool({
      connectionString: url,
      ...(password === undefined ? {} : { password }),
      max,
      connectionTimeoutMillis: CONNECT_MS,
      keepAlive: true,
      application_name: 'holdfast',
      options: `-c statement_timeout=${STATEMENT_MS} -c idle_in_transaction_session_timeout=${STATEMENT_MS} ${settings}`,
      types: { getTypeParser },
    })
    // Emitted for connections that break while idle; the next query opens another.
    made.on('error', (error) => log.warn({ err: error }, 'a connection to PostgreSQL broke'))
    return new Kysely<Database>({
      dialect: new PostgresDialect({
        pool: {
          async connect() {
            taking()
            return await made.connect()
          },
          end: () => made.end(),
        },
        onCreateConnection: async (connection) => {
          const { rows } = await connection.executeQuery<{ identity: string }>(
            CompiledQuery.raw(IDENTITY),
          )
          const [row] = rows
          assert(row !== undefined, 'PostgreSQL names itself')
          meet(row.identity)
        },
      }),
    })
  }
  const writer = pool(WRITERS, '-c synchronous_commit=on')
  const reader = pool(READERS, '-c default_transaction_read_only=on', takesOneReader)
  let closing: Promise<void> | undefined

  return {
    engine: 'postgres',
    shared: true,
    db: reader,
    async read(run) {
      try {
        return await reader
          .transaction()
          .setIsolationLevel('repeatable read')
          .setAccessMode('read only')
          .execute((db) => guardedRead(() => run(db)))
      } catch (error) {
        throw translate(error)
      }
    },
    async write(run) {
      for (let attempt = 1; ; attempt++) {
        try {
          return await guardedWrite((started) =>
            writer
              .transaction()
              .setIsolationLevel('serializable')
              .execute((tx) => {
                started(tx)
                return run(tx)
              }),
          )
        } catch (error) {
          if (!COLLISIONS.has(codeOf(error))) throw translate(error)
          if (attempt >= ATTEMPTS_MAX) {
            throw new Fault(STORE_BUSY, `writing, ${attempt} attempts`, {}, error)
          }
          await sleep(clock, RETRY_MS * attempt * (0.5 + random()))
        }
      }
    },
    afterCommit: registerAfterCommit,
    async identity() {
      try {
        const { rows } = await writer.executeQuery<{ identity: string }>(
          CompiledQuery.raw(IDENTITY),
        )
        const [row] = rows
        assert(row !== undefined, 'PostgreSQL names itself')
        meet(row.identity)
        return row.identity
      } catch (error) {
        throw translate(error)
      }
    },
    onIdentityChange: (then) => void listeners.push(then),
    // PostgreSQL stops by itself when its disk fails.
    onFailure: () => {},
    claim: async () => {},
    close() {
      closing ??= (async () => {
        await reader.destroy()
        await writer.destroy()
      })()
      return closing
    },
  }
}

/** The cluster's birth certificate and its timeline, which a promotion raises. */
const IDENTITY = `select 'postgres:' || system_identifier || '/' ||
  case when pg_is_in_recovery() then 'standby' else substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end
  as identity from pg_control_system()`

const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : ''

function translate(error: unknown): unknown {
  if (codeOf(error) === DISK_FULL) return new Fault(STORE_FULL, 'writing', {}, error)
  const lost = error instanceof Error && /terminated|timeout exceeded/i.test(error.message)
  return lost || UNREACHABLE.test(codeOf(error))
    ? new Fault(STORE_UNREACHABLE, 'talking to PostgreSQL', {}, error)
    : error
}

const getTypeParser = ((oid: number, format?: 'text' | 'binary') =>
  oid === INT8 || oid === NUMERIC
    ? safeNumber
    : pg.types.getTypeParser(oid, format as 'text')) as typeof pg.types.getTypeParser

function safeNumber(text: string): number {
  const number = Number(text)
  assert(!Number.isInteger(number) || Number.isSafeInteger(number), 'numbers stay below 2^53')
  return number
}
