/** Replication pairs and consistency groups of the volume API in a region with real agents: made, acted on, watched and taken apart as clients do it. */
import assert from 'node:assert/strict'
import type { Region, Reply } from './region.ts'

export const PAIRS = '/v2/{project}/os-vendor-replications'
export const GROUPS = '/v2/{project}/os-vendor-replication-consistency-groups'

/** A request for a pair. */
export const pairOf = (site: string, ids: readonly string[], more: object = {}) => ({
  replication: {
    name: 'pair',
    description: 'two disks',
    volume_ids: ids,
    priority_station: site,
    replication_model: 'hypermetro',
    ...more,
  },
})

export type Shown = Readonly<Record<string, unknown>>

export const ACTIVE = { status: 'available', replication_status: 'active' }
export const PAUSED = { status: 'available', replication_status: 'active-stopped' }
export const OVER = { status: 'failovered', replication_status: 'active-stopped' }

/** What is shown before a pair or group is `ACTIVE` for the first time. */
const COMING: readonly unknown[] = ['creating', null, 'copying']

export interface Made {
  readonly pair: string
  readonly az1: string
  readonly az2: string
}

export class EvsReplications {
  readonly region: Region

  constructor(region: Region) {
    this.region = region
  }

  async showPair(id: string): Promise<Reply['body']> {
    return (await this.region.ok('GET', `${PAIRS}/${id}`)).replication
  }

  async showGroup(id: string): Promise<Reply['body']> {
    return (await this.region.ok('GET', `${GROUPS}/${id}`)).replication_consistency_group
  }

  /** Polls as the documents tell clients to, and fails on any state that should not be seen on the way. */
  async until(
    show: () => Promise<Shown>,
    wanted: Shown,
    passing: readonly unknown[] = [],
  ): Promise<Shown> {
    let last: Shown = {}
    const want = JSON.stringify(wanted)
    await this.region.until(want, async () => {
      last = await show()
      const seen = Object.keys(wanted).map((key) => last[key])
      const known = new Set([...Object.values(wanted), ...passing])
      assert.ok(
        seen.every((value) => known.has(value)),
        `on the way to ${want}: ${JSON.stringify(last)}`,
      )
      return Object.entries(wanted).every(([key, value]) => last[key] === value)
    })
    return last
  }

  async pairActive(id: string): Promise<Shown> {
    return await this.until(() => this.showPair(id), ACTIVE, COMING)
  }

  async groupActive(id: string, passing: readonly unknown[] = []): Promise<Shown> {
    return await this.until(() => this.showGroup(id), ACTIVE, [...COMING, ...passing])
  }

  /** A pair with production at az1, in sync. */
  async makePair(name: string, more: object = {}): Promise<Made> {
    const az1 = await this.region.volume(`${name}-1`)
    const az2 = await this.region.volume(`${name}-2`, 1, 'az2')
    const made = await this.region.ok(
      'POST',
      PAIRS,
      pairOf('az1', [az1, az2], { name, ...more }),
      202,
    )
    const pair = made.replication.id as string
    await this.pairActive(pair)
    return { pair, az1, az2 }
  }

  async makeGroup(name: string, pairs: readonly string[], more: object = {}) {
    const { replication_consistency_group: made } = await this.region.ok(
      'POST',
      GROUPS,
      {
        replication_consistency_group: {
          name,
          description: '',
          replication_ids: pairs,
          priority_station: 'az1',
          replication_model: 'hypermetro',
          ...more,
        },
      },
      202,
    )
    assert.equal(made.status, 'creating')
    await this.groupActive(made.id)
    return made.id as string
  }

  async act(group: string, action: string, value: unknown = null): Promise<Reply['body']> {
    return await this.region.ok('POST', `${GROUPS}/${group}/action`, {
      [`os-${action}-replication-consistency-group`]: value,
    })
  }

  async gone(path: string): Promise<void> {
    await this.region.until(
      `${path} is gone`,
      async () => (await this.region.call('GET', path)).status === 404,
    )
  }

  async deletePair(id: string): Promise<void> {
    await this.region.ok('DELETE', `${PAIRS}/${id}`, undefined, 202)
    await this.gone(`${PAIRS}/${id}`)
  }

  /** Pauses, takes all pairs out, deletes the group and the pairs. */
  async removeGroup(group: string): Promise<void> {
    const { replication_ids: pairs } = await this.showGroup(group)
    await this.act(group, 'stop')
    const change = { remove_replication_ids: pairs }
    await this.region.ok(
      'PUT',
      `${GROUPS}/${group}`,
      { replication_consistency_group: change },
      202,
    )
    await this.until(() => this.showGroup(group), { status: 'available' }, ['updating'])
    await this.region.ok('DELETE', `${GROUPS}/${group}`, undefined, 202)
    await this.gone(`${GROUPS}/${group}`)
    for (const pair of pairs) await this.deletePair(pair)
  }

  /** No operation is at work any more: what a group shows is true a moment before the operation that made it so has ended. */
  async quiet(): Promise<void> {
    const { db } = this.region.plane.store
    await this.region.until('nothing is at work', async () => {
      const ended = ['succeeded', 'failed', 'cancelled'] as const
      const query = db.selectFrom('operations').select('id').where('status', 'not in', ended)
      return (await query.executeTakeFirst()) === undefined
    })
  }

  /** Refused with this status and code, and nothing has changed. */
  async refused(
    status: number,
    code: string,
    method: string,
    path: string,
    request?: unknown,
  ): Promise<string> {
    await this.quiet()
    const before = await this.region.snapshot()
    const reply = await this.region.call(method, path, request)
    assert.equal(reply.status, status, `${method} ${path}: ${JSON.stringify(reply.body)}`)
    assert.equal(reply.body.error.code, code, JSON.stringify(reply.body))
    assert.ok(
      (await this.region.snapshot()) === before,
      `${method} ${path} was refused and changed something`,
    )
    return reply.body.error.message as string
  }
}
