import { assert } from '#base/assert.ts'
import { drillDisks, drillServers, insertReport, lastReport } from '#control/resources/drills.ts'
import { productionAz, readGroup } from '#control/resources/groups.ts'
import type { Transaction } from '#control/store/store.ts'
import type { DrillRow } from '#control/store/tables/drills.ts'
import type { DrillReport, DrillStep, ServerFinding, Teardown } from '#wire/reports/drill-report.ts'
import { GENESIS, seal } from '#wire/reports/sealed.ts'
import type { Failure } from '../operation.ts'
import type { OperationServices } from '../services.ts'
import { type DrillFindings, drillFindings } from './drill-facts.ts'

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
  const group = await readGroup(tx, drill.group_id)
  assert(group !== undefined, 'a group with a drill exists')
  const disks = await drillDisks(tx, drill.id)
  const findings = parts.findings === undefined ? drillFindings(drill) : parts.findings
  const servers = [...(findings?.servers ?? (await unseen(tx, drill)))]
  const now = clock.wallMs()
  const recoveryTime = recoveryTimeOf(servers)
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
    },
    group: {
      id: group.id,
      name: group.name,
      status: group.status,
      production_site: productionAz(group),
      dr_site: drill.az,
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
    servers,
    recovery_time_ms: recoveryTime,
    result: resultOf(findings, servers, stage),
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
}

const textOf = ({ code, message, step }: Failure) => ({
  code,
  message: message.toWellFormed().slice(0, 1_000),
  step,
})

/** Nothing was looked at: the drill failed before. */
async function unseen(tx: Transaction, drill: DrillRow): Promise<ServerFinding[]> {
  const rows = (await drillServers(tx, [drill.id])).get(drill.id) ?? []
  return rows.map(({ instance, server, name }) => ({
    instance,
    server,
    name,
    flavor: '',
    addresses: [],
    started_at: null,
    probes: [],
  }))
}

/** The last of the successes; null: not everything succeeded, or there was nothing to look at. */
function recoveryTimeOf(servers: readonly ServerFinding[]): number | null {
  const times = servers.flatMap(({ probes }) =>
    probes.map(({ ok, after_request_ms }) => (ok ? after_request_ms : null)),
  )
  const known = times.filter((ms) => ms !== null)
  return known.length === 0 || known.length < times.length ? null : Math.max(...known)
}

function resultOf(
  findings: DrillFindings | null,
  servers: readonly ServerFinding[],
  stage: DrillReport['stage'],
): DrillReport['result'] {
  const looked = findings !== null && servers.every(({ started_at }) => started_at !== null)
  if (stage === 'failed' || !looked) return 'failed'
  const passed = servers.every(({ probes }) => probes.every(({ ok }) => ok))
  return passed ? 'passed' : 'probes_failed'
}
