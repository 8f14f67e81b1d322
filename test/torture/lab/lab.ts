import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rename, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ApiSession } from '#client/api.ts'
import { openSession } from '#cli/session.ts'
import { cleanUp } from './clean-up.ts'
import { PowerDisk } from '../power/power-disk.ts'
import { Disk, type FileSystem } from './disk.ts'
import { type Host, HOSTS, Network } from './network.ts'
import { Part, PROGRAM } from './part.ts'
import { run } from './run.ts'

/* The system under torture: a control plane and two agents, set up as on separate machines.
 *
 *     DIR/pki/           what `holdfast init` wrote; each part runs from its own directory of it
 *     DIR/az1, DIR/az2   the disks of the sites (xfs and ext4, so that both kinds of kept copies are exercised)
 *     DIR/ctl            data of the control plane
 *     DIR/log/PART.log   what each part said, over all its lives
 *     DIR/boot/HOST      the id of the machine's boot
 */

export const SITES = ['az1', 'az2'] as const
export type Site = (typeof SITES)[number]
export const otherSite = (site: Site): Site => (site === 'az1' ? 'az2' : 'az1')

export interface LabTiming {
  readonly peerSilenceMs: number
  readonly heartbeatMs: number
  readonly leaseMs: number
  readonly renewMs: number
  readonly witnessTimeoutMs: number
  readonly reportMs: number
}

/** Short enough that a fault that outlasts everything takes a few seconds; long enough for two busy cores. */
export const TIMING: LabTiming = {
  peerSilenceMs: 1_500,
  heartbeatMs: 250,
  leaseMs: 3_000,
  renewMs: 750,
  witnessTimeoutMs: 750,
  reportMs: 300,
}
export const LEASE_DRIFT_MS = 150
const AGENT_SILENCE_MS = 1_500

export interface LabOptions {
  /** Leave the directory behind. */
  readonly keep: boolean
  /** A part ended without being told to; `log` says what it said last. */
  readonly onDeath: (host: Host, how: string, log: string) => void
  /** What the sites keep their data on: small file systems in files, or disks that can lose their power. */
  readonly disks: 'small' | 'power'
  readonly seed: number
  /** Default: TIMING. */
  readonly timing?: LabTiming
}

const KINDS: Record<Site, FileSystem> = { az1: 'xfs', az2: 'ext4' }

export class Lab {
  readonly name: string
  readonly directory: string
  readonly network: Network
  readonly parts: Readonly<Record<Host, Part>>
  readonly disks = new Map<Site, Disk | PowerDisk>()
  api!: ApiSession
  readonly #janitor: ChildProcess
  readonly #keep: boolean
  #closed = false

  private constructor(
    name: string,
    directory: string,
    network: Network,
    janitor: ChildProcess,
    options: LabOptions,
  ) {
    this.name = name
    this.directory = directory
    this.network = network
    this.#janitor = janitor
    this.#keep = options.keep
    const part = (host: Host) =>
      new Part({
        lab: name,
        host,
        kind: host === 'ctl' ? 'control' : 'agent',
        config: this.#config(host),
        log: this.logOf(host),
        bootFile: this.#bootFile(host),
        onDeath: (_, how) => options.onDeath(host, how, this.logOf(host)),
      })
    this.parts = { az1: part('az1'), az2: part('az2'), ctl: part('ctl') }
  }

  /** Everything runs, and the API answers, when it settles. Removes what it made when it fails. */
  static async start(options: LabOptions): Promise<Lab> {
    const name = randomBytes(3).toString('hex')
    const directory = await mkdtemp(join(tmpdir(), `hft-${name}-`))
    const janitor = spawn(
      process.execPath,
      [join(import.meta.dirname, 'janitor.ts'), name, directory, options.keep ? 'keep' : 'no'],
      { stdio: ['pipe', 'ignore', 'ignore'], detached: true },
    )
    janitor.stdin.on('error', () => janitor.stdin.destroy())
    janitor.unref()
    try {
      const network = await Network.create(name)
      const lab = new Lab(name, directory, network, janitor, options)
      await lab.#prepare(options)
      await lab.parts.ctl.start()
      await Promise.all(SITES.map((site) => lab.parts[site].start()))
      lab.api = await openSession({}, { credentials: join(directory, 'pki', 'credentials.json') })
      await lab.api.token()
      return lab
    } catch (error) {
      await cleanUp(name, directory, options.keep)
      janitor.stdin.end('done\n')
      throw error
    }
  }

  logOf(host: Host): string {
    return join(this.directory, 'log', `${host}.log`)
  }

  socketOf(site: Site): string {
    return join(this.directory, `${site}.sock`)
  }

  diskOf(site: Site): string {
    return join(this.directory, site)
  }

  volumeFile(site: Site, volume: string): string {
    return join(this.diskOf(site), 'data', 'volumes', volume, 'data')
  }

  #bootFile(host: Host): string {
    return join(this.directory, 'boot', host)
  }

  #partDirectory(host: Host): string {
    return join(this.directory, 'pki', host === 'ctl' ? 'control' : `${host}-agent`)
  }

  #config(host: Host): string {
    return join(this.#partDirectory(host), 'config.json')
  }

  /** The machine was switched off and on again: its kernel has another boot id. The part must not run. */
  async newBoot(host: Host): Promise<void> {
    await writeFile(this.#bootFile(host), `${randomUUID()}\n`)
  }

  async #prepare({ disks, seed, timing = TIMING }: LabOptions): Promise<void> {
    for (const name of ['log', 'boot', 'ctl', ...SITES]) await mkdir(join(this.directory, name))
    for (const host of HOSTS) await this.newBoot(host)
    for (const site of SITES) {
      const path = this.diskOf(site)
      const disk =
        disks === 'power'
          ? await PowerDisk.create(path, seed + SITES.indexOf(site))
          : await Disk.create(path, KINDS[site])
      this.disks.set(site, disk)
    }
    const at = (host: Host) => this.network.address(host)
    const sites = SITES.flatMap((site) => ['--site', `${site}=${at(site)}`])
    await this.holdfast(
      'init',
      '--out',
      join(this.directory, 'pki'),
      '--region',
      'north',
      '--control',
      at('ctl'),
      ...sites,
    )
    await this.#configure('ctl', {
      dataDir: join(this.directory, 'ctl'),
      leaseMs: timing.leaseMs,
      leaseDriftMs: LEASE_DRIFT_MS,
      agentSilenceMs: AGENT_SILENCE_MS,
    })
    for (const site of SITES) {
      await this.#configure(site, {
        dataDir: join(this.diskOf(site), 'data'),
        nbdSocket: this.socketOf(site),
        ...timing,
      })
    }
  }

  async #configure(host: Host, more: object): Promise<void> {
    const path = this.#config(host)
    const config = JSON.parse(await readFile(path, 'utf8')) as object
    await writeFile(path, JSON.stringify({ ...config, ...more }, null, 2))
  }

  /** `holdfast ...`, to its end. Resolves with what it printed. */
  async holdfast(...args: string[]): Promise<string> {
    return await run(process.execPath, PROGRAM, ...args)
  }

  async backUpState(file: string): Promise<void> {
    await this.holdfast('state', 'backup', file, '--config', this.#config('ctl'))
  }

  /** The control plane must not run. The database that it had is moved out of the way. */
  async restoreState(file: string): Promise<void> {
    const aside = join(this.directory, `ctl-before-${randomBytes(3).toString('hex')}`)
    await mkdir(aside)
    for (const name of ['state.db', 'state.db-wal', 'state.db-shm']) {
      await rename(join(this.directory, 'ctl', name), join(aside, name)).catch((error: unknown) => {
        if ((error as { code?: unknown }).code !== 'ENOENT') throw error
      })
    }
    await this.holdfast('state', 'restore', file, '--config', this.#config('ctl'))
  }

  async close(keep = this.#keep): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const host of HOSTS) await this.parts[host].kill()
    for (const disk of this.disks.values()) if (disk instanceof PowerDisk) await disk.close()
    await cleanUp(this.name, this.directory, keep)
    this.#janitor.stdin?.end('done\n')
  }
}
