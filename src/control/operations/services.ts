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
  readonly scripts: RecoveryScripts
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

/**
 * Executables that the operator of this control plane has put into one directory for each project: a plan of a project names those of its
 * own and no others.
 */
export interface RecoveryScripts {
  /** Names this process among those that may run a script. */
  readonly owner: string
  /** Why the executable of this name cannot be run for the project, in words for people; null: it can. */
  unfit(project: string, name: string): Promise<string | null>
  /** The call with this key has a place, or has begun and its outcome is not kept yet. */
  runs(key: string): boolean
  /** Keeps a place for the call until `begin` or `release`. False: it has one, or as many run as may at once; ask again later. */
  reserve(key: string): boolean
  /** Gives back a place that nothing was begun in. */
  release(key: string): void
  /** For how long this process has seen this sign of life of whoever runs the call, ms; 0 when it is new. */
  quietMs(key: string, sign: string): number
  /**
   * Begins a script for which a place is reserved. One that an earlier process left running under the same key is ended first. `ended` is called with what became of it,
   * and again after a pause for as long as it rejects. It is not called for a script that was cut short by `end` or `stop`: nobody knows
   * how far that came. Resolves when all of that is over; never rejects.
   */
  begin(call: ScriptCall, ended: (outcome: ScriptOutcome) => Promise<void>): Promise<void>
  /** Cuts the script of this key short, if it runs. */
  end(key: string): void
  /** Cuts all of them short and waits for their ends. */
  stop(): Promise<void>
}

export interface ScriptCall {
  readonly project: string
  readonly name: string
  /** Names the call: the same again is a repetition of it. */
  readonly key: string
  /** Nothing else of this process's environment is passed on, but for PATH. */
  readonly environment: Readonly<Record<string, string>>
  readonly timeoutMs: number
}

export interface ScriptOutcome {
  readonly ok: boolean
  /** Why not, in one line; null when it ended with 0. */
  readonly reason: string | null
  /** The end of what it printed. */
  readonly output: string
}
