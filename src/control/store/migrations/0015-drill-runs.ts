import { sql } from 'kysely'
import type { Migration } from './migration.ts'

/**
 * Drills wait for their turn, follow the recovery plan of their group, know the moments of their servers, and can be given up on while their
 * site is silent; schedules say why they failed. What drills before this found is not of the new form: it stays in their reports.
 */
export const drillRuns: Migration = {
  name: '0015-drill-runs',
  async up(db) {
    for (const column of ['began_at', 'forced_at']) {
      await db.schema.alterTable('drills').addColumn(column, 'bigint').execute()
    }
    await db.schema.alterTable('drills').addColumn('plan', 'text').execute()
    await sql`update drills set findings = null`.execute(db)
    await db.schema
      .alterTable('drill_servers')
      .addColumn('state', 'text', (c) => c.notNull().defaultTo('waiting'))
      .execute()
    for (const column of ['asked_at', 'started_at', 'settled_at']) {
      await db.schema.alterTable('drill_servers').addColumn(column, 'bigint').execute()
    }
    await db.schema.alterTable('drill_servers').addColumn('reason', 'text').execute()
    await db.schema
      .alterTable('drill_servers')
      .addColumn('probes', 'text', (c) => c.notNull().defaultTo('[]'))
      .execute()
    await db.schema
      .alterTable('drill_disks')
      .addColumn('cloned', 'integer', (c) => c.notNull().defaultTo(0))
      .execute()
    for (const column of ['last_reason', 'last_result']) {
      await db.schema.alterTable('drill_schedules').addColumn(column, 'text').execute()
    }
  },
}
