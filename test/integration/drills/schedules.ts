/** Schedules of drills: when they make one, and what they say when they cannot. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { newId } from '#base/ids.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import type { DrillOptions } from '#control/operations/definitions/drills/drill-facts.ts'
import { createSchedule } from '#control/operations/definitions/drills/drill-schedules.ts'
import { createDrillClock, MISSED_MS } from '#control/operations/drill-clock.ts'
import {
  deleteScheduleRow,
  findSchedule,
  listSchedules,
  updateSchedule,
} from '#control/resources/drills.ts'
import { PROJECT } from '../../support/region.ts'
import type { DrillCalls } from './drill-calls.ts'

const NIGHTLY = {
  name: 'nightly',
  rule: 'FREQ=DAILY;BYHOUR=3',
  zone: 'UTC',
  options: { probes: {}, timeoutMs: 1_000 },
  vpc: null,
  enabled: true,
  runMissed: true,
}

export function testSchedules({ of, reports, services }: DrillCalls): void {
  test('a schedule makes a drill and deletes it, once for all that was missed, or never late', async () => {
    const { region, group } = of()
    const { store } = region.plane
    let now = systemClock.wallMs()
    const clock = { ...systemClock, wallMs: () => now }
    const later = { ...services(), clock }
    const place = { project: PROJECT, user: 'u', group }
    const made = await createSchedule(later, place, NIGHTLY)
    const strict = await createSchedule(later, place, { ...NIGHTLY, runMissed: false })
    assert.ok(made.ok && strict.ok)
    const log = createLog('test', 'silent')
    const drillClock = createDrillClock(later, log)
    await drillClock.turn()
    const row = async (id: string) => (await findSchedule(store.db, PROJECT, id)) ?? made.schedule
    assert.equal((await row(made.schedule.id)).last_at, null, 'its time has not come')

    // Three nights pass without a control plane.
    now += 3 * 24 * 3_600_000
    await drillClock.turn()
    await drillClock.turn()
    const after3 = await row(made.schedule.id)
    assert.equal(after3.last_outcome, 'started late')
    assert.ok((after3.next_at ?? 0) > now)
    assert.equal((await row(strict.schedule.id)).last_outcome, 'missed')
    const drill = after3.last_drill ?? ''
    await region.until('the drill is made', async () => (await reports(drill)).length === 1)
    await region.until('and deleted by itself', async () => {
      await drillClock.turn()
      return (await reports(drill)).length === 2
    })
    const [ended] = await reports(drill)
    assert.equal(ended?.report.teardown?.verdict, 'clean')
    assert.equal(ended.report.drill.schedule, made.schedule.id)

    now = (await row(strict.schedule.id)).next_at ?? 0
    await drillClock.turn()
    assert.equal((await row(strict.schedule.id)).last_outcome, 'started')
    assert.equal((await row(made.schedule.id)).last_outcome, 'started')
  })

  test('a schedule that fails says why and holds up no other, and one that could never begin is not taken', async () => {
    const { region, group } = of()
    const { store } = region.plane
    let now = systemClock.wallMs()
    const later = { ...services(), clock: { ...systemClock, wallMs: () => now } }
    const parts = { ...NIGHTLY, name: 'early', rule: 'FREQ=DAILY;BYHOUR=4' }
    const place = { project: PROJECT, user: 'u', group }
    const refusal = async (over: Partial<typeof parts> | { readonly options: DrillOptions }) => {
      const outcome = await createSchedule(later, place, { ...parts, ...over })
      return outcome.ok ? null : outcome.refusal
    }
    const probes = { [newId()]: [{ kind: 'boot' as const }] }
    assert.equal(await refusal({ options: { probes, timeoutMs: 1 } }), 'DRILL_PROBES_UNKNOWN')
    for (const one of await listSchedules(store.db, PROJECT)) {
      await store.write((tx) => deleteScheduleRow(tx, one.id))
    }
    const broken = await createSchedule(later, place, parts)
    const full = await createSchedule(later, place, { ...parts, name: 'full' })
    const fine = await createSchedule(later, place, { ...parts, name: 'fine' })
    assert.ok(broken.ok && full.ok && fine.ok)
    const due = fine.schedule.next_at ?? 0
    await store.write(async (tx) => {
      await updateSchedule(tx, broken.schedule.id, { options: '{', next_at: due - 2 })
      await updateSchedule(tx, full.schedule.id, { vpc: newId(), next_at: due - 1 })
    })
    now = due
    await createDrillClock(later, createLog('test', 'silent')).turn()
    const row = async (id: string) => await findSchedule(store.db, PROJECT, id)
    const failed = await row(broken.schedule.id)
    assert.deepEqual([failed?.last_outcome, failed?.next_at], ['INTERNAL', due - 2], 'tried again')
    assert.match(failed?.last_reason ?? '', /see its log/)
    const refused = await row(full.schedule.id)
    assert.equal(refused?.last_outcome, 'DRILL_VPC_UNKNOWN')
    assert.match(refused.last_reason ?? '', /There is no such VPC\. /)
    const begun = await row(fine.schedule.id)
    assert.equal(begun?.last_outcome, 'started')
    now = due + MISSED_MS + 1
    await createDrillClock(later, createLog('test', 'silent')).turn()
    assert.ok(((await row(broken.schedule.id))?.next_at ?? 0) > now, 'given up for this time')
    const drill = begun.last_drill ?? ''
    await region.until('its drill is deleted', async () => {
      await createDrillClock(later, createLog('test', 'silent')).turn()
      return (await reports(drill)).length === 2
    })
    assert.equal((await row(fine.schedule.id))?.last_result, 'passed')
  })
}
