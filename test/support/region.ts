/**
 * One region in this process, with everything real below the login: state database, witness, operations, mutual TLS, two site agents
 * with files, NBD and replication links, and the HTTP server of the dialects. Tokens are fixed: `admin`, `reader` and
 * `stranger` (an administrator of another project). Times are short, so that failovers take about a second.
 */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { RunningAgent } from '#agent/agent.ts'
import type { ServerCommands } from '#agent/compute/commands.ts'
import { sleep } from '#base/clock.ts'
import { systemClock } from '#base/system/clock.ts'
import { connectNbd, type NbdClient } from '#client/nbd/client.ts'
import type { SdrsOptions } from '#control/api/sdrs/dialect.ts'
import type { RequestServices } from '#control/operations/definitions/requests.ts'
import type { CrashPoint } from '#control/operations/runner.ts'
import { defaultVpcId } from '#control/resources/networks.ts'
import type { Plane } from '#control/plane.ts'
import { violations } from '../contracts/validate.ts'
import {
  makeCertificates,
  PROJECT,
  type RegionControl,
  startRegionAgent,
  startRegionControl,
} from './region-parts.ts'

export { PROJECT, STRANGE_PROJECT } from './region-parts.ts'

export interface Reply {
  readonly status: number
  // oxlint-disable-next-line typescript/no-explicit-any -- bodies are held against the contract, not typed
  readonly body: any
}

export interface RegionOptions extends SdrsOptions {
  /** Called at every boundary of every operation's steps. */
  readonly crashPoint?: CrashPoint
  /** Options of both agents, over the short times of this file. */
  readonly agent?: Readonly<Record<string, unknown>>
  /** In the place of real guests, by site. */
  readonly servers?: Readonly<Record<string, ServerCommands>>
}

/** What the contract of servers, images and networks describes. Disks under version 3 are in it too, but more closely in their own. */
const OF_SERVERS = [
  /^\/v1(\.1)?\/[^/]+\/(cloudservers|vpcs|subnets|ports|security-groups)/,
  /^\/v2\.1\/[^/]+\/(servers|os-|flavors|cloudimages)/,
  /^\/v2\/(images|cloudimages)/,
  /^\/v2\.1\/[^/]+\/cloudvolumes$/,
  /^\/v2\.1$/,
  /^\/v2\.0\//,
  /^\/v3\/[^/]+\/os-vendor-volumes/,
]

/** Every answer that a test sees is held against its contract. */
function checkContract(
  method: string,
  path: string,
  reply: { statusCode: number; headers: Readonly<Record<string, unknown>>; body: string },
): void {
  const url = path.replace('{project}', PROJECT)
  const volumeJob = /"job_type":"(create|batchCreate|delete|extend|retype)Volume"/.test(reply.body)
  const ofServers =
    OF_SERVERS.some((path) => path.test(url)) ||
    /"job_type":"\w*(Server\w*|attachVolume|detachVolume)"/.test(reply.body)
  const contract = ofServers ? 'compute' : url.startsWith('/v1') && !volumeJob ? 'sdrs' : 'evs'
  // Version 3 and 2.1 are aliases of what the contract of volumes describes under version 2.
  const canonical = ofServers ? url : url.replace(/^\/v(?:3|2\.1)\//, '/v2/')
  const answer = {
    method,
    path: canonical,
    status: reply.statusCode,
    headers: reply.headers,
    text: reply.body,
  }
  const found = violations(contract, answer)
  const unknownPath = found.some((one) => one.endsWith('is not in the contract'))
  // What Cinder has beyond the contract, see docs/compatibility/evs.md.
  if (unknownPath && /\/(?:volumes|snapshots)\/[^/]+\/metadata/.test(url)) return
  if (unknownPath && [404, 405].includes(reply.statusCode)) return
  assert.deepEqual(found, [], `${method} ${url} → ${reply.statusCode}: ${reply.body}`)
}

export class Region {
  readonly directory: string
  readonly vpc = defaultVpcId(PROJECT)
  #control!: RegionControl
  readonly #agents = new Map<string, RunningAgent>()
  readonly #options: RegionOptions

  private constructor(directory: string, options: RegionOptions) {
    this.directory = directory
    this.#options = options
  }

  /** What requests are made with that come from within, past the APIs. */
  get requests(): RequestServices {
    const { store, operations, agents } = this.plane
    const sites = ['az1', 'az2']
    return { store, operations, agents, sites, clock: systemClock, agentSilenceMs: 1_000 }
  }

  get plane(): Plane {
    return this.#control.plane
  }

  static async start(options: RegionOptions = {}): Promise<Region> {
    const region = new Region(await mkdtemp(join(tmpdir(), 'hf-')), options)
    try {
      await region.#start()
      return region
    } catch (error) {
      await region.stop()
      throw error
    }
  }

  async #start(): Promise<void> {
    await makeCertificates(this.directory)
    this.#control = await startRegionControl({
      directory: this.directory,
      internalPort: 0,
      ...this.#options,
    })
    await Promise.all([this.startSite('az1'), this.startSite('az2')])
    await this.until('both sites are heard', async () =>
      ['az1', 'az2'].every((site) => this.plane.agents.heard(site)),
    )
  }

  async startSite(site: string): Promise<void> {
    const { port } = this.plane.internal
    const { agent, servers } = this.#options
    const started = await startRegionAgent(this.directory, site, port, agent, servers?.[site])
    this.#agents.set(site, started)
  }

  /** Stops the agent of a site in order, and waits until it counts as silent. */
  async stopSite(site: string): Promise<void> {
    await this.#agents.get(site)?.close()
    this.#agents.delete(site)
    await this.until(`${site} is silent`, async () => !this.plane.agents.heard(site))
  }

  /** Unix socket of a site's NBD server. */
  socket(site: string): string {
    return join(this.directory, site, 'nbd.sock')
  }

  /** Opens an export at a site. Repeats while the site refuses, up to the limit. */
  async nbd(site: string, name: string, limitMs = 10_000): Promise<NbdClient> {
    const endMs = systemClock.bootMs() + limitMs
    for (;;) {
      try {
        return await connectNbd({ unix: this.socket(site) }, { exportName: name })
      } catch (error) {
        if (systemClock.bootMs() > endMs) throw error
        await sleep(systemClock, 50)
      }
    }
  }

  /** A text in the second block of an export; durable on every side that acknowledges. */
  async write(site: string, name: string, text: string): Promise<void> {
    const client = await this.nbd(site, name)
    await client.write(4096, Buffer.from(text.padEnd(512)), { fua: true })
    await client.disconnect()
  }

  async read(site: string, name: string): Promise<string> {
    const client = await this.nbd(site, name)
    const data = await client.read(4096, 512)
    await client.disconnect()
    return data.toString().trimEnd()
  }

  /** Fails unless the site refuses to open the export now. */
  async refuses(site: string, name: string): Promise<void> {
    await assert.rejects(connectNbd({ unix: this.socket(site) }, { exportName: name }))
  }

  async call(method: string, path: string, body?: unknown, token = 'admin'): Promise<Reply> {
    const reply = await this.#control.app.inject({
      method: method as 'GET',
      url: path.replace('{project}', PROJECT),
      headers: {
        host: '127.0.0.1:80',
        ...(token === '' ? {} : { 'x-auth-token': token }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
    })
    checkContract(method, path, reply)
    return {
      status: reply.statusCode,
      body: reply.body === '' ? undefined : (JSON.parse(reply.body) as unknown),
    }
  }

  /** Everything that a request could change, as text: a refused one leaves it as it was. */
  async snapshot(): Promise<string> {
    const { db } = this.plane.store
    const tables = ['volumes', 'protection_groups', 'replication_pairs', 'operations'] as const
    const rows = await Promise.all(
      tables.map((table) => db.selectFrom(table).selectAll().orderBy('id').execute()),
    )
    return JSON.stringify(rows)
  }

  async ok(method: string, path: string, body?: unknown, status = 200): Promise<Reply['body']> {
    const reply = await this.call(method, path, body)
    assert.equal(reply.status, status, `${method} ${path}: ${JSON.stringify(reply.body)}`)
    return reply.body
  }

  /** Submits, waits for the job's end, and demands success. */
  async job(method: string, path: string, body?: unknown): Promise<Reply['body']> {
    const job = await this.jobEnd(method, path, body)
    assert.equal(job.status, 'SUCCESS', JSON.stringify(job))
    return job
  }

  async jobEnd(method: string, path: string, body?: unknown): Promise<Reply['body']> {
    const { job_id } = await this.ok(method, path, body)
    await this.plane.operations.waitFor(job_id as string)
    return await this.ok('GET', `/v1/{project}/jobs/${job_id}`)
  }

  async volume(name: string, size = 1, az = 'az1', volume_type = 'SSD'): Promise<string> {
    const { volume } = await this.ok(
      'POST',
      '/v2/{project}/volumes',
      { volume: { name, size, availability_zone: az, volume_type } },
      202,
    )
    await this.until(`${name} is available`, async () => {
      const shown = await this.ok('GET', `/v2/{project}/volumes/${volume.id}`)
      assert.notEqual(shown.volume.status, 'error')
      return shown.volume.status === 'available'
    })
    return volume.id as string
  }

  async domain(): Promise<string> {
    const { domains } = await this.ok('GET', '/v1/{project}/active-domains')
    return domains[0].id as string
  }

  async group(name = 'group'): Promise<string> {
    const job = await this.job('POST', '/v1/{project}/server-groups', {
      server_group: {
        name,
        source_availability_zone: 'az1',
        target_availability_zone: 'az2',
        domain_id: await this.domain(),
        source_vpc_id: this.vpc,
      },
    })
    return job.entities.server_group_id as string
  }

  async pair(group: string, volume: string, name = 'pair'): Promise<string> {
    const job = await this.job('POST', '/v1/{project}/replications', {
      replication: { server_group_id: group, volume_id: volume, name },
    })
    return job.entities.replication_pair_id as string
  }

  async show(group: string): Promise<Reply['body']> {
    return (await this.ok('GET', `/v1/{project}/server-groups/${group}`)).server_group
  }

  async showPair(pair: string): Promise<Reply['body']> {
    return (await this.ok('GET', `/v1/{project}/replications/${pair}`)).replication
  }

  async act(group: string, action: string, value: unknown = {}): Promise<Reply['body']> {
    return await this.job('POST', `/v1/{project}/server-groups/${group}/action`, {
      [action]: value,
    })
  }

  /** A link that is lost soon after each rise waits up to 60 s before the next one (flapping.ts): a busy machine may lose some. */
  async inSync(pair: string): Promise<void> {
    const inSync = async () => {
      const { replication_status, progress } = await this.showPair(pair)
      return replication_status === 'active' && progress === 100
    }
    await this.until(`${pair} is in sync`, inSync, 90_000)
  }

  async until(what: string, check: () => Promise<boolean>, limitMs = 30_000): Promise<void> {
    const endMs = systemClock.bootMs() + limitMs
    while (!(await check())) {
      assert.ok(systemClock.bootMs() < endMs, `${what}: not within ${limitMs} ms`)
      await sleep(systemClock, 50)
    }
  }

  /** Stops the control plane in order, runs `between`, and starts it again at the same internal port. */
  async restartControl(between: () => Promise<void>): Promise<void> {
    const internalPort = this.plane.internal.port
    await this.#control.stopServing()
    await this.plane.close()
    await between()
    const { directory } = this
    this.#control = await startRegionControl({ directory, internalPort, ...this.#options })
  }

  async stop(): Promise<void> {
    await this.#control?.stopServing()
    for (const agent of this.#agents.values()) await agent.close()
    await this.#control?.plane.close()
    await rm(this.directory, { recursive: true, force: true })
  }
}
