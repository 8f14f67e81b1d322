import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import { rounds } from '#base/rounds.ts'
import { createAutomaticFailover } from '#control/operations/automatic-failover.ts'
import { createBackupSchedule } from '#control/operations/backup-schedule.ts'
import { createEngine, type OperationEngine } from '#control/operations/engine.ts'
import { operationKinds } from '#control/operations/definitions/list.ts'
import { createLimitSync } from '#control/operations/limit-sync.ts'
import { createPowerSync } from '#control/operations/power-sync.ts'
import { createRpoWatch } from '#control/operations/rpo-watch.ts'
import type { CrashPoint } from '#control/operations/runner.ts'
import type { OperationServices } from '#control/operations/services.ts'
import { type AgentBook, createAgentBook } from '#control/sites/agents.ts'
import { type ClientCredential, createSiteClient, type SiteClient } from '#control/sites/client.ts'
import { createRegionClient } from '#control/sites/regions.ts'
import { type InternalServer, serveInternal } from '#control/sites/server.ts'
import { createWitness, type Witness } from '#control/sites/witness.ts'
import { beginRun, endRun, readMeta } from '#control/store/meta.ts'
import { checkDurability, type OpenStore, openStore } from '#control/store/open.ts'
import { STORE_NOT_DURABLE } from '#control/store/postgres/durability.ts'
import type { Store } from '#control/store/store.ts'
import type { ControlConfig } from './config.ts'
import { openReportKey } from './report-key.ts'
import { recoveryScripts } from './scripts.ts'

/* Everything of a control plane below its public API: state, witness, agents, operations, and the internal port. */

export interface Plane {
  readonly store: Store
  readonly agents: AgentBook
  readonly sites: SiteClient
  readonly witness: Witness
  readonly operations: OperationEngine
  readonly services: OperationServices
  readonly internal: InternalServer
  /** Stops in order, and leaves the mark that says so. Calling it twice is fine. */
  close(): Promise<void>
}

export interface PlaneOptions {
  readonly config: ControlConfig
  readonly clock: Clock
  readonly log: Log
  readonly random: () => number
  /** Boot id of this host. */
  readonly bootId: string
  /** Ends the process at a boundary of an operation; tests only. */
  readonly crashPoint?: CrashPoint | undefined
}

/** How often is read from a shared database what other control planes heard and granted. */
const REFRESH_MS = 1_000

/** How often a shared database is asked whether a standby has come that commits do not wait for. */
const DURABILITY_MS = 60_000

/** The address of the state database as openStore takes it. */
export function storeOptions(
  database: ControlConfig['database'],
  clock: Clock,
  log: Log,
): OpenStore {
  return database.kind === 'sqlite'
    ? { url: `sqlite:${database.path}`, clock, log }
    : { url: database.url, passwordFile: database.passwordFile, clock, log }
}

/** Opens the state and starts to answer agents and to run operations. */
export async function startPlane(options: PlaneOptions): Promise<Plane> {
  const { config, clock, log, random, bootId, crashPoint } = options
  const undo: (() => Promise<void>)[] = []
  const close = async () => {
    for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step()
  }
  try {
    const store = await openStore(storeOptions(config.database, clock, log))
    undo.push(() => store.close())
    await store.claim()
    const { doubt, unclean } = await beginRun(store, bootId)
    undo.push(() => endRun(store))
    if (unclean) log.warn('the control plane before this one did not stop in order')
    if (doubt !== null) {
      log.warn({ doubt }, 'ownership records wait for reports of both their sites')
    }

    const agents = createAgentBook({ store, clock, silenceMs: config.agentSilenceMs, log })
    await agents.refresh()
    const credential = readCredential(config)
    const sites = createSiteClient(agents, credential, async () => {
      return (await readMeta(store.db)).history_mark
    })
    undo.push(() => sites.close())
    const witness = createWitness({
      store,
      clock,
      log,
      bootId,
      leaseMs: config.leaseMs,
      driftMs: config.leaseDriftMs,
      // Longer than the pause between two reports; short enough that a lease outlasts it and a restart.
      reportGraceMs: Math.min(config.agentSilenceMs, config.leaseMs / 4),
    })
    await witness.watchLeases()
    const regions = createRegionClient(config.regions, () => clock.bootMs())
    undo.push(() => regions.close())
    const scripts = recoveryScripts(config.recoveryScripts ?? null, { clock, log, owner: newId() })
    const services: OperationServices = {
      store,
      clock,
      log,
      sites,
      agents,
      witness,
      reports: openReportKey(join(config.dataDir, 'report-key.pem')),
      regions,
      scripts,
    }
    const operations = createEngine({
      store,
      clock,
      log,
      services,
      kinds: operationKinds,
      random,
      ...(crashPoint === undefined ? {} : { crashPoint }),
    })
    const internal = await serveInternal({
      listen: config.internalListen,
      credential,
      agents,
      witness,
      incarnation: async () => (await readMeta(store.db)).incarnation,
      log,
    })
    undo.push(() => internal.close())
    if (store.shared) {
      const refresh = async () => {
        await agents.refresh()
        await witness.watchLeases()
      }
      const failed = (error: unknown) => log.warn({ err: error }, 'upkeep failed; it is repeated')
      const upkeep = [
        rounds(clock, REFRESH_MS, refresh, failed),
        rounds(clock, DURABILITY_MS, () => warnOfForgetfulness(store, log), failed),
      ]
      for (const one of upkeep) {
        one.start(0)
        undo.push(() => one.stop())
      }
    }
    operations.start()
    undo.push(async () => {
      // First nobody begins another script.
      await operations.stop()
      await scripts?.stop()
    })
    const powerSync = createPowerSync({ store, clock, log, agents, sites })
    powerSync.start()
    undo.push(() => powerSync.stop())
    const rpoWatch = createRpoWatch({
      store,
      clock,
      log,
      agents,
      agentSilenceMs: config.agentSilenceMs,
    })
    rpoWatch.start()
    undo.push(() => rpoWatch.stop())
    const { sites: siteNames, agentSilenceMs, leaseMs, leaseDriftMs: driftMs } = config
    const automatic = createAutomaticFailover({
      services: { store, operations, clock, agents, witness, agentSilenceMs, sites: siteNames },
      clock,
      log,
      leaseMs,
      driftMs,
    })
    automatic.start()
    undo.push(() => automatic.stop())
    const backupSchedule = createBackupSchedule({
      store,
      clock,
      log,
      operations,
      region: config.region,
      destinations: regions.names,
    })
    backupSchedule.start()
    undo.push(() => backupSchedule.stop())
    const limitSync = createLimitSync({ store, clock, log, agents, sites })
    limitSync.start()
    undo.push(() => limitSync.stop())
    return { store, agents, sites, witness, operations, services, internal, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** At the start it is refused. Refusing later would be the failure itself, so it is only said, as long as it lasts. */
async function warnOfForgetfulness(store: Store, log: Log): Promise<void> {
  try {
    await checkDurability(store)
  } catch (error) {
    if (!isFault(error, STORE_NOT_DURABLE)) throw error
    log.error({ err: error }, 'the state database may forget ownership: no failover of it is safe')
  }
}

function readCredential({ pki }: ControlConfig): ClientCredential {
  const read = (path: string) => readFileSync(path, 'utf8')
  return { ca: read(pki.ca), cert: read(pki.cert), key: read(pki.key) }
}
