import type { Clock } from '#base/clock.ts'
import type { Identity } from '#control/identity/identity.ts'
import type { Location } from '#control/operations/definitions/directory.ts'
import type { ReportSigner } from '#control/operations/services.ts'
import type { RecoveryScripts } from '#control/operations/services.ts'
import type { OperationEngine } from '#control/operations/engine.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import type { SiteClient } from '#control/sites/client.ts'
import type { Witness } from '#control/sites/witness.ts'
import type { Store } from '#control/store/store.ts'
import type { Metrics } from './metrics.ts'

/** Where volumes and pairs may be written. */
export interface VolumeDirectory {
  /** `id`: of a volume or a pair of the project. */
  locate(project: string, id: string): Promise<Location>
}

/** Credentials for NBD over TLS. */
export interface ClientCertificates {
  /** PEM. The certificate names project and user, and agents check both. */
  issue(
    project: string,
    user: string,
  ): Promise<{ readonly cert: string; readonly key: string; readonly expiresAtMs: number }>
}

/** Writes the whole state to a file on the control plane's own disk. */
export interface StateBackup {
  run(): Promise<{
    readonly file: string
    readonly rows: number
    readonly bytes: number
    readonly incarnation: string
  }>
}

/** What the handlers of this dialect work with. */
export interface NativeServices {
  readonly store: Store
  readonly clock: Clock
  readonly identity: Identity
  readonly operations: OperationEngine
  readonly agents: AgentRegistry
  readonly witness: Witness
  /** Commands to the agents. */
  readonly commands: SiteClient
  readonly directory: VolumeDirectory
  /** Left out: recovery plans run no scripts here. */
  readonly scripts?: RecoveryScripts | undefined
  readonly stateBackup: StateBackup
  /** Null: this control plane has no key to sign with. */
  readonly certificates: ClientCertificates | null
  /** The key of drill reports. */
  readonly reports: ReportSigner
  /** PEM of the authority that signed the agents' certificates. */
  readonly authority: string
  readonly metrics: Metrics
  readonly region: string
  readonly sites: readonly string[]
  /** A report older than this says nothing about the present, milliseconds. */
  readonly agentSilenceMs: number
  /** Of this program. */
  readonly version: string
  /** Scheme, host and port of links when a request does not tell. */
  readonly publicUrl: string
}
