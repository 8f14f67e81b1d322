import type { Migration } from './migration.ts'

/** What a type of volume may do per second, what each volume was ordered to, and the snapshot that a volume was made from. */
export const volumeLimits: Migration = {
  name: '0012-volume-limits',
  async up(db) {
    await db.schema.alterTable('volume_types').addColumn('limits', 'text').execute()
    await db.schema.alterTable('volumes').addColumn('snapshot', 'text').execute()
    await db.schema
      .createTable('volume_limits')
      .addColumn('volume', 'text', (c) => c.primaryKey())
      .addColumn('iops', 'bigint')
      .addColumn('bytes_per_second', 'bigint')
      .addColumn('read_only', 'integer', (c) => c.notNull())
      .addColumn('revision', 'bigint', (c) => c.notNull())
      .execute()
  },
}
