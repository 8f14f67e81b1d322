import { createHash } from 'node:crypto'
import {
  type CompiledQuery,
  DummyDriver,
  Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
  sql,
} from 'kysely'
import type { Clock } from '#base/clock.ts'
import { Fault, fault } from '#base/fault.ts'
import { ensureMeta } from '../meta.ts'
import type { Engine, Store, Transaction } from '../store.ts'
import { migrations as listed } from './list.ts'
import type { Migration } from './migration.ts'

/* Brings the schema up to date, one migration per transaction, under a lock that other control planes respect.
 *
 * The database keeps two fingerprints with every migration it went through: of the statements that ran, and of the schema
 * that the engine described right after. Before anything is changed both are compared with the present:
 *
 *   applied but not in our list      the database is newer than this program       STORE_NEWER
 *   other statements under its name  a migration was edited after it had run       MIGRATION_CHANGED
 *   ours is missing in the middle    same mistake, from the other side             MIGRATION_CHANGED
 *   schema is not what the last left somebody changed the tables by hand           SCHEMA_DRIFT
 */

export const STORE_NEWER = fault({
  code: 'STORE_NEWER',
  retry: 'never',
  text: 'The state database was written by a newer release. Nothing was changed.',
  hint: 'Start that release, or restore a backup that this one made.',
})
export const MIGRATION_CHANGED = fault({
  code: 'MIGRATION_CHANGED',
  retry: 'never',
  text: 'The state database went through another version of a schema change than this program knows. Nothing was changed.',
  hint: 'Start the release that made the database. A database of a development build is not carried over: begin with a new data directory.',
})
export const SCHEMA_DRIFT = fault({
  code: 'SCHEMA_DRIFT',
  retry: 'never',
  text: 'The tables of the state database differ from what its last schema change left. Nothing was changed.',
  hint: 'Undo what was done to the tables by hand, or restore a backup.',
})

export async function migrate(
  store: Store,
  clock: Clock,
  migrations: readonly Migration[] = listed,
): Promise<void> {
  const plan = await planOf(migrations, store.engine)
  await createLedger(store)
  for (;;) {
    const done = await store.write(async (tx) => {
      // Taken before the first query, so that a waiting PostgreSQL transaction sees what the one before it did.
      if (store.engine === 'postgres') {
        await sql`lock table applied_migrations in access exclusive mode`.execute(tx)
      }
      const applied = await tx
        .selectFrom('applied_migrations')
        .selectAll()
        .orderBy('name')
        .execute()
      for (const [index, row] of applied.entries()) {
        const known = plan[index]
        if (!plan.some(({ migration }) => migration.name === row.name)) {
          throw new Fault(STORE_NEWER, `schema change ${row.name} is unknown`)
        }
        if (
          known?.migration.name !== row.name ||
          known.statements_sha256 !== row.statements_sha256
        ) {
          throw new Fault(MIGRATION_CHANGED, `comparing schema change ${row.name}`)
        }
      }
      const last = applied.at(-1)
      if (
        last !== undefined &&
        last.schema_sha256 !== (await schemaFingerprint(tx, store.engine))
      ) {
        throw new Fault(SCHEMA_DRIFT, `comparing the schema with the one after ${last.name}`)
      }
      const next = plan[applied.length]
      if (next === undefined) return true
      await applyMigration(tx, store.engine, next, clock.wallMs())
      return false
    })
    if (done) break
  }
  await ensureMeta(store, clock)
}

export interface PlannedMigration {
  readonly migration: Migration
  readonly statements_sha256: string
}

export async function planOf(
  migrations: readonly Migration[],
  engine: Engine,
): Promise<PlannedMigration[]> {
  return await Promise.all(
    migrations.map(async (migration) => ({
      migration,
      statements_sha256: sha256((await statementsOf(migration, engine)).join(';\n')),
    })),
  )
}

/** Runs one migration and writes it down. */
export async function applyMigration(
  tx: Transaction,
  engine: Engine,
  { migration, statements_sha256 }: PlannedMigration,
  now: number,
): Promise<void> {
  await migration.up(tx as unknown as Kysely<unknown>, engine)
  await tx
    .insertInto('applied_migrations')
    .values({
      name: migration.name,
      statements_sha256,
      schema_sha256: await schemaFingerprint(tx, engine),
      applied_at: now,
    })
    .execute()
}

/** The table of applied migrations is older than all of them. */
export async function createLedgerIn(tx: Transaction): Promise<void> {
  await tx.schema
    .createTable('applied_migrations')
    .ifNotExists()
    .addColumn('name', 'text', (c) => c.primaryKey())
    .addColumn('statements_sha256', 'text', (c) => c.notNull())
    .addColumn('schema_sha256', 'text', (c) => c.notNull())
    .addColumn('applied_at', 'bigint', (c) => c.notNull())
    .execute()
}

async function createLedger(store: Store): Promise<void> {
  const create = () => store.write(createLedgerIn)
  try {
    await create()
  } catch (error) {
    // PostgreSQL's IF NOT EXISTS loses a race with an error when two control planes start on an empty database.
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code !== '23505' && code !== '42P07') throw error
    await create()
  }
}

/** The statements a migration runs, as SQL text with its parameters, without running them. */
export async function statementsOf(migration: Migration, engine: Engine): Promise<string[]> {
  const statements: string[] = []
  const driver = new DummyDriver()
  const recording = {
    executeQuery: async ({ sql: text, parameters }: CompiledQuery) => {
      statements.push(parameters.length === 0 ? text : `${text} -- ${JSON.stringify(parameters)}`)
      return { rows: [] }
    },
    streamQuery: () => {
      throw new Error('a migration reads nothing as a stream')
    },
  }
  driver.acquireConnection = async () => recording
  const db = new Kysely<unknown>({
    dialect: {
      createDriver: () => driver,
      createAdapter: () => (engine === 'sqlite' ? new SqliteAdapter() : new PostgresAdapter()),
      createIntrospector: (of) =>
        engine === 'sqlite' ? new SqliteIntrospector(of) : new PostgresIntrospector(of),
      createQueryCompiler: () =>
        engine === 'sqlite' ? new SqliteQueryCompiler() : new PostgresQueryCompiler(),
    },
  })
  await migration.up(db, engine)
  return statements
}

/** SHA-256 over everything that the engine says about tables, columns, indexes, constraints and triggers. */
async function schemaFingerprint(tx: Transaction, engine: Engine): Promise<string> {
  const texts: string[] = []
  for (const query of engine === 'sqlite' ? SQLITE_SCHEMA : POSTGRES_SCHEMA) {
    const { rows } = await sql.raw<{ line: string }>(query).execute(tx)
    texts.push(...rows.map(({ line }) => line))
  }
  return sha256(texts.join('\n'))
}

const SQLITE_SCHEMA = [
  `select type || ' ' || name || ' ' || coalesce(sql, '') as line from sqlite_schema
   where name not like 'sqlite\\_%' escape '\\' order by type, name`,
]
const POSTGRES_SCHEMA = [
  `select concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default) as line
   from information_schema.columns where table_schema = current_schema() order by table_name, ordinal_position`,
  `select replace(indexdef, schemaname || '.', '') as line from pg_indexes
   where schemaname = current_schema() order by indexname`,
  `select conname || ' ' || pg_get_constraintdef(oid) as line from pg_constraint
   where connamespace = current_schema()::regnamespace and contype in ('p', 'u', 'f', 'c')
   order by conrelid::regclass::text, conname`,
  `select t.tgname || ' on ' || c.relname as line from pg_trigger t join pg_class c on c.oid = t.tgrelid
   where c.relnamespace = current_schema()::regnamespace and not t.tgisinternal order by 1`,
]

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')
