import type { Migration } from './migration.ts'

/** How pairs and groups were last shown to anybody, so that their time of change is one of what is shown. */
export const shownReplications: Migration = {
  name: '0017-shown-replications',
  async up(db) {
    await db.schema
      .createTable('shown_replications')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('shown', 'text', (c) => c.notNull())
      .addColumn('changed_at', 'bigint', (c) => c.notNull())
      .execute()
  },
}
