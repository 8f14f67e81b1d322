import type { Migration } from './migration.ts'

/**
 * Groups know the API that they were made with, and why they failed; pairs know in which order their disks were named. What
 * exists already was made with SDRS.
 */
export const replicationForms: Migration = {
  name: '0011-replication-forms',
  async up(db) {
    await db.schema
      .alterTable('protection_groups')
      .addColumn('form', 'text', (c) => c.notNull().defaultTo('sdrs'))
      .execute()
    await db.schema.alterTable('protection_groups').addColumn('failure_detail', 'text').execute()
    await db.schema
      .alterTable('replication_pairs')
      .addColumn('target_first', 'integer', (c) => c.notNull().defaultTo(0))
      .execute()
  },
}
