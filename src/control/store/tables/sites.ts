import type { Bit } from '../bit.ts'

/** Agents, ownership records and the audit log. */
export interface SiteTables {
  agents: AgentRow
  ownership: OwnershipRow
  ownership_changes: OwnershipChangeRow
  audit: AuditRow
}

/** Last words of an agent. One row per site and agent id. */
export interface AgentRow {
  site: string
  agent: string
  boot_id: string
  run_id: string
  version: string
  command_address: string
  link_address: string
  nbd_unix: string
  nbd_tcp: string | null
  nbd_tls: Bit
  /** JSON of the whole last report that was stored. */
  report: string
  first_seen_at: number
  /** On SQLite renewed every few seconds only: a running control plane keeps the exact time in memory. */
  last_seen_at: number
}

/** The witness's truth about one session; the rules are in src/domain/ownership.ts. */
export interface OwnershipRow {
  session: string
  epoch: number
  state: string
  writer: string
  replica: string
  mode: string
  preferred: string
  incarnation: string
  attempt: string
  /** Null: no lease. */
  lease_holder: string | null
  lease_ends_boot_ms: number | null
  /** The boot whose CLOCK_BOOTTIME `lease_ends_boot_ms` is. */
  lease_boot_id: string | null
  /** Length for which it was granted, so that a witness on another boot knows how long to wait at most. */
  lease_ms: number | null
  /** JSON of `AloneWork`; null: nothing that the other side is known to lack. */
  alone: string | null
  /** One more with every grant and every change: tells a foreign lease that is alive from one that stands still. */
  serial: number
  /** Equal to `meta.history_mark` while the record is known to be complete; `doubt:MARK` while sites are heard. */
  history_mark: string
  /** JSON, site → what it reported under that doubt; '{}' while trusted. */
  heard: string
  updated_at: number
}

/** Every change of every ownership record; rows are never changed. */
export interface OwnershipChangeRow {
  session: string
  epoch: number
  /** The move, or `adopt` when the record was taken over from the agents. */
  kind: string
  state: string
  writer: string
  replica: string
  attempt: string
  /** `site:NAME`, `operation:ID` or `operator:NAME`. */
  asked_by: string
  incarnation: string
  at: number
}

/** Who changed what; rows are never changed or deleted. */
export interface AuditRow {
  id: string
  at: number
  project: string | null
  /** User id, or `system`. */
  actor: string
  /** Address of the client; null for the system's own. */
  source: string | null
  /** Verb and noun, e.g. `protection-group.failover`. */
  action: string
  target: string | null
  /** HTTP status of the answer, or 0. */
  result: number
  /** JSON, without secrets. */
  detail: string
}
