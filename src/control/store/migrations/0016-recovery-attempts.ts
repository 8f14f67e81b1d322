import { sql } from 'kysely'
import type { Migration } from './migration.ts'

/** At most one recovery of a group is under way, and a script that runs is known before it is begun. */
export const recoveryAttempts: Migration = {
  name: '0016-recovery-attempts',
  async up(db) {
    // Two could be asked for at the same moment: the newest goes on.
    await sql`update recovery_runs set state = 'superseded', pauses = '[]'
      where ended_at is null and state in ('running', 'paused') and exists (
        select 1 from recovery_runs b
        where b.group_id = recovery_runs.group_id and b.ended_at is null and b.state in ('running', 'paused')
          and (b.started_at > recovery_runs.started_at
            or (b.started_at = recovery_runs.started_at and b.id > recovery_runs.id)))`.execute(db)
    await sql`create unique index recovery_runs_under_way on recovery_runs (group_id)
      where ended_at is null and state in ('running', 'paused')`.execute(db)
    await db.schema.alterTable('recovery_servers').addColumn('script_attempt', 'text').execute()
  },
}
