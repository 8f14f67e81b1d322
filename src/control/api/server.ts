import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { Identity } from '#control/identity/identity.ts'
import { catalogueFor } from '#control/identity/catalogue.ts'
import { locate } from '#control/operations/definitions/directory.ts'
import type { ReportSigner } from '#control/operations/services.ts'
import type { OperationEngine } from '#control/operations/engine.ts'
import type { RecoveryScripts } from '#control/operations/services.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import type { SiteClient } from '#control/sites/client.ts'
import type { RegionClient } from '#control/sites/regions.ts'
import type { Witness } from '#control/sites/witness.ts'
import type { Store } from '#control/store/store.ts'
import { csbsDialect } from './csbs/dialect.ts'
import { ecsDialect } from './ecs/dialect.ts'
import { evsDialect } from './evs/dialect.ts'
import { evsVersion } from './evs/surroundings.ts'
import { glanceDialect } from './glance/dialect.ts'
import { createApp } from './http/app.ts'
import { storeAuditLog } from './http/audit.ts'
import type { Api } from './http/dialect.ts'
import { type RateLimitOptions, rateLimit } from './http/rate-limit.ts'
import { iamDialect } from './iam/dialect.ts'
import { karborDialect } from './karbor/dialect.ts'
import { nativeDialect } from './native/dialect.ts'
import { createMetrics } from './native/metrics.ts'
import type { ClientCertificates, StateBackup } from './native/services.ts'
import { neutronDialect } from './neutron/dialect.ts'
import { novaDialect } from './nova/dialect.ts'
import { sdrsDialect, type SdrsOptions } from './sdrs/dialect.ts'
import { sdrsVersion } from './sdrs/surroundings.ts'
import { vpcDialect } from './vpc/dialect.ts'

/** What the public API stands on; all of it made by the composition root. */
export interface ApiDeps {
  readonly store: Store
  readonly clock: Clock
  readonly log: Log
  readonly identity: Identity
  readonly operations: OperationEngine
  /** Left out: recovery plans run no scripts. */
  readonly scripts?: RecoveryScripts | undefined
  readonly agents: AgentRegistry
  readonly witness: Witness
  /** Commands to the agents. */
  readonly commands: SiteClient
  readonly region: string
  /** Sites of the region. */
  readonly sites: readonly string[]
  /** Names of the regions that backups can be copied to. Left out: none. */
  readonly destinations?: readonly string[]
  /** Whether backups of a project may go to a project there. Left out: the copy itself finds out. */
  readonly mayCopy?: RegionClient['mayCopy'] | undefined
  /** Asks another region. Left out: there is none. */
  readonly otherRegions?: Pick<RegionClient, 'call'> | undefined
  readonly agentSilenceMs: number
  /** Scheme, host and port of links when a request does not tell. The scheme is always this one's. */
  readonly publicUrl: string
  /** Of this program. */
  readonly version: string
  readonly stateBackup: StateBackup
  /** Null: no key to sign with. */
  readonly certificates: ClientCertificates | null
  /** The key of drill reports. */
  readonly reports: ReportSigner
  /** PEM of the authority of the agents' certificates. */
  readonly authority: string
  /** PEM. Left out: plain HTTP. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined
  readonly sdrs?: SdrsOptions
  readonly rate?: RateLimitOptions
}

/** The public API with all its dialects; not listening yet. Closing it waits for requests that are being answered. */
export function buildApi(deps: ApiDeps): Api {
  const { store, clock, log, identity, agents, sites, region } = deps
  const audit = storeAuditLog(store, clock)
  const metrics = createMetrics({ store, agents, sites })
  const directory = {
    locate: (project: string, id: string) => locate(deps, project, id),
  }
  const sdrs = sdrsDialect(deps, deps.sdrs)
  const evs = evsDialect(deps)
  const nova = novaDialect(deps)
  const ecs = ecsDialect(deps)
  const networks = [vpcDialect(deps), neutronDialect(deps), glanceDialect(deps)]
  const backupServices = { ...deps, destinations: deps.destinations ?? [] }
  const backups = [csbsDialect(backupServices), karborDialect(backupServices)]
  const native = nativeDialect({ ...deps, directory, metrics })
  const names = [
    'iam',
    sdrs.name,
    evs.name,
    nova.name,
    ecs.name,
    native.name,
    ...networks.map(({ name }) => name),
    ...backups.map(({ name }) => name),
  ]
  const iam = iamDialect({
    ...deps,
    audit,
    catalogue: (origin, project) => catalogueFor({ origin, region, project, dialects: names }),
    // One list for clients of all services; each takes CURRENT, and not all of them take other words.
    versions: (origin) => [sdrsVersion(origin), { ...evsVersion(origin, 'v2'), status: 'CURRENT' }],
  })
  return createApp({
    clock,
    log,
    authenticator: identity.authenticator,
    audit,
    fallback: iam,
    dialects: [iam, sdrs, evs, nova, ecs, ...networks, ...backups, native],
    rate: rateLimit(clock, deps.rate),
    tls: deps.tls,
    observe: (answer) => metrics.answered(answer),
  })
}
