import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import type { SiteClient } from '#control/sites/client.ts'
import type { RegionClient } from '#control/sites/regions.ts'
import type { Witness } from '#control/sites/witness.ts'
import type { Store } from '#control/store/store.ts'

/** What steps may use; built by the composition root, replaced by fakes in tests. */
export interface OperationServices {
  readonly store: Store
  readonly clock: Clock
  readonly log: Log
  /** Commands to the agents of a site. */
  readonly sites: SiteClient
  /** What the agents last said about themselves and their sessions. */
  readonly agents: AgentRegistry
  /** The ownership records. */
  readonly witness: Witness
  /** Signs what is handed out as proof. */
  readonly reports: ReportSigner
  /** Left out: this control plane was told of no other region. */
  readonly regions?: RegionClient
  /** Left out: this control plane has no directory of scripts. */
  readonly scripts?: RecoveryScripts
}

/** The installation's own key for reports. The first use makes it. */
export interface ReportSigner {
  /** Names the key, see docs/formats/drill-report.md. */
  key(): string
  /** Ed25519. */
  sign(bytes: Buffer): Buffer
  /** PEM, for whoever checks. */
  publicKey(): string
}

/** Executables that the operator of this control plane has put in one directory for recovery plans. */
export interface RecoveryScripts {
  /** Why the executable of this name cannot be run, in words for people; null: it can. */
  unfit(name: string): Promise<string | null>
  /**
   * Runs it and waits for its end. One that an earlier call with the same key left running is ended first. Never rejects for what the
   * script does; rejects with the signal's reason.
   */
  run(name: string, call: ScriptCall): Promise<ScriptOutcome>
}

export interface ScriptCall {
  /** Names the call: the same again is a repetition of it. */
  readonly key: string
  /** Nothing else of this process's environment is passed on, but for PATH. */
  readonly environment: Readonly<Record<string, string>>
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

export interface ScriptOutcome {
  readonly ok: boolean
  /** Why not, in one line; null when it ended with 0. */
  readonly reason: string | null
  /** The end of what it printed. */
  readonly output: string
}
