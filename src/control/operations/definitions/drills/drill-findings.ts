import { drillServers } from '#control/resources/drills.ts'
import { portsOf } from '#control/resources/networks.ts'
import { readServer } from '#control/resources/servers.ts'
import type { Transaction } from '#control/store/store.ts'
import type { DrillRow, DrillServerRow } from '#control/store/tables/drills.ts'
import { dataAge } from '#domain/drill.ts'
import { afterBegin, leftOut } from '#domain/drill-run.ts'
import type { DrillReport, ProbeFinding, ServerFinding } from '#wire/reports/drill-report.ts'
import type { DrillFindings } from './drill-facts.ts'
import { probesFor, seenProbes } from './drill-facts.ts'
import type { DrillContext, Taken } from './drill-making.ts'
import { stepTimes, theDrill } from './drill-steps.ts'
import { storedPlan } from '../recovery/plan-format.ts'

/* What a drill has found, out of its rows and of what its steps left. */

/** null: no snapshot was taken. */
export async function findingsOf(
  tx: Transaction,
  ctx: DrillContext,
): Promise<DrillFindings | null> {
  const taken = ctx.results['snapshot'] as Taken | undefined
  if (taken === undefined) return null
  const drill = await theDrill(tx, ctx.resourceId)
  const { info, moments, before, after, outOfTouchMs } = taken
  const moment = moments[0] ?? null
  const takenAtMs = Math.round(info.taken_at)
  const age = dataAge({
    takenAtMs,
    replica: moment,
    before,
    after,
    outOfTouchSinceMs: outOfTouchMs,
  })
  return {
    moment: {
      taken_at: takenAtMs,
      session: moment?.session ?? null,
      epoch: moment?.epoch ?? null,
      sequence: moment?.sequence ?? null,
      production_before: before,
      production_after: after,
      kinds: [...new Set(info.volumes.map(({ kind }) => kind))].sort(),
    },
    dataAgeMs: age.ms,
    dataAgeBasis: age.basis,
    stallMs: Math.ceil(info.stall_ms),
    steps: await stepTimes(tx, ctx.id),
    plan: planFollowed(drill),
    servers: await serverFindings(tx, drill),
  }
}

function planFollowed(drill: DrillRow): DrillReport['plan'] {
  if (drill.plan === null) return null
  const plan = storedPlan(drill.plan)
  const { scripts, pauses } = leftOut(plan)
  return { waves: plan.waves.length, scripts_left_out: scripts, pauses_left_out: pauses }
}

export async function serverFindings(tx: Transaction, drill: DrillRow): Promise<ServerFinding[]> {
  const rows = (await drillServers(tx, [drill.id])).get(drill.id) ?? []
  const ports = await portsOf(
    tx,
    rows.map(({ server }) => server),
  )
  const found: ServerFinding[] = []
  for (const row of rows) {
    found.push({
      instance: row.instance,
      server: row.server,
      name: row.name,
      flavor: (await readServer(tx, row.server))?.flavor ?? '',
      addresses: (ports.get(row.server) ?? []).map(({ address }) => address),
      state: row.state,
      reason: row.reason,
      started_at: row.started_at,
      probes: row.asked_at === null ? [] : probeFindings(drill, row),
    })
  }
  return found
}

function probeFindings(drill: DrillRow, row: DrillServerRow): ProbeFinding[] {
  const seen = seenProbes(row)
  return probesFor(drill, row.instance).map(({ probe }, index) => {
    const { ok, detail, since_start_ms } = seen[index] ?? {
      ok: false,
      detail: 'nobody looked',
      since_start_ms: null,
    }
    const after_begin_ms =
      ok && since_start_ms !== null && row.started_at !== null
        ? afterBegin(drill.began_at ?? drill.created_at, row.started_at, since_start_ms)
        : null
    return { probe, ok, detail, since_start_ms, after_begin_ms }
  })
}
