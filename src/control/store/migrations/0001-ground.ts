import { type Kysely, sql } from 'kysely'
import type { Engine } from '../store.ts'
import type { Migration } from './migration.ts'

/** The database about itself, durable operations, agents, ownership, audit. */
export const ground: Migration = {
  name: '0001-ground',
  async up(db, engine) {
    await db.schema
      .createTable('meta')
      .addColumn('id', 'integer', (c) => c.primaryKey())
      .addColumn('incarnation', 'text', (c) => c.notNull())
      .addColumn('incarnation_number', 'integer', (c) => c.notNull())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addColumn('clean_shutdown', 'integer', (c) => c.notNull())
      .addColumn('boot_id', 'text')
      .addColumn('history_mark', 'text', (c) => c.notNull())
      .addColumn('engine_identity', 'text', (c) => c.notNull())
      .execute()
    await operations(db)
    await sites(db)
    await appendOnly(db, engine, 'ownership_changes')
    await appendOnly(db, engine, 'audit')
  },
}

async function operations(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('operations')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('kind', 'text', (c) => c.notNull())
    .addColumn('version', 'integer', (c) => c.notNull())
    .addColumn('project', 'text')
    .addColumn('resource_type', 'text', (c) => c.notNull())
    .addColumn('resource_id', 'text', (c) => c.notNull())
    // No reference: a backup restores rows in any order.
    .addColumn('parent', 'text')
    .addColumn('root', 'text', (c) => c.notNull())
    .addColumn('input', 'text', (c) => c.notNull())
    .addColumn('status', 'text', (c) => c.notNull())
    .addColumn('step', 'integer', (c) => c.notNull())
    .addColumn('progress', 'integer', (c) => c.notNull())
    .addColumn('joining', 'integer', (c) => c.notNull())
    .addColumn('cancel_wanted', 'integer', (c) => c.notNull())
    .addColumn('attempts', 'integer', (c) => c.notNull())
    .addColumn('run_at', 'bigint', (c) => c.notNull())
    .addColumn('error_code', 'text')
    .addColumn('fail_reason', 'text')
    .addColumn('failed_step', 'text')
    .addColumn('entities', 'text', (c) => c.notNull())
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('begin_at', 'bigint')
    .addColumn('end_at', 'bigint')
    .addColumn('lease_owner', 'text')
    .addColumn('lease_beat', 'bigint', (c) => c.notNull())
    .addColumn('lease_beat_at', 'bigint')
    .execute()
  await db.schema
    .createIndex('operations_unfinished')
    .on('operations')
    .columns(['status', 'created_at', 'id'])
    .execute()
  await db.schema
    .createIndex('operations_by_resource')
    .on('operations')
    .columns(['resource_type', 'resource_id', 'status', 'created_at'])
    .execute()
  await db.schema.createIndex('operations_by_parent').on('operations').column('parent').execute()
  await db.schema
    .createIndex('operations_by_project')
    .on('operations')
    .columns(['project', 'created_at', 'id'])
    .execute()
  await db.schema
    .createTable('operation_steps')
    .addColumn('operation', 'text', (c) => c.notNull().references('operations.id'))
    .addColumn('step', 'integer', (c) => c.notNull())
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('result', 'text', (c) => c.notNull())
    .addColumn('end_at', 'bigint', (c) => c.notNull())
    .addPrimaryKeyConstraint('operation_steps_key', ['operation', 'step'])
    .execute()
}

async function sites(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('agents')
    .addColumn('site', 'text', (c) => c.notNull())
    .addColumn('agent', 'text', (c) => c.notNull())
    .addColumn('boot_id', 'text', (c) => c.notNull())
    .addColumn('run_id', 'text', (c) => c.notNull())
    .addColumn('version', 'text', (c) => c.notNull())
    .addColumn('command_address', 'text', (c) => c.notNull())
    .addColumn('link_address', 'text', (c) => c.notNull())
    .addColumn('nbd_unix', 'text', (c) => c.notNull())
    .addColumn('nbd_tcp', 'text')
    .addColumn('nbd_tls', 'integer', (c) => c.notNull())
    .addColumn('report', 'text', (c) => c.notNull())
    .addColumn('first_seen_at', 'bigint', (c) => c.notNull())
    .addColumn('last_seen_at', 'bigint', (c) => c.notNull())
    .addPrimaryKeyConstraint('agents_key', ['site', 'agent'])
    .execute()
  await db.schema
    .createTable('ownership')
    .addColumn('session', 'text', (c) => c.primaryKey())
    .addColumn('epoch', 'integer', (c) => c.notNull())
    .addColumn('state', 'text', (c) => c.notNull())
    .addColumn('writer', 'text', (c) => c.notNull())
    .addColumn('replica', 'text', (c) => c.notNull())
    .addColumn('mode', 'text', (c) => c.notNull())
    .addColumn('preferred', 'text', (c) => c.notNull())
    .addColumn('incarnation', 'text', (c) => c.notNull())
    .addColumn('attempt', 'text', (c) => c.notNull())
    .addColumn('lease_holder', 'text')
    .addColumn('lease_ends_boot_ms', 'double precision')
    .addColumn('lease_boot_id', 'text')
    .addColumn('lease_ms', 'bigint')
    .addColumn('serial', 'bigint', (c) => c.notNull())
    .addColumn('history_mark', 'text', (c) => c.notNull())
    .addColumn('heard', 'text', (c) => c.notNull())
    .addColumn('updated_at', 'bigint', (c) => c.notNull())
    .execute()
  await db.schema
    .createTable('ownership_changes')
    .addColumn('session', 'text', (c) => c.notNull())
    .addColumn('epoch', 'integer', (c) => c.notNull())
    .addColumn('kind', 'text', (c) => c.notNull())
    .addColumn('state', 'text', (c) => c.notNull())
    .addColumn('writer', 'text', (c) => c.notNull())
    .addColumn('replica', 'text', (c) => c.notNull())
    .addColumn('attempt', 'text', (c) => c.notNull())
    .addColumn('asked_by', 'text', (c) => c.notNull())
    .addColumn('incarnation', 'text', (c) => c.notNull())
    .addColumn('at', 'bigint', (c) => c.notNull())
    .execute()
  await db.schema
    .createIndex('ownership_changes_by_session')
    .on('ownership_changes')
    .columns(['session', 'epoch'])
    .execute()
  await db.schema
    .createTable('audit')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('at', 'bigint', (c) => c.notNull())
    .addColumn('project', 'text')
    .addColumn('actor', 'text', (c) => c.notNull())
    .addColumn('source', 'text')
    .addColumn('action', 'text', (c) => c.notNull())
    .addColumn('target', 'text')
    .addColumn('result', 'integer', (c) => c.notNull())
    .addColumn('detail', 'text', (c) => c.notNull())
    .execute()
  await db.schema.createIndex('audit_by_project').on('audit').columns(['project', 'at']).execute()
}

/** Makes the engine itself refuse changes of rows that were written for ever. */
async function appendOnly(db: Kysely<unknown>, engine: Engine, table: string): Promise<void> {
  const text = `${table} only ever grows`
  if (engine === 'sqlite') {
    for (const event of ['update', 'delete']) {
      await sql`create trigger ${sql.id(`${table}_no_${event}`)} before ${sql.raw(event)} on ${sql.table(table)}
        begin select raise(abort, ${sql.lit(text)}); end`.execute(db)
    }
    return
  }
  await sql`create function ${sql.id(`${table}_refuse`)}() returns trigger language plpgsql as
    ${sql.lit(`begin raise exception '${text}'; end`)}`.execute(db)
  await sql`create trigger ${sql.id(`${table}_no_change`)} before update or delete on ${sql.table(table)}
    for each row execute function ${sql.id(`${table}_refuse`)}()`.execute(db)
}
