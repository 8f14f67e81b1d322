import type { Migration } from './migration.ts'

/** Rehearsals of failovers, their schedules and reports. */
export const drills: Migration = {
  name: '0009-drills',
  async up() {},
}
