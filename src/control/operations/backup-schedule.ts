import type { Clock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import { rounds } from '#base/rounds.ts'
import {
  definitionOf,
  dueSchedules,
  readPlan,
  readSchedule,
  readTrigger,
  scheduleOf,
  updateSchedule,
  waitingSchedules,
} from '#control/resources/backup-plans.ts'
import type { Queries, Store, Transaction } from '#control/store/store.ts'
import type { BackupScheduleRow } from '#control/store/tables/checkpoints.ts'
import { decideDue, strayed } from '#domain/backup-policy.ts'
import { forgetBackupHistory } from './backup-history.ts'
import { beginRun, runOf } from './definitions/backup/backup-requests.ts'
import { beginPolicyReplication } from './definitions/backup/replica-requests.ts'
import { submitReplicaSweep } from './definitions/backup/replica-retention.ts'
import { backupUpkeep, UPKEEP_RESOURCE } from './definitions/backup/backup-upkeep.ts'
import { OPERATIONS_FULL, type OperationEngine } from './engine.ts'

/* Looks for schedules whose instant has come and begins what they say.
 *
 * The instant and the operation are one transaction: it takes the schedule that still waits for this instant, and lets it wait for the next one.
 * Transactions are serialisable, so with several control planes on one database one of them gets it and the others find it moved on. A control plane
 * that dies in between has done neither, and the next look finds it again, within its window.
 *
 * What cannot run (no server that could be backed up, a quota that is used up) is said in the log, and its instant is over.
 */

export interface BackupScheduleOptions {
  readonly store: Store
  readonly clock: Clock
  readonly log: Log
  readonly operations: OperationEngine
  /** Name of this region, and of those that copies can go to. */
  readonly region: string
  readonly destinations: readonly string[]
  /** Pause between two looks. Default 10 s. */
  readonly everyMs?: number
}

export interface BackupSchedule {
  start(): void
  /** Resolves when the look under way has ended. */
  stop(): Promise<void>
  /** One look now. Answers how many runs were begun; for tests. */
  look(): Promise<number>
}

const EVERY_MS = 10_000
/** Schedules in one look; the others are found by the next. */
const AT_ONCE = 200
const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

export function createBackupSchedule(options: BackupScheduleOptions): BackupSchedule {
  const { store, clock, log, operations, region, destinations, everyMs = EVERY_MS } = options
  /** Boot clock, ms. */
  let tidiedAt: number | null = null
  const looks = rounds(clock, everyMs, look, (error) => {
    log.error({ err: error }, 'the schedules of backups were not looked through')
  })

  async function look(): Promise<number> {
    let begun = 0
    for (const { id, next_at } of await dueSchedules(store.db, clock.wallMs(), AT_ONCE)) {
      try {
        if (await store.write((tx) => take(tx, id, next_at))) begun += 1
      } catch (error) {
        // Nothing of it has happened; the next look finds it again.
        if (!isFault(error, OPERATIONS_FULL)) throw error
        log.warn({ schedule: id }, 'a scheduled backup waits: too many operations do')
      }
    }
    await dailyUpkeep()
    await tidyNowAndThen()
    return begun
  }

  /** Each control plane for itself: what another has deleted or set right is so already. */
  async function tidyNowAndThen(): Promise<void> {
    const now = clock.bootMs()
    if (tidiedAt !== null && now - tidiedAt < HOUR_MS) return
    tidiedAt = now
    const gone = await forgetBackupHistory(store, clock.wallMs())
    if (gone > 0) log.info({ entries: gone }, 'old entries of the history of backups are gone')
    await bringBackStrays()
  }

  /** Schedules that wait for a time of a clock that was wrong: without this they would wait until it is so late. */
  async function bringBackStrays(): Promise<void> {
    for (let after = ''; ; ) {
      const rows = await waitingSchedules(store.db, clock.wallMs(), after, AT_ONCE)
      for (const { id } of rows) await store.write((tx) => bringBack(tx, id))
      const last = rows.at(-1)
      if (last === undefined || rows.length < AT_ONCE) return
      after = last.id
    }
  }

  async function bringBack(tx: Transaction, id: string): Promise<void> {
    const row = await readSchedule(tx, id)
    if (row === undefined || row.enabled === 0) return
    const trigger = await readTrigger(tx, row.trigger_id)
    const rule = trigger === undefined ? null : scheduleOf(trigger)
    const now = clock.wallMs()
    const nextAt = rule === null ? undefined : strayed(rule, row.next_at, now)
    if (nextAt === undefined) return
    log.warn({ policy: row.plan, waited: row.next_at, nextAt }, 'a schedule waited for too late')
    await updateSchedule(tx, id, { next_at: nextAt }, now)
  }

  /** True: a run was begun. */
  async function take(tx: Transaction, id: string, waitsFor: number | null): Promise<boolean> {
    const row = await readSchedule(tx, id)
    if (row === undefined || row.enabled === 0 || row.next_at !== waitsFor) return false
    const trigger = await readTrigger(tx, row.trigger_id)
    const rule = trigger === undefined ? null : scheduleOf(trigger)
    const now = clock.wallMs()
    if (rule === null) {
      await updateSchedule(tx, id, { next_at: null }, now)
      return false
    }
    const runs = row.operation_type === 'replication' ? 'nobody' : await runOf(tx, row.plan)
    const due = decideDue(rule, row.next_at, now, runs)
    if (due.kind === 'wait') return false
    await updateSchedule(tx, id, { next_at: due.nextAt }, now)
    if (due.kind === 'drop') {
      log.warn({ policy: row.plan, at: due.at, why: due.why }, 'a scheduled backup did not begin')
      return false
    }
    return await begin(tx, row)
  }

  async function begin(tx: Transaction, row: BackupScheduleRow): Promise<boolean> {
    const plan = await readPlan(tx, row.plan)
    if (plan === undefined) return false
    const services = { store, operations, clock, region, destinations }
    if (row.operation_type === 'replication') {
      await submitReplicaSweep(tx, operations, row, region)
    }
    const outcome =
      row.operation_type === 'replication'
        ? await beginPolicyReplication(tx, services, {
            ...destinationOf(row),
            sourceProject: row.project,
            policy: row.plan,
            provider: plan.provider,
            scheduled: true,
          })
        : await beginRun(tx, services, {
            project: row.project,
            plan: row.plan,
            provider: plan.provider,
            servers: [],
            scheduled: true,
            extraInfo: {
              created_by: 'operation-engine',
              trigger_id: row.trigger_id,
              scheduled_operation_id: row.id,
            },
          })
    if (!outcome.ok) {
      const { refusal } = outcome
      log.warn({ policy: row.plan, refusal }, 'a scheduled backup could not begin')
    }
    return outcome.ok
  }

  /** One a day, whichever control plane comes first: the last one is in the table of operations. None before there is any backup. */
  async function dailyUpkeep(): Promise<void> {
    const now = clock.wallMs()
    if (isRecent(await lastUpkeep(store.db, region), now)) return
    const any = await store.db.selectFrom('checkpoint_items').select('id').limit(1).execute()
    if (any.length === 0) return
    await store.write(async (tx) => {
      if (isRecent(await lastUpkeep(tx, region), now)) return
      await operations.submit(tx, backupUpkeep, {
        project: null,
        resourceType: UPKEEP_RESOURCE,
        resourceId: region,
        input: { collect: newId() },
      })
    })
  }

  return {
    start: () => looks.start(),
    stop: () => looks.stop(),
    look,
  }
}

/** Less than a day ago. One that lies far ahead was begun by a clock that was wrong. */
const isRecent = (at: number | null, now: number): boolean =>
  at !== null && now - at < DAY_MS && at - now < HOUR_MS

async function lastUpkeep(db: Queries | Transaction, region: string): Promise<number | null> {
  const row = await db
    .selectFrom('operations')
    .select('created_at')
    .where('kind', '=', backupUpkeep.name)
    .where('resource_type', '=', UPKEEP_RESOURCE)
    .where('resource_id', '=', region)
    .orderBy('ordinal', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row?.created_at ?? null
}

function destinationOf(row: BackupScheduleRow) {
  const definition = definitionOf(row)
  return {
    region: definition.destination_region ?? '',
    project: definition.destination_project_id ?? '',
    accelerate: definition.enable_acceleration ?? false,
  }
}
