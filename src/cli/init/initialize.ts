import type { Identity } from '#base/common-name.ts'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { formatAddress } from '#base/config.ts'
import type { Clock } from '#base/clock.ts'
import { newHexId } from '#base/ids.ts'
import { ensureDirectory, readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import { type Credential, issueCertificate, PART_DAYS, renewalDue } from '#base/system/pki.ts'
import {
  credentialFiles,
  ensureAuthority,
  ensureLinkKey,
  ensureSecret,
  linkKeyFile,
  vaultKeyFile,
} from '../pki-directory.ts'
import { newAccessKey, newPassword, newSecretKey } from '../secrets.ts'
import { usageError } from '../usage.ts'

/* What `holdfast init` writes:
 *
 *     OUT/init.json             the answers, for the next run
 *     OUT/authority/            certificate and key of the authority, the secrets of the link and of the region's vault
 *     OUT/credentials.json      the first administrator, mode 0600
 *     OUT/control/              config.json, ca.pem, ca.key, part.pem, part.key, bootstrap.json
 *     OUT/SITE-agent/           config.json, ca.pem, part.pem, part.key, link.key, vault.key
 *
 * Each machine gets one of the last directories as a whole. Paths in a config.json are relative to it, so the directory may
 * lie anywhere there.
 */

export interface InitAnswers {
  readonly region: string
  readonly control: string
  readonly sites: readonly { readonly name: string; readonly host: string }[]
  /** Where the agents keep backups; left out: nowhere, until their configuration says so. */
  readonly vault?: string
}

export interface InitRequest {
  /** Undefined: as recorded. */
  readonly answers: InitAnswers | undefined
  readonly renewAll: boolean
  readonly clock: Clock
}

export interface InitResult {
  readonly directory: string
  readonly control: string
  readonly agents: readonly { readonly name: string; readonly host: string }[]
  /** Files written now, relative to the directory. */
  readonly written: readonly string[]
}

const PORTS = {
  public: 7410,
  internal: 7411,
  command: 7412,
  link: 7413,
  beats: 7414,
  replica: 7415,
  nbd: 10_809,
} as const

export async function initialize(directory: string, request: InitRequest): Promise<InitResult> {
  const firstRun = (await readTextIfPresent(join(directory, 'init.json'))) === undefined
  const answers = request.answers ?? (await recordedAnswers(directory))
  await ensureDirectory(directory, 0o700)
  const out = new Out(directory)
  const authorityDirectory = join(directory, 'authority')
  const authority = await ensureAuthority(authorityDirectory, request.clock)
  await ensureLinkKey(authorityDirectory)
  const vaultKey = vaultKeyFile(authorityDirectory, answers.region)
  await ensureSecret(vaultKey)

  const part = async (name: string, host: string, identity: Identity) => {
    await ensureDirectory(join(directory, name), 0o700)
    await out.write(join(name, 'ca.pem'), authority.cert, 0o644)
    const files = credentialFiles(name, 'part')
    const hosts = [...new Set([host, 'localhost', '127.0.0.1'])]
    if (request.renewAll || (await isDue(join(directory, files.cert), hosts, request.clock))) {
      const spec = { identity, hosts, lifetimeDays: PART_DAYS }
      const issued = await issueCertificate(authority, spec, request.clock.wallMs())
      await out.write(files.key, issued.key, 0o600)
      await out.write(files.cert, issued.cert, 0o644)
    }
  }

  await part('control', answers.control, { kind: 'control', region: answers.region })
  await writeControl(out, answers, authority)
  if (firstRun) await writeAdministrator(out, answers)
  const agents = answers.sites.map(({ name, host }) => ({
    site: name,
    name: `${name}-agent`,
    host,
  }))
  for (const agent of agents) {
    await part(agent.name, agent.host, { kind: 'agent', site: agent.site, agent: agent.name })
    await out.write(
      join(agent.name, 'link.key'),
      await readFile(linkKeyFile(authorityDirectory)),
      0o600,
    )
    await out.write(join(agent.name, 'vault.key'), await readFile(vaultKey), 0o600)
    await out.writeOnce(join(agent.name, 'config.json'), json(agentConfig(answers, agent)), 0o644)
  }
  // Last: while it is missing, the first run was interrupted, and makes the administrator again.
  await out.write('init.json', json(answers), 0o644)
  return {
    directory,
    control: answers.control,
    agents: agents.map(({ name, host }) => ({ name, host })),
    written: out.written,
  }
}

async function recordedAnswers(directory: string): Promise<InitAnswers> {
  const text = await readTextIfPresent(join(directory, 'init.json'))
  if (text === undefined) {
    throw usageError(`${directory} was not initialized yet, so --control and --site are required`)
  }
  return JSON.parse(text) as InitAnswers
}

async function isDue(path: string, hosts: readonly string[], clock: Clock): Promise<boolean> {
  const cert = await readTextIfPresent(path)
  return cert === undefined || renewalDue(cert, hosts, clock.wallMs())
}

async function writeControl(out: Out, answers: InitAnswers, authority: Credential): Promise<void> {
  await out.write(join('control', 'ca.key'), authority.key, 0o600)
  await out.writeOnce(
    join('control', 'config.json'),
    json({
      region: answers.region,
      sites: answers.sites.map(({ name }) => name),
      dataDir: 'data',
      listen: `0.0.0.0:${PORTS.public}`,
      publicUrl: publicUrl(answers),
      internalListen: `0.0.0.0:${PORTS.internal}`,
      bootstrapFile: 'bootstrap.json',
      pki: { ca: 'ca.pem', cert: 'part.pem', key: 'part.key', caKey: 'ca.key' },
      tls: { cert: 'part.pem', key: 'part.key' },
    }),
    0o644,
  )
}

const publicUrl = (answers: InitAnswers): string =>
  `https://${formatAddress({ host: answers.control, port: PORTS.public })}`

async function writeAdministrator(out: Out, answers: InitAnswers): Promise<void> {
  const administrator = {
    domain: 'holdfast',
    user: 'admin',
    password: newPassword(),
    project_id: newHexId(),
    project_name: answers.region,
    access_key: newAccessKey(),
    secret_key: newSecretKey(),
  }
  await out.write(join('control', 'bootstrap.json'), json(administrator), 0o600)
  const { cert: ca } = credentialFiles(join(out.directory, 'authority'), 'ca')
  const url = publicUrl(answers)
  const credentials = { url, ...administrator, region: answers.region, ca, regions: [] }
  await out.write('credentials.json', json(credentials), 0o600)
}

const agentConfig = (
  answers: InitAnswers,
  agent: { readonly site: string; readonly name: string; readonly host: string },
): object => ({
  region: answers.region,
  site: agent.site,
  agentId: agent.name,
  dataDir: 'data',
  controlUrl: `https://${formatAddress({ host: answers.control, port: PORTS.internal })}`,
  commandListen: `0.0.0.0:${PORTS.command}`,
  linkListen: `0.0.0.0:${PORTS.link}`,
  heartbeatListen: `0.0.0.0:${PORTS.beats}`,
  nbdListen: `0.0.0.0:${PORTS.nbd}`,
  advertiseHost: agent.host,
  linkKeyFile: 'link.key',
  replicaListen: `0.0.0.0:${PORTS.replica}`,
  vault: { keyFile: 'vault.key', ...(answers.vault === undefined ? {} : { place: answers.vault }) },
  pki: { ca: 'ca.pem', cert: 'part.pem', key: 'part.key' },
})

const json = (value: object): string => `${JSON.stringify(value, null, 2)}\n`

/** Writes below one directory and remembers what really changed. */
class Out {
  readonly directory: string
  readonly written: string[] = []

  constructor(directory: string) {
    this.directory = directory
  }

  /** Leaves a file alone that has this content already. */
  async write(name: string, content: string | Buffer, mode: number): Promise<void> {
    const path = join(this.directory, name)
    const wanted = Buffer.from(content)
    const present = await readFile(path).catch(() => undefined)
    if (present?.equals(wanted) === true) return
    await writeFileWhole(path, wanted, mode)
    this.written.push(name)
  }

  /** Leaves a file alone that is there, whatever its content: it may have been edited. */
  async writeOnce(name: string, content: string, mode: number): Promise<void> {
    const present = await readTextIfPresent(join(this.directory, name))
    if (present === undefined) await this.write(name, content, mode)
  }
}
