import type { Migration } from './migration.ts'

/** The index from which the newest operations of a kind that succeeded are read: every forecast asks for them. */
export const operationKindsIndex: Migration = {
  name: '0020-operation-kinds',
  async up(db) {
    await db.schema
      .createIndex('operations_by_kind')
      .on('operations')
      .columns(['kind', 'status', 'ordinal'])
      .execute()
  },
}
