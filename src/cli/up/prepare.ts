import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import {
  type Address,
  formatAddress,
  isLoopback,
  isWildcard,
  OPTION_REFUSED,
} from '#base/config.ts'
import type { Clock } from '#base/clock.ts'
import { Fault, fault } from '#base/fault.ts'
import { newHexId } from '#base/ids.ts'
import { checkSocketPath } from '#base/system/door.ts'
import { ensureDirectory, readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import type { Credential } from '#base/system/pki.ts'
import { pickPorts } from '#base/system/ports.ts'
import type { RegionCredentials } from '#client/credentials.ts'
import {
  credentialFiles,
  ensureAuthority,
  ensureCertificate,
  ensureLinkKey,
  ensureSecret,
  linkKeyFile,
  vaultKeyFile,
} from '../pki-directory.ts'
import { newAccessKey, newPassword, newSecretKey } from '../secrets.ts'
import { guestOptions } from './guests.ts'
import {
  nbdSocketOf,
  type PartSpec,
  type Paths,
  partFiles,
  REGIONS,
  type RegionPlan,
  vaultOf,
} from './layout.ts'

/* Makes a directory ready for the parts to start in: addresses, certificates, configuration, first administrator.
 *
 * Every step finds what an earlier, perhaps interrupted, run left and goes on from there. Addresses are settled once
 * and kept in config/up.json. Everything else that is written here is derived and may be written again. The secrets of the first
 * administrators live in bootstrap files until the system answered for the first time: a control plane reads its
 * own when its database has no user yet, and credentials.json is made from the same files.
 */

export interface UpRequest {
  /** Undefined: as last time, and 127.0.0.1:7410 the first time. */
  readonly listen: Address | undefined
  /** Serve HTTPS with a certificate of the system's own authority. */
  readonly tls: boolean
  /** Serve HTTPS with this certificate. */
  readonly tlsFiles: { readonly cert: string; readonly key: string } | undefined
  readonly allowPlaintext: boolean
  /** The name or address under which others reach this machine, when `listen` is a wildcard. */
  readonly advertise: string | undefined
}

/** How a part's process is started: the program with its leading arguments. */
export type PartProgram = (kind: 'control' | 'agent', configFile: string) => readonly string[]

export interface Prepared {
  readonly url: string
  readonly firstRun: boolean
  readonly parts: readonly PartSpec[]
  readonly regions: readonly { readonly region: string; readonly url: string }[]
  /** Call when every part answered: the bootstrap files have done their work. */
  finishFirstRun(): Promise<void>
}

export const DEFAULT_LISTEN: Address = { host: '127.0.0.1', port: 7410 }

const SETTINGS_VERSION = 1

/** config/up.json */
interface Settings {
  readonly version: typeof SETTINGS_VERSION
  readonly listen: Address
  /** By name: `control.internal`, `r2-control.public`, `az1-agent.link` ... */
  readonly ports: Readonly<Record<string, number>>
  /** Every part has answered once: the first administrators exist and their bootstrap files are not needed. */
  readonly initialized: boolean
}

export const SETTINGS_UNREADABLE = fault({
  code: 'SETTINGS_UNREADABLE',
  retry: 'never',
  text: 'The addresses of this system are not known.',
  hint: 'Restore config/up.json from a backup, or use the version of Holdfast that wrote it.',
})

export async function prepare(
  paths: Paths,
  request: UpRequest,
  program: PartProgram,
  clock: Clock,
): Promise<Prepared> {
  checkSocketPath(paths.door)
  for (const region of REGIONS) {
    for (const { agent } of region.sites) checkSocketPath(nbdSocketOf(paths, agent))
  }
  for (const directory of [paths.run, paths.log, paths.config]) await ensureDirectory(directory)

  const before = await readSettings(paths)
  const settings = await settle(paths, before, request)
  const access = accessOf(settings, request)
  const authority = await ensureAuthority(paths.pki, clock)
  await ensureLinkKey(paths.pki)
  const parts: PartSpec[] = []
  const regions: { region: string; url: string }[] = []
  for (const plan of REGIONS) {
    const origin = `${access.scheme}://${formatAddress({ host: access.host, port: portOf(settings, `${plan.control}.public`) })}`
    regions.push({ region: plan.region, url: origin })
    parts.push(
      ...(await prepareRegion({
        paths,
        plan,
        settings,
        access,
        authority,
        program,
        origin,
        clock,
      })),
    )
  }
  const url = regions[0]?.url ?? ''
  const firstRun = !settings.initialized
  if (firstRun) await writeAdministrators(paths, regions, access)
  else await refreshUrls(paths, regions)
  return {
    url,
    firstRun,
    parts,
    regions,
    async finishFirstRun() {
      if (firstRun) await writeSettings(paths, { ...settings, initialized: true })
      for (const plan of REGIONS) await rm(bootstrapFile(paths, plan), { force: true })
    },
  }
}

async function readSettings(paths: Paths): Promise<Settings | undefined> {
  const text = await readTextIfPresent(paths.settings)
  if (text === undefined) return undefined
  const settings = JSON.parse(text) as Settings
  if (settings.version !== SETTINGS_VERSION) {
    const doing = `reading ${paths.settings} of version ${String(settings.version)}`
    throw new Fault(SETTINGS_UNREADABLE, doing, { path: paths.settings })
  }
  return settings
}

/** Settles addresses that are not settled yet, and writes them down before anything uses them. */
async function settle(
  paths: Paths,
  before: Settings | undefined,
  request: UpRequest,
): Promise<Settings> {
  const wanted = request.listen ?? before?.listen ?? DEFAULT_LISTEN
  const ports: Record<string, number> = { ...before?.ports }
  const publicPort = 'control.public'
  if (wanted.port !== 0) ports[publicPort] = wanted.port
  const names = REGIONS.flatMap((plan) => [
    `${plan.control}.public`,
    `${plan.control}.internal`,
    ...plan.sites.flatMap(({ agent }) =>
      ['command', 'link', 'nbd', 'replica'].map((door) => `${agent}.${door}`),
    ),
  ])
  const missing = names.filter((name) => ports[name] === undefined)
  const fresh = await pickPorts(bindHost(wanted), missing.length, Object.values(ports))
  for (const [index, name] of missing.entries()) ports[name] = fresh[index] ?? 0
  const listen = { host: wanted.host, port: ports[publicPort] ?? 0 }
  const initialized = before?.initialized ?? false
  const settings: Settings = { version: SETTINGS_VERSION, listen, ports, initialized }
  await writeSettings(paths, settings)
  return settings
}

const writeSettings = (paths: Paths, settings: Settings): Promise<void> =>
  writeFileWhole(paths.settings, `${JSON.stringify(settings, null, 2)}\n`)

const bindHost = (listen: Address): string =>
  listen.host === 'localhost' ? '127.0.0.1' : listen.host

function portOf(settings: Settings, name: string): number {
  return settings.ports[name] ?? 0
}

/** How the outside reaches the system. */
interface Access {
  readonly scheme: 'http' | 'https'
  readonly bind: string
  readonly host: string
  readonly tls: UpRequest['tlsFiles'] | 'own' | undefined
  readonly allowPlaintext: boolean
}

function accessOf({ listen }: Settings, request: UpRequest): Access {
  const tls = request.tlsFiles ?? (request.tls ? ('own' as const) : undefined)
  if (tls === undefined && !request.allowPlaintext && !isLoopback(listen.host)) {
    throw new Fault(
      OPTION_REFUSED,
      `listen: ${formatAddress(listen)} can be reached from other machines and would be served without encryption, accepted: a loopback address, or one of --tls, --tls-cert with --tls-key, --allow-plaintext`,
    )
  }
  if (isWildcard(listen.host) && request.advertise === undefined) {
    throw new Fault(
      OPTION_REFUSED,
      `advertise: required, because ${formatAddress(listen)} names no machine, accepted: the name or address under which others reach this one`,
    )
  }
  return {
    scheme: tls === undefined ? 'http' : 'https',
    bind: bindHost(listen),
    host: request.advertise ?? listen.host,
    tls,
    allowPlaintext: request.allowPlaintext,
  }
}

interface RegionContext {
  readonly paths: Paths
  readonly plan: RegionPlan
  readonly settings: Settings
  readonly access: Access
  readonly authority: Credential
  readonly program: PartProgram
  readonly origin: string
  readonly clock: Clock
}

async function prepareRegion(context: RegionContext): Promise<PartSpec[]> {
  const { paths, plan, settings, access, authority, program, clock } = context
  const at = (name: string) => formatAddress({ host: access.bind, port: portOf(settings, name) })
  const ca = credentialFiles(paths.pki, 'ca')
  const hosts = [...new Set(['127.0.0.1', 'localhost', access.bind, access.host])].filter(
    (host) => !isWildcard(host),
  )
  const reachable = isWildcard(access.bind) ? access.host : access.bind

  const writePart = async (
    name: string,
    kind: PartSpec['kind'],
    site: string | undefined,
    config: Readonly<Record<string, unknown>>,
  ): Promise<PartSpec> => {
    const { configFile, pidFile, logFile, dataDir } = partFiles(paths, name)
    await ensureDirectory(dataDir)
    await ensureCertificate(
      paths.pki,
      name,
      authority,
      kind === 'control'
        ? { kind, region: plan.region }
        : { kind, site: String(config['site']), agent: name },
      hosts,
      clock,
    )
    const own = credentialFiles(paths.pki, name)
    const content = {
      ...config,
      dataDir,
      'pki.ca': ca.cert,
      'pki.cert': own.cert,
      'pki.key': own.key,
    }
    await writeFileWhole(configFile, `${JSON.stringify(content, null, 2)}\n`, 0o600)
    return {
      name,
      kind,
      site,
      configFile,
      pidFile,
      logFile,
      command: program(kind, configFile),
      optionsDecided: Object.keys(content),
    }
  }

  const own = credentialFiles(paths.pki, plan.control)
  const tls = access.tls === 'own' ? own : access.tls
  const control = await writePart(plan.control, 'control', undefined, {
    region: plan.region,
    sites: plan.sites.map(({ site }) => site),
    listen: at(`${plan.control}.public`),
    publicUrl: context.origin,
    internalListen: at(`${plan.control}.internal`),
    'pki.caKey': ca.key,
    bootstrapFile: bootstrapFile(paths, plan),
    allowPlaintext: access.allowPlaintext,
    // Each region can be sent copies of the other's backups.
    regions: REGIONS.filter(({ region }) => region !== plan.region).map(
      ({ region }) => `${region}=${paths.credentials}`,
    ),
    ...(tls === undefined ? {} : { 'tls.cert': tls.cert, 'tls.key': tls.key }),
  })
  await ensureSecret(vaultKeyFile(paths.pki, plan.region))
  const agents = await Promise.all(
    plan.sites.map(({ site, key, agent }) =>
      writePart(agent, 'agent', key, {
        region: plan.region,
        site,
        agentId: agent,
        controlUrl: `https://${formatAddress({ host: reachable, port: portOf(settings, `${plan.control}.internal`) })}`,
        commandListen: at(`${agent}.command`),
        linkListen: at(`${agent}.link`),
        nbdListen: at(`${agent}.nbd`),
        nbdSocket: nbdSocketOf(paths, agent),
        replicaListen: at(`${agent}.replica`),
        'vault.place': vaultOf(paths, plan.region),
        'vault.keyFile': vaultKeyFile(paths.pki, plan.region),
        imageDir: join(paths.root, 'images'),
        advertiseHost: reachable,
        linkKeyFile: linkKeyFile(paths.pki),
        ...guestOptions(paths, key),
      }),
    ),
  )
  return [control, ...agents]
}

// ---------------------------------------------------------------- the first administrator

const bootstrapFile = (paths: Paths, plan: RegionPlan): string =>
  join(paths.root, plan.control, 'bootstrap.json')

type Administrator = Omit<RegionCredentials, 'url' | 'region' | 'ca'>

/** Makes the secrets of each region, or takes those that an interrupted first run made. */
async function writeAdministrators(
  paths: Paths,
  regions: readonly { region: string; url: string }[],
  access: Access,
): Promise<void> {
  const ca = access.tls === 'own' ? { ca: credentialFiles(paths.pki, 'ca').cert } : {}
  const all: RegionCredentials[] = []
  for (const [index, plan] of REGIONS.entries()) {
    const file = bootstrapFile(paths, plan)
    let text = await readTextIfPresent(file)
    if (text === undefined) {
      text = `${JSON.stringify(newAdministrator(plan.region), null, 2)}\n`
      await writeFileWhole(file, text, 0o600)
    }
    const { region, url } = regions[index] ?? { region: plan.region, url: '' }
    all.push({ url, ...(JSON.parse(text) as Administrator), region, ...ca })
  }
  const [first, ...rest] = all
  const content = { ...first, regions: rest }
  await writeFileWhole(paths.credentials, `${JSON.stringify(content, null, 2)}\n`, 0o600)
}

const newAdministrator = (region: string): Administrator => ({
  domain: 'holdfast',
  user: 'admin',
  password: newPassword(),
  project_id: newHexId(),
  project_name: region,
  access_key: newAccessKey(),
  secret_key: newSecretKey(),
})

/** A later start at another address: a credentials file that is still there keeps its secrets and learns the address. */
async function refreshUrls(
  paths: Paths,
  regions: readonly { region: string; url: string }[],
): Promise<void> {
  const text = await readTextIfPresent(paths.credentials)
  if (text === undefined) return
  const content = JSON.parse(text) as RegionCredentials & { regions?: RegionCredentials[] }
  const urlOf = (one: RegionCredentials) =>
    regions.find(({ region }) => region === one.region)?.url ?? one.url
  const updated = {
    ...content,
    url: urlOf(content),
    regions: (content.regions ?? []).map((one) => ({ ...one, url: urlOf(one) })),
  }
  const next = `${JSON.stringify(updated, null, 2)}\n`
  if (next !== text) await writeFileWhole(paths.credentials, next, 0o600)
}
