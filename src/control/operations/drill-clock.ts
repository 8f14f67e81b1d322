import { BrokenInvariant } from '#base/assert.ts'
import { isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { rounds } from '#base/rounds.ts'
import {
  drillsAdrift,
  drillsToEnd,
  dueSchedules,
  findSchedule,
  updateSchedule,
} from '#control/resources/drills.ts'
import { fromJson } from '#control/store/json.ts'
import type { DrillRow, DrillScheduleRow } from '#control/store/tables/drills.ts'
import { NAME_BYTES_MAX } from '#domain/text.ts'
import { endAdrift } from './definitions/drills/drills-of-old.ts'
import type { DrillOptions } from './definitions/drills/drill-facts.ts'
import { DrillRefused } from './definitions/drills/drill-decision.ts'
import { requestDrillDeletion, submitDrill } from './definitions/drills/drill-requests.ts'
import { nextTime } from './definitions/drills/drill-schedules.ts'
import { DRILL_WORDS } from './definitions/drills/drill-words.ts'
import type { RequestServices } from './definitions/requests.ts'

/* Begins the drills of schedules, and ends those that nobody keeps. Everything it goes by is in the database: after a crash the next turn does what
 * is left, and of several control planes one is the first to move a schedule on, in the transaction that begins the drill.
 *
 * A moment that passed while nobody looked (the control plane was down) counts as missed after MISSED_MS. It is made up for at once and once, however
 * many there were; with `run_missed` off it is left out. Either way the schedule says so.
 *
 * Schedules, and drills that end, do not stand in each other's way: what one of them fails at is its own, and is said in it. What is worth repeating
 * is repeated until the moment counts as missed.
 */

const TURN_MS = 5_000
/** Later than this is not on time. */
export const MISSED_MS = 10 * 60_000
/** Between two tries to clean up after a drill that left something behind. */
const CLEAN_AGAIN_MS = 3_600_000
/** And before the first of them, when it was given up and its site is heard. */
const CLEAN_FORCED_MS = 60_000

export interface DrillClock {
  start(): void
  /** One turn; for tests, too. */
  turn(): Promise<void>
  stop(): Promise<void>
}

export function createDrillClock(services: RequestServices, log: Log): DrillClock {
  const { store, clock } = services
  const turns = rounds(clock, TURN_MS, turn, (error) => {
    log.warn({ err: error }, 'schedules of drills; it is repeated')
  })

  async function turn(): Promise<void> {
    for (const schedule of await dueSchedules(store.db, clock.wallMs())) {
      try {
        await begin(schedule)
      } catch (error) {
        await fail(schedule, error)
      }
    }
    if ((await drillsAdrift(store.db)).length > 0) await endThoseAdrift()
    for (const drill of await drillsToEnd(store.db)) {
      if (!isTimeToEnd(drill)) continue
      try {
        await requestDrillDeletion(services, drill.project, drill.id)
      } catch (error) {
        if (error instanceof BrokenInvariant) throw error
        log.warn({ err: error, drill: drill.id }, 'the end of a drill could not begin')
      }
    }
  }

  async function endThoseAdrift(): Promise<void> {
    await store.write(async (tx) => {
      for (const drill of await drillsAdrift(tx)) {
        log.warn({ drill: drill.id }, 'a drill has no operation any more, and is ended')
        await endAdrift(tx, services.operations, drill)
      }
    })
  }

  function isTimeToEnd({ status, updated_at, forced_at, az }: DrillRow): boolean {
    const restMs = clock.wallMs() - updated_at
    if (forced_at !== null) {
      // Moved since: a try has failed at a site that was heard.
      const rest = updated_at === forced_at ? CLEAN_FORCED_MS : CLEAN_AGAIN_MS
      return services.agents.heard(az) && restMs >= rest
    }
    return status !== 'error-deleting' || restMs >= CLEAN_AGAIN_MS
  }

  /** It is due again in the next turn when it is worth repeating and its moment is not missed. */
  async function fail(schedule: DrillScheduleRow, error: unknown): Promise<void> {
    if (error instanceof BrokenInvariant) throw error
    const now = clock.wallMs()
    const late = now - (schedule.next_at ?? now) > MISSED_MS
    const again = !late && (!isFault(error) || error.kind.retry !== 'never')
    const change = {
      ...(again ? {} : { next_at: nextTime(schedule, now) }),
      last_at: now,
      last_drill: null,
      last_outcome: isFault(error) ? error.code : 'INTERNAL',
      last_reason: isFault(error)
        ? error.message.slice(0, 500)
        : 'The control plane failed at it; see its log.',
      last_result: null,
      updated_at: now,
    }
    log.error({ err: error, schedule: schedule.id, again }, 'the drill of a schedule failed')
    try {
      await record(schedule, change)
    } catch (second) {
      if (second instanceof BrokenInvariant) throw second
      log.error({ err: second, schedule: schedule.id }, 'and that could not be stored')
    }
  }

  async function begin(schedule: DrillScheduleRow): Promise<void> {
    const { id, project, next_at } = schedule
    const now = clock.wallMs()
    const moved = {
      next_at: nextTime(schedule, now),
      last_at: now,
      last_drill: null,
      last_reason: null,
      last_result: null,
      updated_at: now,
    }
    const isMissed = now - (next_at ?? now) > MISSED_MS
    if (isMissed && schedule.run_missed === 0) {
      log.warn({ schedule: id }, 'the time of a drill passed while nobody looked')
      return await record(schedule, { ...moved, last_outcome: 'missed' })
    }
    try {
      await store.write(async (tx) => {
        // Another control plane was faster, or somebody changed it.
        if ((await findSchedule(tx, project, id))?.next_at !== next_at) return
        const { drill } = await submitDrill(tx, services, {
          project,
          user: schedule.user_id,
          group: schedule.group_id,
          name: nameAt(schedule.name, now),
          vpc: schedule.vpc,
          options: fromJson<DrillOptions>(schedule.options),
          schedule: id,
          autoDelete: true,
        })
        const last_outcome = isMissed ? 'started late' : 'started'
        await updateSchedule(tx, id, { ...moved, last_drill: drill.id, last_outcome })
      })
    } catch (error) {
      if (!(error instanceof DrillRefused)) throw error
      log.warn({ schedule: id, refusal: error.refusal }, 'the drill of a schedule was refused')
      const { message, action } = DRILL_WORDS[error.refusal]
      const last_reason = `${message} ${action}`
      await record(schedule, { ...moved, last_outcome: error.refusal, last_reason })
    }
  }

  async function record(
    { id, project, next_at }: DrillScheduleRow,
    change: Parameters<typeof updateSchedule>[2],
  ): Promise<void> {
    await store.write(async (tx) => {
      if ((await findSchedule(tx, project, id))?.next_at === next_at) {
        await updateSchedule(tx, id, change)
      }
    })
  }

  return {
    start: () => turns.start(0),
    turn,
    stop: () => turns.stop(),
  }
}

/** The schedule's name and the minute, UTC. */
function nameAt(name: string, nowMs: number): string {
  const minute = new Date(nowMs).toISOString().slice(0, 16).replace(/[-:]/g, '').replace('T', '-')
  return `${name.slice(0, NAME_BYTES_MAX - minute.length - 1)}-${minute}`
}
