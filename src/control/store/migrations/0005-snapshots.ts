import type { Migration } from './migration.ts'

/** Snapshots that users took. The agents hold the data; these rows say whose it is. */
export const snapshots: Migration = {
  name: '0005-snapshots',
  async up(db) {
    await db.schema
      .createTable('snapshots')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('project', 'text', (c) => c.notNull())
      .addColumn('name', 'text', (c) => c.notNull())
      .addColumn('group_id', 'text')
      .addColumn('site', 'text', (c) => c.notNull())
      .addColumn('volumes', 'text', (c) => c.notNull())
      .addColumn('status', 'text', (c) => c.notNull())
      .addColumn('facts', 'text')
      .addColumn('failure_detail', 'text')
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addColumn('updated_at', 'bigint', (c) => c.notNull())
      .execute()
    await db.schema
      .createIndex('snapshots_by_project')
      .on('snapshots')
      .columns(['project', 'created_at', 'id'])
      .execute()
  },
}
