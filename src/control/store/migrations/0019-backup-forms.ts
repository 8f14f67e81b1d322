import { sql } from 'kysely'
import type { Migration } from './migration.ts'

/**
 * Backups: how long writes waited, where they are attached, whose policy let a replica come, how fast data may move; and the indexes from which
 * pages of restores, logs, copies and verifications are read and their old entries found.
 */
export const backupForms: Migration = {
  name: '0019-backup-forms',
  async up(db) {
    await db.schema.alterTable('checkpoint_items').addColumn('stall_us', 'bigint').execute()
    await db.schema.alterTable('checkpoint_items').addColumn('attachment', 'text').execute()
    await db.schema.alterTable('checkpoint_items').addColumn('source_policy', 'text').execute()
    await db.schema.alterTable('replication_records').addColumn('gone_at', 'bigint').execute()
    await db.schema
      .createTable('backup_rates')
      .addColumn('kind', 'text', (c) => c.primaryKey())
      .addColumn('bytes_per_second', 'bigint', (c) => c.notNull())
      .execute()
    for (const [name, table, columns] of INDEXES) {
      await db.schema
        .createIndex(name)
        .on(table)
        .columns([...columns])
        .execute()
    }
    // As the list of backups spells the moment, which is missing while one is being made.
    await sql`create index checkpoint_items_by_moment
      on checkpoint_items (project, coalesce(taken_at, 0), id)`.execute(db)
  },
}

const INDEXES: readonly (readonly [name: string, table: string, columns: readonly string[]])[] = [
  ['backup_logs_by_operation', 'backup_logs', ['extra_info']],
  ['backup_logs_by_end', 'backup_logs', ['ended_at']],
  ['restores_by_age', 'restores', ['status', 'updated_at']],
  ['verifications_by_age', 'verifications', ['status', 'updated_at']],
  ['replication_records_by_age', 'replication_records', ['status', 'updated_at']],
  ['checkpoint_items_of_source', 'checkpoint_items', ['source_policy', 'resource']],
  // Counts and sums of quotas are read from the index.
  ['checkpoint_items_sizes', 'checkpoint_items', ['project', 'size_mb']],
  // With the order of the list, or the list of everything would be looked through for a few.
  [
    'checkpoint_items_of_checkpoint',
    'checkpoint_items',
    ['project', 'checkpoint', 'created_at', 'id'],
  ],
  ['checkpoint_items_by_change', 'checkpoint_items', ['project', 'updated_at', 'id']],
]
