import type { Migration } from './migration.ts'

/** What a type of volume may do per second. */
export const volumeLimits: Migration = {
  name: '0012-volume-limits',
  async up() {},
}
