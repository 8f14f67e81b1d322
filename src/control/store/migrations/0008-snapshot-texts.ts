import type { Migration } from './migration.ts'

/** What the volume API lets users say about a snapshot. */
export const snapshotTexts: Migration = {
  name: '0008-snapshot-texts',
  async up(db) {
    await db.schema.alterTable('snapshots').addColumn('description', 'text').execute()
    await db.schema
      .alterTable('snapshots')
      .addColumn('metadata', 'text', (c) => c.notNull().defaultTo('{}'))
      .execute()
    await db.schema
      .alterTable('snapshots')
      .addColumn('size_gb', 'integer', (c) => c.notNull().defaultTo(1))
      .execute()
  },
}
