import type { Migration } from './migration.ts'

/** Recovery plans of groups, and automatic failover. */
export const recovery: Migration = {
  name: '0010-recovery',
  async up() {},
}
