import type { Migration } from './migration.ts'

/** Backup policies, checkpoints, restores, and replicas. */
export const checkpoints: Migration = {
  name: '0013-checkpoints',
  async up() {},
}
