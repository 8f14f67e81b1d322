import type { Migration } from './migration.ts'

/** Groups and pairs know the API that they were made with. */
export const replicationForms: Migration = {
  name: '0011-replication-forms',
  async up() {},
}
