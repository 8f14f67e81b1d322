/** The life of pairs and consistency groups of the volume API, over a control plane that dies at every boundary of it. */
import assert from 'node:assert/strict'
import type { Answer, Lives } from './lives.ts'

const VOLUMES = '/v2/{project}/volumes'
const PAIRS = '/v2/{project}/os-vendor-replications'
const SNAPSHOTS = '/api/v1/snapshots'
const GROUPS = '/v2/{project}/os-vendor-replication-consistency-groups'

/** `mark` writes a text to an export of a site, `marked` reads it. */
export interface Marks {
  readonly mark: (site: string, name: string, text: string) => Promise<void>
  readonly marked: (site: string, name: string) => Promise<string>
}

/**
 * Two pairs are made and come into a group; one of them changes places with the other, fails over while it is paused, and
 * comes back; everything goes away again, but the data.
 */
export async function consistencyLife(lives: Lives, { mark, marked }: Marks): Promise<void> {
  const named = async (path: string, member: string, name: string): Promise<Answer['body']> => {
    const rows = await lives.get(path, member)
    return rows?.find((row: { name: string }) => row.name === name) ?? null
  }
  /** Sends a creation until its row is there. Its answer may be lost, and then a repetition is refused. */
  const create = async (path: string, list: string, member: string, name: string, body: object) => {
    const find = async () => await named(list, member, name)
    await lives.change('POST', path, body, async () => ((await find()) === null ? null : true))
    const row = await lives.until(`${name} is there`, async () => {
      const found = await find()
      assert.notEqual(found?.status, 'error', JSON.stringify(found))
      return found?.status === 'available' ? found : null
    })
    return row.id as string
  }
  const disk = async (name: string, site: string) =>
    await create(VOLUMES, `${VOLUMES}/detail`, 'volumes', name, {
      volume: { name, size: 1, availability_zone: site, volume_type: 'SSD' },
    })
  const makePair = async (name: string) => {
    const az1 = await disk(`${name}-1`, 'az1')
    const az2 = await disk(`${name}-2`, 'az2')
    const common = { name, priority_station: 'az1', replication_model: 'hypermetro' }
    const replication = { ...common, volume_ids: [az1, az2] }
    const pair = await create(PAIRS, PAIRS, 'replications', name, { replication })
    return { pair, az1, az2 }
  }
  const is = async (path: string, member: string, wanted: string) =>
    await lives.until(`${path} is ${wanted}`, async () => {
      const shown = await lives.get(path, member)
      assert.ok(!String(shown?.status).startsWith('error'), JSON.stringify(shown))
      const ready = shown?.status === 'available' && shown.replication_status === wanted
      return ready ? shown : null
    })
  const pairIs = async (id: string, wanted: string) =>
    await is(`${PAIRS}/${id}`, 'replication', wanted)
  const groupIs = async (id: string, wanted: string) =>
    await is(`${GROUPS}/${id}`, 'replication_consistency_group', wanted)
  const act = async (group: string, action: string, wanted: string) => {
    const body = { [`os-${action}-replication-consistency-group`]: null }
    const done = async () => {
      const shown = await lives.get(`${GROUPS}/${group}`, 'replication_consistency_group')
      return shown?.replication_status === wanted ? true : null
    }
    await lives.change('POST', `${GROUPS}/${group}/action`, body, done)
    await groupIs(group, wanted)
  }
  const regroup = async (group: string, add: readonly string[], remove: readonly string[]) => {
    const change = { add_replication_ids: add, remove_replication_ids: remove }
    const body = { replication_consistency_group: change }
    const done = async () => {
      const shown = await lives.get(`${GROUPS}/${group}`, 'replication_consistency_group')
      if (shown === null) return null
      const ids = shown.replication_ids as string[]
      const all = add.every((id) => ids.includes(id)) && !remove.some((id) => ids.includes(id))
      return shown.status === 'updating' || all ? true : null
    }
    await lives.change('PUT', `${GROUPS}/${group}`, body, done)
    await groupIs(group, 'active-stopped')
  }
  const remove = async (path: string) => {
    const going = async () => {
      const answer = await lives.ask('GET', path)
      if (answer === null) return null
      return answer.status === 404 || JSON.stringify(answer.body).includes('"status":"deleting"')
        ? true
        : null
    }
    await lives.change('DELETE', path, undefined, going)
    await lives.until(`${path} is gone`, async () => {
      const answer = await lives.ask('GET', path)
      return answer?.status === 404 ? true : null
    })
  }

  const first = await makePair('crash-a')
  const second = await makePair('crash-b')
  await pairIs(first.pair, 'active')
  await pairIs(second.pair, 'active')
  await mark('az1', first.pair, 'a alone')
  const group = await create(GROUPS, GROUPS, 'replication_consistency_groups', 'crashing', {
    replication_consistency_group: {
      name: 'crashing',
      replication_ids: [first.pair],
      priority_station: 'az1',
      replication_model: 'hypermetro',
    },
  })
  await groupIs(group, 'active')
  await mark('az1', first.pair, 'a together')
  await act(group, 'stop', 'active-stopped')
  await mark('az1', first.az1, 'a while paused')
  await mark('az1', second.pair, 'b alone')
  await regroup(group, [second.pair], [first.pair])
  await pairIs(first.pair, 'active')
  await act(group, 'sync', 'active')
  await mark('az1', second.pair, 'b together')
  await act(group, 'stop', 'active-stopped')
  // What production writes from here on is given up.
  await mark('az1', second.az1, 'b while paused')
  const path = `${GROUPS}/${group}`
  const force = { 'os-failover-replication-consistency-group': { force: true } }
  const status = async () => (await lives.get(path, 'replication_consistency_group'))?.status
  await lives.change('POST', `${path}/action`, force, async () =>
    ['failovering', 'failovered'].includes(await status()) ? true : null,
  )
  await lives.until('the group has failed over', async () =>
    (await status()) === 'failovered' ? true : null,
  )
  await act(group, 'reprotect', 'active')
  await act(group, 'stop', 'active-stopped')
  await regroup(group, [], [second.pair])
  await remove(`${GROUPS}/${group}`)
  for (const { pair } of [first, second]) {
    await pairIs(pair, 'active')
    await remove(`${PAIRS}/${pair}`)
  }
  // What production wrote while the group was paused was kept, once.
  const kept = await lives.until('the old production was kept', async () => {
    const all = await lives.get(SNAPSHOTS, 'snapshots')
    const found = all?.filter((one: { name: string }) => one.name === 'crashing-before-failover')
    assert.ok((found?.length ?? 1) === 1, JSON.stringify(found))
    return found?.[0]?.status === 'available' ? found[0] : null
  })
  for (const [site, a, b] of [
    ['az1', first.az1, second.az1],
    ['az2', first.az2, second.az2],
  ] as const) {
    assert.deepEqual(
      [await marked(site, a), await marked(site, b)],
      ['a while paused', 'b together'],
    )
    if (site === 'az1') await remove(`${SNAPSHOTS}/${kept.id}`)
    for (const id of [a, b]) await remove(`${VOLUMES}/${id}`)
  }
}
