import type { DatabaseSync, SQLInputValue, StatementSync } from 'node:sqlite'
import {
  CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type QueryResult,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from 'kysely'

/* Kysely over node:sqlite. Statements run on the event loop, which is right here: they are short, and the disk is
 * waited for only at COMMIT. A connection belongs to one user at a time; `connections` of them are opened as needed. */

/** Statements kept prepared per connection. The code has a few hundred different ones; the oldest is dropped. */
const STATEMENTS_KEPT = 500

export interface SqliteDialectOptions {
  readonly connections: number
  open(): DatabaseSync
  /** Before a connection is taken, in the context of whoever asks for it. */
  taking?(): void
  /** What starts a transaction; may wait for other processes. */
  begin(database: DatabaseSync): Promise<void>
}

export function sqliteDialect(options: SqliteDialectOptions): Dialect {
  return {
    createAdapter: () => new SqliteAdapter(),
    createDriver: () => new SqliteDriver(options),
    createIntrospector: (db) => new SqliteIntrospector(db),
    createQueryCompiler: () => new SqliteQueryCompiler(),
  }
}

class SqliteDriver implements Driver {
  readonly #options: SqliteDialectOptions
  readonly #all: SqliteConnection[] = []
  readonly #free: SqliteConnection[] = []
  readonly #waiting: ((connection: SqliteConnection) => void)[] = []

  constructor(options: SqliteDialectOptions) {
    this.#options = options
  }

  async init(): Promise<void> {}

  async acquireConnection(): Promise<SqliteConnection> {
    this.#options.taking?.()
    const free = this.#free.pop()
    if (free !== undefined) return free
    if (this.#all.length < this.#options.connections) {
      const connection = new SqliteConnection(this.#options.open())
      this.#all.push(connection)
      return connection
    }
    return await new Promise((resolve) => this.#waiting.push(resolve))
  }

  async releaseConnection(connection: DatabaseConnection): Promise<void> {
    const next = this.#waiting.shift()
    if (next === undefined) this.#free.push(connection as SqliteConnection)
    else next(connection as SqliteConnection)
  }

  async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await this.#options.begin((connection as SqliteConnection).database)
  }

  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('commit'))
  }

  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    // A failed statement or COMMIT may have ended the transaction by itself (disk full, I/O error).
    if ((connection as SqliteConnection).database.isTransaction) {
      await connection.executeQuery(CompiledQuery.raw('rollback'))
    }
  }

  async destroy(): Promise<void> {
    for (const connection of this.#all) connection.database.close()
  }
}

class SqliteConnection implements DatabaseConnection {
  readonly database: DatabaseSync
  readonly #prepared = new Map<string, Prepared>()

  constructor(database: DatabaseSync) {
    this.database = database
  }

  async executeQuery<Row>(query: CompiledQuery): Promise<QueryResult<Row>> {
    const prepared = this.#prepare(query.sql)
    const { statement } = prepared
    const parameters = query.parameters as SQLInputValue[]
    if (prepared.columns.length > 0) return { rows: rowsOf<Row>(prepared, parameters) }
    // What a cached statement gives back may have other columns from now on.
    if (SCHEMA_CHANGE.test(query.sql)) this.#prepared.clear()
    const { changes, lastInsertRowid } = statement.run(...parameters)
    return { rows: [], numAffectedRows: BigInt(changes), insertId: BigInt(lastInsertRowid) }
  }

  async *streamQuery<Row>(query: CompiledQuery): AsyncIterableIterator<QueryResult<Row>> {
    // A statement of its own: a cached one could be restarted by the same query while this one is half way.
    const statement = this.database.prepare(query.sql)
    for (const row of statement.iterate(...(query.parameters as SQLInputValue[]))) {
      yield { rows: [row as Row] }
    }
  }

  #prepare(sql: string): Prepared {
    const known = this.#prepared.get(sql)
    if (known !== undefined) return known
    const statement = this.database.prepare(sql)
    const columns = columnsOf(statement)
    if (columns.length > 0) statement.setReturnArrays(true)
    const prepared = { statement, columns }
    this.#prepared.set(sql, prepared)
    if (this.#prepared.size > STATEMENTS_KEPT) {
      const [oldest] = this.#prepared.keys()
      if (oldest !== undefined) this.#prepared.delete(oldest)
    }
    return prepared
  }
}

interface Prepared {
  readonly statement: StatementSync
  /** Names of what it gives back; none: it only changes something. */
  columns: readonly string[]
}

const SCHEMA_CHANGE = /^\s*(?:alter|create|drop)\s/i

const columnsOf = (statement: StatementSync): string[] =>
  statement.columns().map(({ name }) => name)

/**
 * Rows as ordinary objects, as PostgreSQL's are. They are asked for as lists of values and put together here: those that node:sqlite
 * makes have no prototype, and copying them costs three times as much.
 */
function rowsOf<Row>(prepared: Prepared, parameters: SQLInputValue[]): Row[] {
  const lists = prepared.statement.all(...parameters) as unknown as unknown[][]
  const [first] = lists
  if (first !== undefined && first.length !== prepared.columns.length) {
    prepared.columns = columnsOf(prepared.statement)
  }
  const { columns } = prepared
  return lists.map((values) => {
    const row: Record<string, unknown> = {}
    for (let at = 0; at < columns.length; at++) row[columns[at] as string] = values[at]
    return row as Row
  })
}
