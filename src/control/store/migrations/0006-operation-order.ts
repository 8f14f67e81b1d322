import { sql } from 'kysely'
import type { Migration } from './migration.ts'

/** Operations and chores are numbered in order of submission: two of one millisecond, or of a clock that was set back, had no order. */
export const operationOrder: Migration = {
  name: '0006-operation-order',
  async up(db) {
    await db.schema
      .alterTable('operations')
      .addColumn('ordinal', 'bigint', (c) => c.notNull().defaultTo(0))
      .execute()
    await sql`update operations set ordinal = (
      select count(*) from operations b
      where b.created_at < operations.created_at or (b.created_at = operations.created_at and b.id <= operations.id))`.execute(
      db,
    )
    await db.schema
      .alterTable('site_chores')
      .addColumn('ordinal', 'bigint', (c) => c.notNull().defaultTo(0))
      .execute()
    await sql`update site_chores set ordinal = (
      select count(*) from site_chores b
      where b.created_at < site_chores.created_at or (b.created_at = site_chores.created_at and b.id <= site_chores.id))`.execute(
      db,
    )
    await db.schema
      .createIndex('operations_by_order')
      .on('operations')
      .columns(['ordinal', 'id'])
      .execute()
  },
}
