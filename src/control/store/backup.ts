import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import { sql } from 'kysely'
import { assert } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { Fault, fault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import { syncDirectory } from '#base/system/files.ts'
import { readMeta } from './meta.ts'
import { migrations as listed } from './migrations/list.ts'
import { applyMigration, createLedgerIn, planOf } from './migrations/run.ts'
import { type OpenStore, connectStore } from './open.ts'
import { bit } from './bit.ts'
import type { Engine, Queries, Store, Transaction } from './store.ts'

/* Backup and restore of the state, in one format for both engines (docs/formats/state-database.md): JSON lines, made from
 * one snapshot while the control plane goes on, checked by a SHA-256 at the end. So a state also moves from SQLite to PostgreSQL.
 *
 * A restored state is a past one. It gets a new incarnation and a new history mark, and its clean mark is cleared, so that the
 * witness grants nothing until the sites have said what happened since. Restoring is one transaction: an interrupted one
 * leaves the target as empty as it was.
 */

export const BACKUP_DAMAGED = fault({
  code: 'BACKUP_DAMAGED',
  retry: 'never',
  text: 'The file is not a complete backup of the state. Nothing was changed.',
  hint: 'Take another copy of the file, or an older backup.',
})
export const BACKUP_NEWER = fault({
  code: 'BACKUP_NEWER',
  retry: 'never',
  text: 'The backup was made by a newer release, or a development build. Nothing was changed.',
  hint: 'Restore it with the release that made it, then upgrade as usual.',
})
export const RESTORE_TARGET_USED = fault({
  code: 'RESTORE_TARGET_USED',
  retry: 'never',
  text: 'The database to restore into is not empty. Nothing was changed.',
  hint: 'Stop the control plane and move the old database away first; keep it until the restored one has proved itself.',
})

const FORMAT = 'holdfast-state'
const FORMAT_VERSION = 1
const ROWS_PER_CHUNK = 500
/** SQLite takes at most 32,766 parameters in a statement. */
const PARAMETERS_MOST = 10_000

interface Header {
  readonly format: string
  readonly version: number
  readonly engine: Engine
  /** Wall clock, ms since 1970. */
  readonly made_at: number
  readonly incarnation: string
  readonly incarnation_number: number
  readonly migrations: readonly string[]
}

export interface BackupSummary {
  readonly incarnation: string
  readonly rows: number
  readonly bytes: number
}

/**
 * Writes the whole state to `file` (mode 0600, it holds password hashes and keys), replacing an older one only when the new one
 * is complete and durable. The control plane may go on working meanwhile.
 */
export async function backupState(
  store: Store,
  file: string,
  clock: Clock,
): Promise<BackupSummary> {
  const temporary = `${file}.partial`
  const handle = await open(temporary, 'w', 0o600)
  try {
    const summary = await store.read((db) => writeBackup(db, store.engine, handle, clock.wallMs()))
    await handle.sync()
    await handle.close()
    await rename(temporary, file)
    await syncDirectory(dirname(file))
    return summary
  } catch (error) {
    await handle.close()
    await rm(temporary, { force: true })
    throw error
  }
}

async function writeBackup(
  db: Queries,
  engine: Engine,
  handle: FileHandle,
  made_at: number,
): Promise<BackupSummary> {
  const hash = createHash('sha256')
  let bytes = 0
  const write = async (lines: readonly unknown[]) => {
    const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('')
    hash.update(text)
    bytes += Buffer.byteLength(text)
    await handle.write(text)
  }
  const { incarnation, incarnation_number } = await readMeta(db)
  const migrations = await db
    .selectFrom('applied_migrations')
    .select('name')
    .orderBy('name')
    .execute()
  const header: Header = {
    format: FORMAT,
    version: FORMAT_VERSION,
    engine,
    made_at,
    incarnation,
    incarnation_number,
    migrations: migrations.map(({ name }) => name),
  }
  await write([header])
  let rows = 0
  for (const table of await tablesInOrder(db, engine)) {
    let columns: readonly string[] | null = null
    for await (const chunk of rowsOf(db, engine, table)) {
      if (columns === null) {
        const present = Object.keys(chunk[0] ?? {})
        columns = present
        await write([{ table, columns: present }])
      }
      const named = columns
      await write(chunk.map((row) => named.map((column) => row[column])))
      rows += chunk.length
    }
  }
  const end = `${JSON.stringify({ end: true, rows, sha256: hash.digest('hex') })}\n`
  await handle.write(end)
  return { incarnation, rows, bytes: bytes + Buffer.byteLength(end) }
}

type Row = Readonly<Record<string, unknown>>

/** All rows of a table, in chunks, within the snapshot that `db` is. */
async function* rowsOf(db: Queries, engine: Engine, table: string): AsyncGenerator<Row[]> {
  if (engine === 'postgres') {
    await sql`declare backup no scroll cursor for select * from ${sql.table(table)}`.execute(db)
    for (;;) {
      const { rows } = await sql.raw<Row>(`fetch ${ROWS_PER_CHUNK} from backup`).execute(db)
      if (rows.length === 0) break
      yield rows
    }
    await sql`close backup`.execute(db)
    return
  }
  for (let after = 0; ; ) {
    const { rows } = await sql<Row & { backup_rowid: number }>`
      select rowid as backup_rowid, * from ${sql.table(table)}
      where rowid > ${after} order by rowid limit ${ROWS_PER_CHUNK}`.execute(db)
    const last = rows.at(-1)
    if (last === undefined) return
    after = last.backup_rowid
    yield rows.map((row) => Object.fromEntries(Object.entries(row).slice(1)))
  }
}

export interface RestoreSummary {
  /** Of the backup. */
  readonly madeAt: number
  readonly rows: number
  /** New. */
  readonly incarnation: string
}

/** Fills the empty database at `target` from `file`. The next start brings its schema up to date. */
export async function restoreState(target: OpenStore, file: string): Promise<RestoreSummary> {
  const header = await checkBackup(file)
  const known = listed.slice(0, header.migrations.length)
  if (known.map(({ name }) => name).join() !== header.migrations.join()) {
    throw new Fault(BACKUP_NEWER, `reading ${file}`, { migrations: header.migrations })
  }
  const store = connectStore(target)
  try {
    await store.claim()
    const plan = await planOf(known, store.engine)
    const identity = await store.identity()
    return await store.write(async (tx) => {
      if ((await tablesInOrder(tx, store.engine)).length > 0) {
        throw new Fault(RESTORE_TARGET_USED, `restoring ${file}`)
      }
      await createLedgerIn(tx)
      for (const planned of plan) {
        await applyMigration(tx, store.engine, planned, target.clock.wallMs())
      }
      const present = await tablesInOrder(tx, store.engine)
      const rows = await loadRows(tx, store.engine, file)
      // Some may have been revoked since the backup, and nothing here knows which.
      if (present.includes('tokens')) await tx.deleteFrom('tokens').execute()
      const incarnation = newId()
      await tx
        .updateTable('meta')
        .set({
          incarnation,
          incarnation_number: header.incarnation_number + 1,
          clean_shutdown: bit(false),
          boot_id: null,
          history_mark: newId(),
          engine_identity: identity,
        })
        .where('id', '=', 1)
        .execute()
      return { madeAt: header.made_at, rows, incarnation }
    })
  } finally {
    await store.close()
  }
}

/** Inserts every row. Tables come in the order in which the backup has them: referenced ones first. */
async function loadRows(tx: Transaction, engine: Engine, file: string): Promise<number> {
  const present = new Set(await tablesInOrder(tx, engine))
  let rows = 0
  let table = ''
  let columns: readonly string[] = []
  let chunk: unknown[][] = []
  const flush = async () => {
    if (chunk.length === 0) return
    const values = chunk.map((row) => sql`(${sql.join(row)})`)
    await sql`insert into ${sql.table(table)} (${sql.join(columns.map((column) => sql.ref(column)))})
      values ${sql.join(values)}`.execute(tx)
    rows += chunk.length
    chunk = []
  }
  for await (const text of lines(file)) {
    const line = JSON.parse(text) as unknown[] | { table?: string; columns?: string[]; end?: true }
    if (Array.isArray(line)) {
      chunk.push(line)
      if (chunk.length * columns.length >= PARAMETERS_MOST) await flush()
      continue
    }
    await flush()
    if (line.table !== undefined && line.columns !== undefined) {
      assert(present.has(line.table), `the schema of the backup has the table ${line.table}`)
      table = line.table
      columns = line.columns
    }
  }
  return rows
}

/** Reads the whole file once and refuses it unless its checksum is right. */
async function checkBackup(file: string): Promise<Header> {
  let header: Partial<Header> | undefined
  let hash: Hash = createHash('sha256')
  let ended = false
  for await (const text of lines(file)) {
    if (ended) throw new Fault(BACKUP_DAMAGED, `${file} goes on after its end`)
    const line = parse(text)
    header ??= line as Partial<Header>
    if (isEnd(line)) {
      ended = line.sha256 === hash.digest('hex')
      if (!ended) throw new Fault(BACKUP_DAMAGED, `the checksum of ${file} does not match`)
      hash = createHash('sha256')
    } else hash.update(`${text}\n`)
  }
  if (header?.format !== FORMAT || !ended) throw new Fault(BACKUP_DAMAGED, `reading ${file}`)
  if (header.version !== FORMAT_VERSION) throw new Fault(BACKUP_NEWER, `reading ${file}`)
  return header as Header
}

const isEnd = (line: unknown): line is { end: true; sha256: string } =>
  typeof line === 'object' && line !== null && 'end' in line

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new Fault(BACKUP_DAMAGED, 'a line of the backup is not JSON', {}, error)
  }
}

async function* lines(file: string): AsyncGenerator<string> {
  const input = createReadStream(file, 'utf8')
  try {
    yield* createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })
  } finally {
    input.destroy()
  }
}

/** Tables of the state except the ledger of migrations, each after those that it references. */
async function tablesInOrder(db: Queries | Transaction, engine: Engine): Promise<string[]> {
  const names = await sql<{
    name: string
  }>`${sql.raw(engine === 'sqlite' ? SQLITE_TABLES : POSTGRES_TABLES)}`.execute(db)
  const references = await sql<{ name: string; target: string }>`${sql.raw(
    engine === 'sqlite' ? SQLITE_REFERENCES : POSTGRES_REFERENCES,
  )}`.execute(db)
  const ordered: string[] = []
  const visit = (name: string, path: readonly string[]) => {
    assert(!path.includes(name), `tables do not reference each other in a circle (${name})`)
    for (const { target } of references.rows.filter((one) => one.name === name)) {
      if (!ordered.includes(target)) visit(target, [...path, name])
    }
    if (!ordered.includes(name)) ordered.push(name)
  }
  for (const { name } of names.rows) visit(name, [])
  return ordered.filter((name) => name !== 'applied_migrations')
}

const SQLITE_TABLES = `select name from sqlite_schema where type = 'table'
  and name not like 'sqlite\\_%' escape '\\' order by name`
const SQLITE_REFERENCES = `select t.name as name, f."table" as target
  from sqlite_schema t join pragma_foreign_key_list(t.name) f where t.type = 'table'`
const POSTGRES_TABLES = `select table_name as name from information_schema.tables
  where table_schema = current_schema() and table_type = 'BASE TABLE' order by table_name`
const POSTGRES_REFERENCES = `select c.relname as name, r.relname as target from pg_constraint k
  join pg_class c on c.oid = k.conrelid join pg_class r on r.oid = k.confrelid
  where k.contype = 'f' and k.connamespace = current_schema()::regnamespace`
