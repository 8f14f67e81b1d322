/** Drills that an earlier release has left, ready or half way. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLog } from '#base/log.ts'
import { createDrill1, deleteDrill1 } from '#control/operations/definitions/drills/drills-of-old.ts'
import { createDrillClock } from '#control/operations/drill-clock.ts'
import { findDrill, findReport } from '#control/resources/drills.ts'
import { PROJECT } from '../../support/region.ts'
import type { DrillCalls } from './drill-calls.ts'

export function testDrillsOfOld({ of, make, end, reports, services }: DrillCalls): void {
  test('a drill of an earlier release is ended with what its report has found', async () => {
    const { region } = of()
    const id = await make()
    const { store } = region.plane
    const ready = await findReport(store.db, PROJECT, { drill: id })
    assert.ok(ready !== undefined)
    // As those were: what was found stands in the report of version 1 alone.
    const document = JSON.parse(ready.document)
    document.version = 1
    for (const server of document.report.servers) {
      delete server.state
      delete server.reason
      for (const probe of server.probes) {
        probe.after_request_ms = probe.after_begin_ms
        delete probe.after_begin_ms
      }
    }
    const keep = (text: string) =>
      store.write(async (tx) => {
        await tx.updateTable('drills').set({ findings: null }).where('id', '=', id).execute()
        await tx
          .updateTable('drill_reports')
          .set({ document: text })
          .where('ordinal', '=', ready.ordinal)
          .execute()
      })
    await keep(JSON.stringify(document))
    await end(id)
    await keep(ready.document)
    const [ended, made] = await reports(id)
    assert.ok(ended?.version === 2 && made?.version === 2)
    assert.deepEqual([ended.report.stage, ended.report.result], ['ended', 'passed'])
    for (const part of ['moment', 'servers', 'recovery_time_ms', 'production_stall_ms'] as const) {
      assert.deepEqual(ended.report[part], made.report[part], part)
    }
  })

  test('a drill that an earlier release left under way, or without an operation, comes to an honest end, and is deleted then', async () => {
    const { region } = of()
    const id = await make()
    const { store, operations } = region.plane
    const clock = createDrillClock(services(), createLog('test', 'silent'))
    for (const [kind, status, left] of [
      [createDrill1, 'creating', 'error'],
      [deleteDrill1, 'deleting', 'error-deleting'],
      [null, 'creating', 'error'],
      [null, 'deleting', 'error-deleting'],
    ] as const) {
      const about = { project: PROJECT, resourceType: 'drill', resourceId: id }
      const given = await store.write(async (tx) => {
        await tx.updateTable('drills').set({ status }).where('id', '=', id).execute()
        if (kind === null) return null
        return await operations.submit(tx, kind, { ...about, input: {}, entities: {} })
      })
      if (given === null) await clock.turn()
      const [newest] = await operations.list({ ...about, limit: 1 })
      const operation = given ?? newest?.id ?? ''
      const { status: end, errorCode } = await operations.waitFor(operation)
      assert.deepEqual([end, errorCode], ['failed', 'DRILL_OF_OLD'])
      assert.equal((await findDrill(store.db, PROJECT, id))?.status, left)
      const [last] = await reports(id)
      assert.equal(last?.report.failure?.code, 'DRILL_OF_OLD')
    }
    await end(id)
    assert.equal((await reports(id))[0]?.report.teardown?.verdict, 'clean')
  })
}
