import type { Migration } from './migration.ts'

/** What a writer has done alone since the sites lost each other. */
export const arbitration: Migration = {
  name: '0004-arbitration',
  async up(db) {
    await db.schema.alterTable('ownership').addColumn('alone', 'text').execute()
  },
}
