/** The parts of a region for tests: certificates, control plane with its API, agents. See region.ts. */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { RunningAgent } from '#agent/agent.ts'
import type { ServerCommands } from '#agent/compute/commands.ts'
import { resolveOptions } from '#base/config.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { createAuthority, issueCertificate } from '#base/system/pki.ts'
import { ecsDialect } from '#control/api/ecs/dialect.ts'
import { evsDialect } from '#control/api/evs/dialect.ts'
import { glanceDialect } from '#control/api/glance/dialect.ts'
import { createApp } from '#control/api/http/app.ts'
import { storeAuditLog } from '#control/api/http/audit.ts'
import type { BackupApiServices } from '#control/api/backup/services.ts'
import type { Api, Dialect } from '#control/api/http/dialect.ts'
import { nativeDialect } from '#control/api/native/dialect.ts'
import { createMetrics } from '#control/api/native/metrics.ts'
import { neutronDialect } from '#control/api/neutron/dialect.ts'
import { novaDialect } from '#control/api/nova/dialect.ts'
import { sdrsDialect, type SdrsOptions } from '#control/api/sdrs/dialect.ts'
import { vpcDialect } from '#control/api/vpc/dialect.ts'
import { type ControlConfig, controlConfig, controlOptions } from '#control/config.ts'
import { createIdentity } from '#control/identity/identity.ts'
import { createPasswords } from '#control/identity/passwords.ts'
import type { Principal, Role } from '#control/identity/principal.ts'
import { openSecretBox } from '#control/identity/secret-box.ts'
import { locate } from '#control/operations/definitions/directory.ts'
import { createReconciler } from '#control/operations/reconciler.ts'
import type { CrashPoint } from '#control/operations/runner.ts'
import { type Plane, startPlane } from '#control/plane.ts'
import { seedResources } from '#control/resources/surroundings.ts'

export const REGION = 'local-1'
export const PROJECT = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'
export const STRANGE_PROJECT = 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'

const principal = (project: string, role: Role): Principal => ({
  user: { id: 'c'.repeat(32), name: role },
  domain: { id: 'd'.repeat(32), name: 'holdfast' },
  project: { id: project, name: REGION },
  role,
  domainRole: null,
  by: 'token',
  accessKey: null,
})
const PRINCIPALS: Readonly<Record<string, Principal>> = {
  admin: principal(PROJECT, 'admin'),
  reader: principal(PROJECT, 'reader'),
  stranger: principal(STRANGE_PROJECT, 'admin'),
}

const AGENT_TIMES = {
  peerSilenceMs: 800,
  heartbeatMs: 100,
  leaseMs: 1_600,
  renewMs: 400,
  reportMs: 100,
  witnessTimeoutMs: 700,
}

/** One authority, and certificates of the control plane and two agents. */
export async function makeCertificates(directory: string): Promise<void> {
  const nowMs = systemClock.wallMs()
  const authority = await createAuthority('test', nowMs)
  await writeFile(join(directory, 'ca.crt'), authority.cert)
  const parts = {
    control: { kind: 'control', region: REGION },
    az1: { kind: 'agent', site: 'az1', agent: 'az1-agent' },
    az2: { kind: 'agent', site: 'az2', agent: 'az2-agent' },
  } as const
  for (const [part, identity] of Object.entries(parts)) {
    const spec = { identity, hosts: ['127.0.0.1'], lifetimeDays: 2 }
    const leaf = await issueCertificate(authority, spec, nowMs)
    await writeFile(join(directory, `${part}.crt`), leaf.cert)
    await writeFile(join(directory, `${part}.key`), leaf.key)
  }
}

const pki = (directory: string, part: string) => ({
  'pki.ca': join(directory, 'ca.crt'),
  'pki.cert': join(directory, `${part}.crt`),
  'pki.key': join(directory, `${part}.key`),
  logLevel: process.env['HOLDFAST_TEST_LOG'] ?? 'fatal',
})

export interface RegionControl {
  readonly plane: Plane
  readonly app: Api
  /** Ends the API and the reconciler, not the plane. */
  stopServing(): Promise<void>
}

export interface RegionControlOptions extends SdrsOptions {
  readonly directory: string
  /** 0: any. */
  readonly internalPort: number
  readonly crashPoint?: CrashPoint
  /** Serve our own API as well. */
  readonly native?: boolean
  /** Serve the APIs of backups as well. */
  readonly backups?: boolean
  /** Options over those of this file. */
  readonly more?: Readonly<Record<string, unknown>>
}

/** Our own API over the same plane. It knows nobody: whom a request is of is said by the fixed tokens. */
async function nativeOver(plane: Plane, config: ControlConfig): Promise<Dialect> {
  const { store, agents, witness, sites, operations } = plane
  const clock = systemClock
  const services = { store, clock, agents, witness, agentSilenceMs: config.agentSilenceMs }
  return nativeDialect({
    ...services,
    identity: createIdentity({
      store,
      clock,
      passwords: createPasswords(),
      box: await openSecretBox(join(config.dataDir, 'identity.key')),
      tokenLifetimeMs: config.tokenLifetimeMs,
    }),
    operations,
    commands: sites,
    directory: { locate: (project, id) => locate(services, project, id) },
    stateBackup: { run: () => Promise.reject(new Error('no backups here')) },
    certificates: null,
    authority: '',
    reports: plane.services.reports,
    metrics: createMetrics({ store, agents, sites: config.sites }),
    region: REGION,
    sites: config.sites,
    version: 'test',
    publicUrl: 'http://127.0.0.1',
  })
}

async function backupDialects(
  services: Omit<BackupApiServices, 'region' | 'destinations' | 'mayCopy'>,
  plane: Plane,
  config: ControlConfig,
): Promise<Dialect[]> {
  const { csbsDialect } = await import('#control/api/csbs/dialect.ts')
  const { karborDialect } = await import('#control/api/karbor/dialect.ts')
  const { regions } = plane.services
  const all = { ...services, region: REGION, destinations: config.regions.map(({ name }) => name) }
  const of = { ...all, mayCopy: regions?.mayCopy }
  return [csbsDialect(of), karborDialect(of)]
}

/** The control plane with SDRS and volumes on top; the API is ready for `inject` and not listening. */
export async function startRegionControl(options: RegionControlOptions): Promise<RegionControl> {
  const { directory, internalPort, crashPoint, native = false, backups = false } = options
  const config = controlConfig(
    resolveOptions(controlOptions, {
      flags: {
        ...pki(directory, 'control'),
        region: REGION,
        sites: 'az1,az2',
        dataDir: join(directory, 'control'),
        listen: '127.0.0.1:0',
        internalListen: `127.0.0.1:${internalPort}`,
        leaseMs: AGENT_TIMES.leaseMs,
        agentSilenceMs: 1_000,
        recoveryScripts: join(directory, 'scripts'),
        ...options.more,
      },
    }),
  )
  const clock = systemClock
  const log = createLog('control', config.logLevel)
  const plane = await startPlane({
    config,
    clock,
    log,
    random: Math.random,
    bootId: (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim(),
    crashPoint,
  })
  const { store, agents, witness, sites, operations } = plane
  await seedResources(store, { region: REGION, sites: config.sites, nowMs: clock.wallMs() })
  const siteNames = config.sites
  const reconciler = createReconciler({
    store,
    clock,
    log,
    agents,
    sites,
    witness,
    siteNames,
    everyMs: 300,
  })
  reconciler.start()
  const services = {
    store,
    operations,
    clock,
    sites: config.sites,
    agents,
    witness,
    agentSilenceMs: config.agentSilenceMs,
    publicUrl: 'http://127.0.0.1',
    log,
    commands: sites,
  }
  const sdrs = sdrsDialect(services, options)
  const app = createApp({
    clock,
    log,
    authenticator: {
      byToken: async (token) =>
        PRINCIPALS[token] ?? { denied: 'The token is unknown.', code: null },
      bySignature: async () => ({ denied: 'No signatures here.', code: null }),
    },
    audit: storeAuditLog(store, clock),
    dialects: [
      sdrs,
      evsDialect(services),
      novaDialect(services),
      ecsDialect(services),
      vpcDialect(services),
      neutronDialect(services),
      glanceDialect(services),
      ...(native ? [await nativeOver(plane, config)] : []),
      ...(backups ? await backupDialects(services, plane, config) : []),
    ],
    fallback: sdrs,
  })
  await app.ready()
  return {
    plane,
    app,
    async stopServing() {
      await reconciler.stop()
      await app.close()
    },
  }
}

/** The agent of a site. `more`: options over the short times of this file. `servers`: in the place of real guests. */
export async function startRegionAgent(
  directory: string,
  site: string,
  internalPort: number,
  more: Readonly<Record<string, unknown>> = {},
  servers?: ServerCommands,
): Promise<RunningAgent> {
  await mkdir(join(directory, site), { recursive: true })
  // Not at the top: a control plane that is started a hundred times does without.
  const { startAgent } = await import('#agent/agent.ts')
  const { agentConfig, agentOptions } = await import('#agent/config.ts')
  return await startAgent(
    agentConfig(
      resolveOptions(agentOptions, {
        flags: {
          ...AGENT_TIMES,
          ...pki(directory, site),
          ...more,
          region: REGION,
          site,
          agentId: `${site}-agent`,
          dataDir: join(directory, site),
          controlUrl: `https://127.0.0.1:${internalPort}`,
          commandListen: '127.0.0.1:0',
          linkListen: '127.0.0.1:0',
        },
      }),
    ),
    'test',
    servers === undefined ? {} : { servers },
  )
}
