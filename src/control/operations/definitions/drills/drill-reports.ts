import { assert } from '#base/assert.ts'
import {
  drillDisks,
  findReport,
  insertReport,
  lastReport,
  noteScheduleResult,
} from '#control/resources/drills.ts'
import { productionAz, readGroup } from '#control/resources/groups.ts'
import type { Transaction } from '#control/store/store.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { DrillRow } from '#control/store/tables/drills.ts'
import { verdictOf } from '#domain/drill-run.ts'
import type { DrillReport, DrillStep, ServerFinding, Teardown } from '#wire/reports/drill-report.ts'
import { GENESIS, seal, type SealedReport } from '#wire/reports/sealed.ts'
import type { Failure } from '../../operation.ts'
import type { OperationServices } from '../../services.ts'
import { type DrillFindings, drillFindings } from './drill-facts.ts'
import { serverFindings } from './drill-findings.ts'

/* Reports are written in the transaction that ends what they tell of, so that a drill and its report never disagree, and that they form a
 * chain: the place in it is a primary key, so two that are written at once cannot both follow the same one. */

export interface ReportParts {
  readonly drill: DrillRow
  readonly stage: DrillReport['stage']
  /** What was found until now; null: no snapshot was taken. Default: as the row has it. */
  readonly findings?: DrillFindings | null
  readonly steps?: readonly DrillStep[]
  readonly failure: Failure | null
  readonly teardown: Teardown | null
}

export async function writeReport(
  tx: Transaction,
  { reports, clock }: Pick<OperationServices, 'reports' | 'clock'>,
  parts: ReportParts,
): Promise<void> {
  const { drill, stage, failure, teardown } = parts
  const before = await lastReport(tx)
  const group = await groupOf(tx, drill)
  const disks = await drillDisks(tx, drill.id)
  const kept = drillFindings(drill) ?? (stage === 'ended' ? await reported(tx, drill) : null)
  const findings = parts.findings === undefined ? kept : parts.findings
  const servers = [...(findings?.servers ?? (await serverFindings(tx, drill)))]
  const now = clock.wallMs()
  const result = resultOf(findings, servers, stage)
  const report: DrillReport = {
    ordinal: (before?.ordinal ?? 0) + 1,
    previous: before?.hash ?? GENESIS,
    made_at: now,
    stage,
    drill: {
      id: drill.id,
      name: drill.name,
      project: drill.project,
      user: drill.user_id,
      schedule: drill.schedule,
      requested_at: drill.created_at,
      began_at: drill.began_at,
    },
    group: {
      ...group,
      disks: disks.map(({ pair, source, volume, size_gb }) => ({
        pair,
        source,
        clone: volume,
        size_gb,
      })),
    },
    moment: findings?.moment ?? null,
    data_age_ms: findings?.dataAgeMs ?? null,
    data_age_basis: findings?.dataAgeBasis ?? 'unknown',
    production_stall_ms: findings?.stallMs ?? null,
    steps: [...(parts.steps ?? findings?.steps ?? [])],
    plan: findings?.plan ?? null,
    servers,
    recovery_time_ms: recoveryTimeOf(servers, result),
    result,
    failure: failure === null ? null : textOf(failure),
    teardown,
  }
  const { hash, text } = seal(report, reports.key(), (bytes) => reports.sign(bytes))
  await insertReport(tx, {
    ordinal: report.ordinal,
    drill: drill.id,
    group_id: group.id,
    project: drill.project,
    stage,
    hash,
    document: text,
    created_at: now,
  })
  if (drill.schedule !== null) {
    const told = teardown?.verdict === 'not_clean' ? `${result}, not_clean` : result
    await noteScheduleResult(tx, drill.schedule, drill.id, told)
  }
}

/** A drill of an earlier release has what it found in its report and nowhere else. Null: it was never ready. */
async function reported(tx: Transaction, drill: DrillRow): Promise<DrillFindings | null> {
  const row = await findReport(tx, drill.project, { drill: drill.id, stage: 'ready' })
  if (row === undefined) return null
  const sealed = fromJson<SealedReport>(row.document)
  const { moment, production_stall_ms, data_age_ms, data_age_basis, steps } = sealed.report
  if (moment === null || production_stall_ms === null) return null
  return {
    moment,
    dataAgeMs: data_age_ms,
    dataAgeBasis: data_age_basis,
    stallMs: production_stall_ms,
    steps,
    plan: sealed.version === 2 ? sealed.report.plan : null,
    servers: sealed.version === 2 ? sealed.report.servers : sealed.report.servers.map(ofVersion1),
  }
}

/** There it began with its request, and a server was ready when everything that it was asked had succeeded. */
const ofVersion1 = (server: Report1['servers'][number]): ServerFinding => ({
  ...server,
  state: server.probes.every(({ ok }) => ok) ? 'ready' : 'not_ready',
  reason: null,
  probes: server.probes.map(({ after_request_ms, ...probe }) => ({
    ...probe,
    after_begin_ms: after_request_ms,
  })),
})

type Report1 = Extract<SealedReport, { readonly version: 1 }>['report']

/** The newest report of the drill says the same of its end. */
export async function endIsReported(
  tx: Transaction,
  drill: DrillRow,
  { verdict, reasons }: Teardown,
): Promise<boolean> {
  const row = await findReport(tx, drill.project, { drill: drill.id })
  if (row === undefined) return false
  const { teardown } = fromJson<SealedReport>(row.document).report
  return teardown?.verdict === verdict && toJson(teardown.reasons) === toJson(reasons)
}

/** One that was given up may outlive its group; then its earlier report knows it. */
async function groupOf(
  tx: Transaction,
  drill: DrillRow,
): Promise<Omit<DrillReport['group'], 'disks'>> {
  const group = await readGroup(tx, drill.group_id)
  if (group !== undefined) {
    return {
      id: group.id,
      name: group.name,
      status: group.status,
      production_site: productionAz(group),
      dr_site: drill.az,
    }
  }
  const earlier = await findReport(tx, drill.project, { drill: drill.id })
  assert(earlier !== undefined, 'a drill without its group was reported when it was given up')
  const { disks: _, ...known } = fromJson<SealedReport>(earlier.document).report.group
  return known
}

const textOf = ({ code, message, step }: Failure) => ({
  code,
  message: message.toWellFormed().slice(0, 1_000),
  step,
})

/** Until the last of the successes; null: it did not pass. */
function recoveryTimeOf(
  servers: readonly ServerFinding[],
  result: DrillReport['result'],
): number | null {
  if (result !== 'passed') return null
  const times = servers.flatMap(({ probes }) => probes.map(({ after_begin_ms }) => after_begin_ms))
  const known = times.filter((ms) => ms !== null)
  return known.length < times.length ? null : Math.max(...known)
}

const resultOf = (
  findings: DrillFindings | null,
  servers: readonly ServerFinding[],
  stage: DrillReport['stage'],
): DrillReport['result'] => {
  const made = findings !== null && stage !== 'failed' && !servers.some(isUnmade)
  return made ? verdictOf(servers) : 'failed'
}

const isUnmade = ({ state, started_at }: ServerFinding): boolean =>
  started_at === null && state !== 'skipped'
