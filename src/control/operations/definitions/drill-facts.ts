import { fromJson } from '#control/store/json.ts'
import type { DrillRow } from '#control/store/tables/drills.ts'
import type { DrillMoment, DrillStep, ServerFinding } from '#wire/reports/drill-report.ts'
import type { Probe } from '#wire/site/probes.ts'

/* What stands in the rows of drills as JSON. */

/** What is looked at in a drill. */
export interface DrillOptions {
  /** By protected instance, or `*` for every other one. None: boot. */
  readonly probes: Readonly<Record<string, readonly Probe[]>>
  /** How long the probes together may take, ms. */
  readonly timeoutMs: number
}

/** What a drill has found, for its later reports. */
export interface DrillFindings {
  readonly moment: DrillMoment
  readonly dataAgeMs: number | null
  readonly dataAgeBasis: string
  readonly stallMs: number
  readonly steps: readonly DrillStep[]
  readonly servers: readonly ServerFinding[]
}

export const drillOptions = (row: Pick<DrillRow, 'options'>): DrillOptions =>
  fromJson<DrillOptions>(row.options)

export const drillFindings = (row: Pick<DrillRow, 'findings'>): DrillFindings | null =>
  row.findings === null ? null : fromJson<DrillFindings>(row.findings)

const BOOT: readonly Probe[] = [{ kind: 'boot' }]

/** What is looked at in the server of an instance. */
export const probesFor = ({ probes }: DrillOptions, instance: string): readonly Probe[] =>
  probes[instance] ?? probes['*'] ?? BOOT
