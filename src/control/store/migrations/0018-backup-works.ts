import type { Migration } from './migration.ts'

/** Where the work of a backup or of a copy was begun, and which copies of other regions were let in. */
export const backupWorks: Migration = {
  name: '0018-backup-works',
  async up(db) {
    await db.schema
      .createTable('backup_works')
      .addColumn('work', 'text', (c) => c.primaryKey())
      .addColumn('site', 'text', (c) => c.notNull())
      .addColumn('place', 'integer', (c) => c.notNull())
      .addColumn('updated_at', 'bigint', (c) => c.notNull())
      .execute()
    await db.schema
      .createTable('replica_admissions')
      .addColumn('record', 'text', (c) => c.primaryKey())
      .addColumn('project', 'text', (c) => c.notNull())
      .addColumn('source_region', 'text', (c) => c.notNull())
      .addColumn('size_mb', 'bigint', (c) => c.notNull())
      .addColumn('state', 'text', (c) => c.notNull())
      .addColumn('admitted_at', 'bigint', (c) => c.notNull())
      .execute()
    await db.schema
      .createIndex('replica_admissions_by_state')
      .on('replica_admissions')
      .columns(['state', 'admitted_at'])
      .execute()
  },
}
