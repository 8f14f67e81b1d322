import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { connectNbd, type NbdClient } from '#client/nbd/client.ts'
import { Lab } from '../../test/lab.ts'
import { within } from './within.ts'

/* A whole system as `holdfast up` starts it, with many protected pairs, driven over its public API: what the questions about groups are asked of. */

export const SITES = ['az1', 'az2'] as const
export type SiteName = (typeof SITES)[number]

/** Calls of the API at one time while pairs are made. */
const AT_ONCE = 4
const SERVED_LIMIT_MS = 60_000
/** A whole system, at its beginning and its end. */
const START_MS = 120_000
const STOP_MS = 120_000

export interface Group {
  readonly id: string
  readonly pairs: readonly string[]
}

interface GroupView {
  readonly sync: string
  readonly record: { readonly state: string; readonly writer: string }
}

export class System {
  readonly lab: Lab
  readonly #upPid: number
  #groups = 0

  private constructor(lab: Lab) {
    this.lab = lab
    this.#upPid = Number(readFileSync(join(lab.data, 'up.pid'), 'utf8'))
  }

  /** `flags`: of `holdfast up`; `env`: options over the defaults of an installation. */
  static async start(flags: readonly string[], env: Record<string, string> = {}): Promise<System> {
    const started = Lab.start({ HOLDFAST_LOG_LEVEL: 'warn', ...env }, ...flags)
    const where = () => 'its directory is the newest holdfast-lab-* among the temporary files'
    return new System(await within(START_MS, 'the start of the system', started, where))
  }

  /** Supervisor and all its parts: what is not foreign. Children of a named process count with it. */
  get pids(): readonly number[] {
    return [this.#upPid]
  }

  agentPid(site: SiteName): number {
    return this.lab.pid(`${site}-agent`)
  }

  async job(method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
    const reply = await this.lab.call<{ job_id?: string }>(method, path, body)
    if (reply.body.job_id === undefined) {
      throw new Error(`${method} ${path}: ${JSON.stringify(reply.body)}`)
    }
    return await this.lab.job(reply.body.job_id)
  }

  async act(group: string, action: string, value: unknown = {}): Promise<void> {
    await this.job('POST', `/v1/{project}/server-groups/${group}/action`, { [action]: value })
  }

  /** A group without anything, production at az1. `more`: further members of the request. */
  async emptyGroup(more: object = {}): Promise<string> {
    const { lab } = this
    const { domains } = await lab.ok<{ domains: { id: string }[] }>(
      200,
      'GET',
      '/v1/{project}/active-domains',
    )
    const { vpcs } = await lab.ok<{ vpcs: { id: string }[] }>(200, 'GET', '/v1/{project}/vpcs')
    const made = await this.job('POST', '/v1/{project}/server-groups', {
      server_group: {
        name: `bench-${++this.#groups}`,
        source_availability_zone: 'az1',
        target_availability_zone: 'az2',
        domain_id: domains[0]?.id,
        source_vpc_id: vpcs[0]?.id,
        dr_type: 'migration',
        ...more,
      },
    })
    return entity(made, 'server_group_id')
  }

  /** A group of new pairs of 1 GiB, production at az1, protected; not yet in sync. */
  async group(pairCount: number): Promise<Group> {
    const { lab } = this
    const id = await this.emptyGroup()
    const pairs = await inParallel(pairCount, async (index) => {
      const volume = await lab.volume(1, 'az1', `bench-${index}`)
      const pair = await this.job('POST', '/v1/{project}/replications', {
        replication: { name: `bench-${index}`, server_group_id: id, volume_id: volume },
      })
      return entity(pair, 'replication_pair_id')
    })
    await this.act(id, 'start-server-group')
    return { id, pairs }
  }

  async groups(count: number, pairCount: number): Promise<Group[]> {
    const groups = await inParallel(count, () => this.group(pairCount))
    for (const group of groups) await this.inSync(group.id)
    return groups
  }

  async show(group: string): Promise<GroupView> {
    const path = `/api/v1/groups/${group}`
    return (await this.lab.ok<{ group: GroupView }>(200, 'GET', path)).group
  }

  async inSync(group: string): Promise<void> {
    await this.lab.until(
      'in sync',
      () => this.show(group),
      ({ sync, record }) => sync === 'in_sync' && record.state === 'in_sync',
      120_000,
    )
  }

  socket(site: SiteName): string {
    return join(this.lab.data, `${site}-agent`, 'nbd.sock')
  }

  async connect(site: SiteName, pair: string): Promise<NbdClient> {
    return await connectNbd({ unix: this.socket(site) }, { exportName: pair, timeoutMs: 30_000 })
  }

  /** Writes durably at the beginning of the pair, over a connection of its own; repeats while the site does not serve it. */
  async write(site: SiteName, pair: string, data: Buffer, retryMs = 100): Promise<void> {
    const endMs = performance.now() + SERVED_LIMIT_MS
    for (;;) {
      try {
        const client = await this.connect(site, pair)
        await client.write(0, data, { fua: true })
        await client.disconnect()
        return
      } catch (error) {
        if (performance.now() > endMs) throw error
        await pause(retryMs)
      }
    }
  }

  async close(): Promise<void> {
    await within(STOP_MS, 'the end of the system', this.lab.close(), () => {
      const run = join(this.lab.data, 'run')
      return `still there: ${readdirSync(run).join(', ')}; logs in ${join(this.lab.data, 'log')}`
    })
  }
}

function entity(job: Record<string, unknown>, name: string): string {
  const entities = job['entities'] as Record<string, unknown>
  const found = entities[name]
  if (typeof found !== 'string') throw new Error(`the job made no ${name}: ${JSON.stringify(job)}`)
  return found
}

/** Results in order, a few at a time. */
export async function inParallel<T>(
  count: number,
  work: (index: number) => Promise<T>,
  atOnce = AT_ONCE,
): Promise<T[]> {
  const results: T[] = []
  let next = 0
  const lane = async (): Promise<void> => {
    while (next < count) {
      const index = next++
      results[index] = await work(index)
    }
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, count) }, lane))
  return results
}

export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms))
