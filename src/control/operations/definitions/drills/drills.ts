import { Fault, fault } from '#base/fault.ts'
import { drillDisks, drillServers, moveDrill } from '#control/resources/drills.ts'
import { readServer, updateServer } from '#control/resources/servers.ts'
import { moveVolume, readVolume } from '#control/resources/volumes.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type { DrillDiskRow } from '#control/store/tables/drills.ts'
import { operation, step } from '../../operation.ts'
import { stateOf } from './drill-facts.ts'
import { findingsOf } from './drill-findings.ts'
import {
  cloneAll,
  type DrillContext,
  recordCloned,
  releaseSnapshot,
  type Taken,
  takeSnapshot,
  takeTurn,
  wakeNext,
} from './drill-making.ts'
import { writeReport } from './drill-reports.ts'
import { runServers } from './drill-servers.ts'
import { stepTimes, theDrill } from './drill-steps.ts'

/* A drill is made.
 *
 *     turn       waits while enough others are being made
 *     snapshot   all disks of the DR side at one moment, without touching replication; what production said before and after it
 *     clone      a volume for each disk
 *     release    the snapshot goes: the copies do not need it, and it would cost writes of the DR side
 *     servers    definitions, guests and probes, in the order of the recovery plan
 *     finish     available, and the report; a drill whose probes fail is a drill that was made, one whose servers cannot be started is not
 *
 * Every step is safe to repeat. A snapshot that was taken by a try whose answer was lost is taken again, because its moment is known to nobody.
 * `turn`, `clone` and `servers` last as long as others take, and hold no place while they wait.
 */

export const DRILL_NOT_STARTED = fault({
  code: 'DRILL_NOT_STARTED',
  retry: 'never',
  text: 'A server of the drill could not be started.',
  hint: 'The report says which, and why. Delete the drill, and make it again.',
})

export const createDrill = operation<Record<string, never>>('drill.create', {
  version: 2,
  steps: [
    step('turn', { cancellable: true, record: takeTurn }),
    step<Record<string, never>, Taken>('snapshot', { act: takeSnapshot }),
    step('clone', { weight: 6, act: cloneAll, record: recordCloned }),
    step('release', { act: releaseSnapshot }),
    step('servers', { weight: 8, act: runServers }),
    step('finish', {
      act: refuseUnstarted,
      record: async (tx, ctx) => {
        const now = ctx.services.clock.wallMs()
        const drill = await theDrill(tx, ctx.resourceId)
        const findings = await findingsOf(tx, ctx)
        await recordUnmade(tx, ctx, [])
        await moveDrill(tx, drill.id, 'available', { findings: toJson(findings) }, now)
        const parts = { drill, findings, failure: null, teardown: null }
        await writeReport(tx, ctx.services, { ...parts, stage: 'ready' })
        await wakeNext(tx, ctx)
      },
    }),
  ],
  // What was made stays until the drill is deleted.
  failed: async (tx, ctx, failure) => {
    const now = ctx.services.clock.wallMs()
    const drill = await theDrill(tx, ctx.resourceId)
    await recordUnmade(tx, ctx, await drillDisks(tx, drill.id))
    const findings = await findingsOf(tx, ctx)
    const change = {
      findings: findings === null ? null : toJson(findings),
      failure_detail: failure.message.slice(0, 500),
    }
    await moveDrill(tx, drill.id, 'error', change, now)
    const steps = await stepTimes(tx, ctx.id)
    const parts = { drill, findings, steps, failure, teardown: null }
    await writeReport(tx, ctx.services, { ...parts, stage: 'failed' })
    await wakeNext(tx, ctx)
  },
})

async function refuseUnstarted(ctx: DrillContext): Promise<void> {
  const rows = (await drillServers(ctx.services.store.db, [ctx.resourceId])).get(ctx.resourceId)
  const unstarted = (rows ?? []).filter(
    (row) => stateOf(row) === 'not_ready' && row.started_at === null,
  )
  if (unstarted.length === 0) return
  const reasons = unstarted.map(({ name, reason }) => `${name}: ${reason}`).join('; ')
  throw new Fault(DRILL_NOT_STARTED, `making drill ${ctx.resourceId}: ${reasons}`)
}

/** What was being made and is not. `disks`: those whose copies are given up. */
export async function recordUnmade(
  tx: Transaction,
  ctx: DrillContext,
  disks: readonly DrillDiskRow[],
): Promise<void> {
  const now = ctx.services.clock.wallMs()
  for (const { volume } of disks) {
    if ((await readVolume(tx, volume))?.status === 'creating') {
      await moveVolume(tx, volume, 'error', now)
    }
  }
  const rows = (await drillServers(tx, [ctx.resourceId])).get(ctx.resourceId) ?? []
  for (const { server } of rows) {
    const row = await readServer(tx, server)
    if (row?.task !== 'spawning') continue
    await updateServer(tx, server, { status: 'error', task: null }, now)
  }
}
