import { type Clock, sleep } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { ApiSession } from '#client/api.ts'
import { createVolume, showVolume } from '#client/evs.ts'
import {
  API_REFUSED,
  API_UNAUTHORIZED,
  API_UNREACHABLE,
  JOB_FAILED,
  TIMED_OUT,
} from '#client/faults.ts'
import {
  createGroup,
  createPair,
  failOverGroup,
  listDomains,
  listPairs,
  listVpcs,
  reverseGroup,
  showGroup,
  startGroup,
  waitFor,
  waitForJob,
} from '#client/sdrs.ts'
import type { Events } from './events.ts'
import type { Site } from './lab/lab.ts'
import { VOLUME_GIB } from './load/layout.ts'
import type { Mode } from './schedule.ts'

/* The operator of the group: everything over the public API, as a person or a script would do it. */

export interface View {
  readonly status: string
  readonly sync: string
  readonly record: {
    readonly mode: string
    readonly preferred: string
    readonly epoch: number
    readonly state: string
    readonly writer: string
    readonly trusted: boolean
  } | null
  readonly sides: readonly {
    readonly site: string
    readonly role: 'production' | 'dr'
    readonly heard: boolean
    readonly session: Readonly<Record<string, unknown>> | null
  }[]
}

/** Protected, and known to be in step now. */
export function isWell({ status, sync, sides, record }: View): boolean {
  const production = sides.find(({ role }) => role === 'production')
  return (
    status === 'protected' &&
    sync === 'in_sync' &&
    record?.trusted === true &&
    record.writer === production?.site &&
    sides.every(({ heard, session }) => heard && session?.['epoch'] === record.epoch)
  )
}

export interface OperatorOptions {
  readonly clock: Clock
  readonly api: ApiSession
  readonly events: Events
}

export interface Made {
  readonly group: string
  /** In one order: pair, its volume at either site. */
  readonly pairs: readonly {
    readonly id: string
    readonly volumes: Readonly<Record<Site, string>>
  }[]
}

export interface Announced {
  readonly kind: 'nothing' | 'at_least' | 'unknown'
  readonly bytes: number | null
}

export interface Range {
  readonly offset: number
  readonly length: number
}

export interface Divergence {
  readonly id: string
  readonly site: string
  readonly winner: string
  readonly epoch: number
  readonly state: string
  readonly reason: string | null
  readonly bytes: number
}

const SETUP_MS = 60_000

export class Operator {
  readonly #o: OperatorOptions
  #group = ''

  constructor(options: OperatorOptions) {
    this.#o = options
  }

  /** Makes volumes, group and pairs, and starts protection. Settles when the copy has begun. */
  async setUp(volumes: number): Promise<Made> {
    const { api, clock } = this.#o
    const limit = { clock, limitMs: SETUP_MS }
    const [domain] = await listDomains(api)
    const [vpc] = await listVpcs(api)
    if (domain === undefined || vpc === undefined)
      throw new Error('the region has no domain or network')
    const job = await createGroup(api, {
      name: 'torture',
      source: 'az1',
      target: 'az2',
      domainId: domain.id,
      vpcId: vpc.id,
    })
    this.#group = String((await waitForJob(api, job, limit)).entities['server_group_id'])
    for (let index = 0; index < volumes; index++) {
      const { id } = await createVolume(api, {
        name: `torture-${index}`,
        site: 'az1',
        sizeGib: VOLUME_GIB,
      })
      await waitFor(
        `volume ${id}`,
        () => showVolume(api, id),
        ({ status }) => status === 'available',
        limit,
      )
      await waitForJob(
        api,
        await createPair(api, { name: `torture-${index}`, group: this.#group, volume: id }),
        limit,
      )
    }
    await waitForJob(api, await startGroup(api, this.#group), limit)
    const pairs = (await listPairs(api, this.#group)).map((pair) => {
      const [az1 = '', az2 = ''] = pair.volume_ids.split(',')
      return { id: pair.id, name: pair.name, volumes: { az1, az2 } }
    })
    pairs.sort((a, b) => (a.name < b.name ? -1 : 1))
    return { group: this.#group, pairs }
  }

  /** Undefined: the control plane does not answer. */
  async look(): Promise<View | undefined> {
    try {
      const { group } = await this.#o.api.get<{ group: View }>(`/api/v1/groups/${this.#group}`)
      return group
    } catch (error) {
      if (isAway(error)) return undefined
      throw error
    }
  }

  /** Settles with how it ended: `done`, or the reason why not. */
  async reverse(): Promise<string> {
    return await this.#do('reverse', async (api) => {
      const { priority_station: now } = await showGroup(api, this.#group)
      return await reverseGroup(api, this.#group, now === 'source' ? 'target' : 'source')
    })
  }

  /** What a failover would give up, as the system says; undefined when it does not answer or gives up nothing. */
  async announcedLoss(force: boolean): Promise<Announced | undefined> {
    try {
      const { preflight } = await this.#o.api.get<{ preflight: { given_up: Announced | null } }>(
        `/api/v1/groups/${this.#group}/preflight?action=failover&force=${force}`,
      )
      return preflight.given_up ?? undefined
    } catch (error) {
      if (isAnswer(error)) return undefined
      throw error
    }
  }

  /** Records of what the losing site had and the winning one overwrote. */
  async divergences(): Promise<readonly Divergence[]> {
    const { divergences } = await this.#o.api.get<{ divergences: Divergence[] }>(
      `/api/v1/groups/${this.#group}/divergences`,
    )
    return divergences
  }

  async divergentRanges(divergence: string, volume: string): Promise<readonly Range[]> {
    const ranges: Range[] = []
    for (let from: number | null = 0; from !== null; ) {
      const page: { ranges: Range[]; next: number | null } = await this.#o.api.get(
        `/api/v1/divergences/${divergence}/ranges?volume=${volume}&from=${from}&limit=10000`,
      )
      ranges.push(...page.ranges)
      from = page.next
    }
    return ranges
  }

  /** Settles with how it ended. */
  async arbitrate(mode: Mode, preferred: Site): Promise<string> {
    try {
      await this.#o.api.put(`/api/v1/groups/${this.#group}/arbitration`, { mode, preferred })
      return 'done'
    } catch (error) {
      if (!isAnswer(error)) throw error
      return error.message.slice(0, 200)
    }
  }

  /** `preferredOff`: states that the preferred site of a static-priority group is off. */
  async failOver(force: boolean, preferredOff = false): Promise<string> {
    return await this.#do(force ? 'failover by force' : 'failover', (api) =>
      failOverGroup(api, this.#group, force, preferredOff),
    )
  }

  async start(): Promise<string> {
    return await this.#do('start', (api) => startGroup(api, this.#group))
  }

  /** Asks until the control plane takes the request or refuses it, then waits for the job's end. */
  async #do(name: string, ask: (api: ApiSession) => Promise<string>): Promise<string> {
    const { api, clock, events } = this.#o
    const endMs = clock.bootMs() + JOB_MS
    for (;;) {
      try {
        const job = await ask(api)
        events.add(`operator: ${name}, job ${job}`)
        await waitForJob(api, job, { clock, limitMs: JOB_MS })
        events.add(`operator: ${name} done`)
        return 'done'
      } catch (error) {
        if (isAway(error) && clock.bootMs() < endMs) {
          await sleep(clock, 200)
          continue
        }
        if (!isAnswer(error)) throw error
        const reason = error.message.slice(0, 300)
        events.add(`operator: ${name} was not done: ${reason}`)
        return reason
      }
    }
  }
}

const JOB_MS = 60_000

/** A request that did not come back may have been taken all the same; then the repetition is refused, which is fine. */
const isAway = (error: unknown): boolean =>
  isFault(error, API_UNREACHABLE) || isFault(error, API_UNAUTHORIZED) || is5xx(error)

const is5xx = (error: unknown): boolean =>
  isFault(error, API_REFUSED) && Number((error.detail as { status?: unknown }).status) >= 500

const isAnswer = (error: unknown): error is Error =>
  isFault(error, API_REFUSED) ||
  isFault(error, JOB_FAILED) ||
  isFault(error, TIMED_OUT) ||
  isAway(error)
