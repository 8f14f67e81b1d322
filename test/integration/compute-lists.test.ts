/** Lists of servers: filters, order and pages, in the words of both server APIs. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { findImageByName } from '#control/resources/images.ts'
import { disksOf, listServers } from '#control/resources/servers.ts'
import { ApiLab, type Reply } from '../support/api.ts'
import { insertServers } from '../support/server-rows.ts'

let lab: ApiLab
let image: string

before(async () => {
  lab = await ApiLab.start()
  image = (await findImageByName(lab.store.db, 'holdfast-tiny'))?.id ?? ''
})
after(async () => await lab.stop())

test('lists are filtered, ordered and cut into pages that link on', async () => {
  const project = await lab.project('local-1_lists')
  const { token: other } = await lab.userWith('operator', project)
  const list = async (query: string, path = 'servers') => {
    const url = `/v2.1/${project}/${path}?${query}`
    return await lab.call({ url, headers: { 'x-auth-token': other } }, 'compute')
  }
  await lab.call({ url: `/v1/${project}/vpcs`, headers: { 'x-auth-token': other } })
  await insertServers(lab.store, project, 30, image)
  const names = (reply: Reply) => (reply.body.servers as { name: string }[]).map(({ name }) => name)
  const all = names(await list(''))
  assert.equal(all.length, 30)
  assert.equal(all[0], 'server-0029')
  // Page after page by the links gives everything once.
  const walked: string[] = []
  let url: string | undefined = `/v2.1/${project}/servers/detail?limit=12`
  while (url !== undefined) {
    const reply: Reply = await lab.call({ url, headers: { 'x-auth-token': other } }, 'compute')
    walked.push(...names(reply))
    const next = reply.body.servers_links?.[0].href as string | undefined
    url = next?.replace('http://127.0.0.1:7410', '')
  }
  assert.deepEqual(walked, all)
  const last = (await list('')).body.servers.at(-1).id as string
  assert.deepEqual((await list(`limit=5&marker=${last}`)).body, { servers: [] })
  for (const [query, count] of [
    ['name=server-001', 10],
    ['name=^server-0007$', 1],
    ['name=0007', 1],
    ['name=nothing', 0],
    ['status=ACTIVE', 30],
    ['status=active', 30],
    ['status=SHUTOFF', 0],
    ['ip=192.168.4.7', 1],
    ['ip=192.168.4.2', 11],
    ['flavor=t2.micro', 30],
    ['flavor=t2.nano', 0],
    [`image=${image}`, 30],
    ['availability_zone=az2', 0],
    ['all_tenants=True', 30],
    ['changes-since=1970-01-01T00:00:01Z', 0],
    ['changes-since=1970-01-01T00:00:00Z', 30],
    ['tags=a', 0],
    ['unknown=x', 30],
    ['deleted=False', 30],
  ] as const) {
    const reply = await list(query, 'servers/detail')
    assert.equal(reply.body.servers?.length, count, `${query}: ${reply.text.slice(0, 200)}`)
  }
  assert.equal(names(await list('sort_key=display_name&sort_dir=asc'))[0], 'server-0000')
  assert.equal(names(await list('sort_key=created_at&sort_dir=asc&limit=1'))[0], 'server-0000')
  for (const query of ['limit=x', 'marker=nothing', 'sort_key=x', 'changes-since=yesterday']) {
    assert.equal((await list(query)).status, 400, query)
  }
  const ecs = async (query: string) =>
    await lab.call(
      {
        url: `/v1/${project}/cloudservers/detail?${query}`,
        headers: { 'x-auth-token': other },
      },
      'compute',
    )
  assert.equal((await ecs('')).body.servers.length, 25)
  assert.equal((await ecs('offset=0&limit=20')).body.servers.length, 20)
  assert.equal((await ecs('offset=2&limit=20')).body.servers.length, 10)
  assert.deepEqual((await ecs('offset=3&limit=20')).body, { servers: [], count: 30 })
  assert.equal((await ecs('ip_eq=192.168.4.2')).body.count, 1)
  assert.equal((await ecs('ip=192.168.4.2')).body.count, 11)
  assert.equal((await ecs('offset=x')).status, 400)
})

test('a thousand servers are listed with their disks by a few queries', async (t) => {
  const project = await lab.project('local-1_many')
  const { token } = await lab.userWith('operator', project)
  // The first look makes the default networks.
  await lab.call({ url: `/v1/${project}/vpcs`, headers: { 'x-auth-token': token } })
  await insertServers(lab.store, project, 1_000, image)
  const times: number[] = []
  for (let round = 0; round < 20; round++) {
    const begin = performance.now()
    const rows = await listServers(lab.store.db, project)
    const ids = rows.map(({ id }) => id)
    const disks = await disksOf(lab.store.db, ids)
    times.push(performance.now() - begin)
    assert.ok(rows.length === 1000 && ids.every((id) => disks.get(id)?.length === 1))
  }
  t.diagnostic(`median ${times.toSorted((a, b) => a - b)[10]?.toFixed(1)} ms`)
})
