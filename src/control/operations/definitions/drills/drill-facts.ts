import { fromJson } from '#control/store/json.ts'
import type { DrillRow, DrillServerRow } from '#control/store/tables/drills.ts'
import {
  type DrillServerState,
  probesOfServer,
  rehearsed,
  type WantedProbe,
} from '#domain/drill-run.ts'
import type { RecoveryPlan } from '#domain/recovery-plan.ts'
import type {
  DrillMoment,
  DrillReport,
  DrillStep,
  ServerFinding,
} from '#wire/reports/drill-report.ts'
import type { Probe } from '#wire/site/probes.ts'
import { storedPlan } from '../recovery/plan-format.ts'

/* What stands in the rows of drills as JSON. */

/** What is looked at in a drill. */
export interface DrillOptions {
  /** By protected instance, or `*` for every other one. None: boot. */
  readonly probes: Readonly<Record<string, readonly Probe[]>>
  /** How long the probes of a server may take from its start, ms; those of a plan have their own. */
  readonly timeoutMs: number
  /** Left out: the recovery plan of the group is followed, if it has one. */
  readonly plan?: 'ignore'
}

/** What a drill has found, for its later reports. */
export interface DrillFindings {
  readonly moment: DrillMoment
  readonly dataAgeMs: number | null
  readonly dataAgeBasis: string
  readonly stallMs: number
  readonly steps: readonly DrillStep[]
  readonly plan: DrillReport['plan']
  readonly servers: readonly ServerFinding[]
}

/** What a probe saw last. */
export interface SeenProbe {
  readonly ok: boolean
  readonly detail: string
  /** From the guest's start until it first succeeded, as its site measured. */
  readonly since_start_ms: number | null
}

export const drillOptions = (row: Pick<DrillRow, 'options'>): DrillOptions =>
  fromJson<DrillOptions>(row.options)

export const drillFindings = (row: Pick<DrillRow, 'findings'>): DrillFindings | null =>
  row.findings === null ? null : fromJson<DrillFindings>(row.findings)

/** null: it follows none. */
export const drillPlan = (row: Pick<DrillRow, 'plan'>): RecoveryPlan<Probe> | null =>
  row.plan === null ? null : rehearsed(storedPlan(row.plan))

const BOOT: Probe = { kind: 'boot' }

/** What is looked at in the server of an instance. */
export const probesFor = (
  row: Pick<DrillRow, 'options' | 'plan'>,
  instance: string,
): readonly WantedProbe<Probe>[] =>
  probesOfServer(drillOptions(row), drillPlan(row), instance, BOOT)

export const stateOf = (row: Pick<DrillServerRow, 'state'>): DrillServerState =>
  row.state as DrillServerState

export const seenProbes = (row: Pick<DrillServerRow, 'probes'>): readonly SeenProbe[] =>
  fromJson<SeenProbe[]>(row.probes)
