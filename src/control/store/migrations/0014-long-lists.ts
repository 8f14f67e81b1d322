import type { Migration } from './migration.ts'

/** Indexes from which pages of long lists are read without looking at the other rows, and the history of recovery points. */
export const longLists: Migration = {
  name: '0014-long-lists',
  async up(db) {
    await db.schema
      .createIndex('protection_groups_by_form')
      .on('protection_groups')
      .columns(['project', 'form', 'created_at desc', 'id'])
      .execute()
    await db.schema
      .createIndex('replication_pairs_listed')
      .on('replication_pairs')
      .columns(['project', 'created_at desc', 'id', 'group_id', 'status', 'name'])
      .execute()
    await db.schema
      .createIndex('protected_instances_listed')
      .on('protected_instances')
      .columns(['project', 'created_at desc', 'id', 'group_id', 'status', 'name'])
      .execute()
    // Failed ones are few among many that succeeded.
    await db.schema
      .createIndex('operations_by_outcome')
      .on('operations')
      .columns(['project', 'status', 'ordinal'])
      .execute()
    await db.schema
      .createIndex('dismissed_failures_by_project')
      .on('dismissed_failures')
      .column('project')
      .execute()
    await db.schema
      .createTable('rpo_points')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('project', 'text', (c) => c.notNull())
      .addColumn('point_at', 'bigint', (c) => c.notNull())
      .addColumn('behind', 'integer', (c) => c.notNull())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addColumn('updated_at', 'bigint', (c) => c.notNull())
      .addUniqueConstraint('rpo_points_point', ['project', 'point_at'])
      .execute()
    await db.schema
      .createIndex('rpo_points_by_age')
      .on('rpo_points')
      .columns(['created_at'])
      .execute()
  },
}
