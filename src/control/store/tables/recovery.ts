import type { Bit } from '../bit.ts'

/** Recovery plans of groups, the runs that followed them, and automatic failover. */
export interface RecoveryTables {
  recovery_plans: RecoveryPlanRow
  recovery_runs: RecoveryRunRow
  recovery_servers: RecoveryServerRow
  automatic_failovers: AutomaticFailoverRow
  automatic_failover_verdicts: AutomaticFailoverVerdictRow
}

export interface RecoveryPlanRow {
  group_id: string
  project: string
  /** JSON, see src/control/operations/recovery/plan-format.ts. */
  plan: string
  updated_by: string
  updated_at: number
}

/** Written once when a run begins, and moved along the table of src/domain/recovery-plan.ts. Runs are forgotten with their group. */
export interface RecoveryRunRow {
  /** Also the id of its operation. */
  id: string
  group_id: string
  project: string
  /** Site whose servers are started, and the group's station that made it production. */
  site: string
  station: string
  /** `failover`, `reverse` or `operator`. */
  reason: string
  state: string
  /** JSON array of `Pause`. */
  pauses: string
  /** JSON array of wave numbers. */
  passed: string
  /** JSON: the plan as it was when the run began. */
  plan: string
  /** Who ended the last pause, or aborted it; null: nobody. */
  touched_by: string | null
  started_at: number
  ended_at: number | null
}

export interface RecoveryServerRow {
  run: string
  instance: string
  server: string
  /** Place in the run's order, from 0. */
  place: number
  /** See src/domain/recovery-plan.ts. */
  state: string
  /** The operation that sees to it. */
  operation: string
  /** When the server was told to start, when it was ready, and when its part of the run ended. */
  started_at: number | null
  ready_at: number | null
  ended_at: number | null
  /** Why it is not ready: a code and a sentence; null otherwise. */
  reason_code: string | null
  reason: string | null
  /** JSON array: what each probe saw last. */
  probes: string
  /** JSON: what the scripts before and after said; null: none has ended. */
  script_before: string | null
  script_after: string | null
  /** JSON, `ScriptAttempt`: the script that was begun and of which no end is known; null: there is none. */
  script_attempt: string | null
}

export interface AutomaticFailoverRow {
  group_id: string
  project: string
  enabled: Bit
  /** 0: it has acted, and waits for an operator. */
  armed: Bit
  /** Why it does not act for the time being, in an operator's words; null: it may. */
  hold: string | null
  /** Shortest silence of the production site before it acts. */
  silence_ms: number
  /** How long after an automatic failover it may not be armed again. */
  cool_down_ms: number
  /** Verdict of the last look, JSON of codes: a change of it is a row of `automatic_failover_verdicts`. */
  verdict: string
  /** Raised with every change of this row: whoever acts, acts on what it has read. */
  serial: number
  acted_at: number | null
  operation: string | null
  updated_by: string
  updated_at: number
}

/** Why it acted, and why not. */
export interface AutomaticFailoverVerdictRow {
  group_id: string
  ordinal: number
  at: number
  /** `stands_by`, `waits`, `refuses` or `acts`. */
  verdict: string
  /** JSON array of codes. */
  reasons: string
  /** JSON object: everything that was looked at. */
  facts: string
  /** The failover that it began; null: none. */
  operation: string | null
}
