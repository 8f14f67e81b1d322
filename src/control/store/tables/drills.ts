import type { Bit } from '../bit.ts'

/** Drills, what they made, and the reports that they leave. */
export interface DrillTables {
  drills: DrillRow
  drill_servers: DrillServerRow
  drill_disks: DrillDiskRow
  drill_networks: DrillNetworkRow
  drill_reports: DrillReportRow
  drill_schedules: DrillScheduleRow
}

export interface DrillRow {
  /** UUID. */
  id: string
  project: string
  group_id: string
  name: string
  /** See src/domain/drill.ts. */
  status: string
  /** The DR site when it was asked for; everything of the drill is there. */
  az: string
  vpc: string
  /** Id of the snapshot that its disks are cloned from. It is deleted when they are made. */
  snapshot: string
  user_id: string
  /** JSON, DrillOptions of src/control/operations/definitions/drills/drill-facts.ts. */
  options: string
  /** The schedule that began it; null: somebody did. */
  schedule: string | null
  /** 1: it is deleted by itself when its report is written. */
  auto_delete: Bit
  /** JSON, DrillFindings of the same file; null until the snapshot is taken. */
  findings: string | null
  /** Why the status is an error; null otherwise. */
  failure_detail: string | null
  /** When its turn came and it began, wall clock, ms; null: it waits for others to be made. */
  began_at: number | null
  /** The recovery plan that it follows, in the kept form of plan-format.ts; null: none. */
  plan: string | null
  /** When somebody gave it up while its site was silent, wall clock, ms: its group has it no more, and it is cleaned up when the site is heard. */
  forced_at: number | null
  created_at: number
  updated_at: number
}

/** One server for each protected instance. */
export interface DrillServerRow {
  drill: string
  instance: string
  /** Id of the server; its row may be gone before the drill's, when a user deleted it. */
  server: string
  name: string
  /** See src/domain/drill-run.ts. */
  state: string
  /** When its site was asked to start it, and since when it ran by what the site said, wall clock, ms. */
  asked_at: number | null
  started_at: number | null
  settled_at: number | null
  /** Why it is not ready; null otherwise. */
  reason: string | null
  /** JSON, one SeenProbe of drill-facts.ts for each probe. */
  probes: string
}

/** A volume of a drill: never a side of a pair. */
export interface DrillDiskRow {
  /** Id of the clone. */
  volume: string
  drill: string
  pair: string
  /** The disk at the DR site that it shows. */
  source: string
  size_gb: number
  /** 1: the copy is made. */
  cloned: Bit
}

/** The VPC that was made for the drills of a group; later drills use it again. */
export interface DrillNetworkRow {
  group_id: string
  vpc: string
}

/** Kept for good. */
export interface DrillReportRow {
  /** Place in the chain, from 1. */
  ordinal: number
  drill: string
  group_id: string
  project: string
  stage: string
  /** SHA-256 of the report, hex; the next one carries it. */
  hash: string
  /** The bytes of the file, see docs/formats/drill-report.md. */
  document: string
  created_at: number
}

export interface DrillScheduleRow {
  id: string
  project: string
  group_id: string
  name: string
  /** RFC 5545 rule, see src/domain/recurrence.ts, and the time zone that it is meant in. */
  rule: string
  zone: string
  /** The rule counts from here, wall clock, ms. */
  anchor_at: number
  /** JSON, DrillOptions. */
  options: string
  /** VPC for the drill servers; null: the one that is made for the group. */
  vpc: string | null
  enabled: Bit
  /** 1: a moment that passed while nobody looked is made up for, once. */
  run_missed: Bit
  user_id: string
  /** null: never again. */
  next_at: number | null
  last_at: number | null
  last_drill: string | null
  /** `started`, `started late`, `missed`, or the code of why it could not begin; null: its time has not come. */
  last_outcome: string | null
  /** In words, when it could not begin. */
  last_reason: string | null
  /** What its last drill has come to; null: it has not ended. */
  last_result: string | null
  created_at: number
  updated_at: number
}
