/** How many pairs were behind, and when. Rows and reports only: no site holds these pairs. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createLog } from '#base/log.ts'
import { createRpoWatch, RPO_POINT_MS, type RpoWatch } from '#control/operations/rpo-watch.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import { ApiLab, SITES } from '../support/api.ts'
import { type GroupsInSync, insertGroupsInSync, reportOf } from '../support/group-rows.ts'

let lab: ApiLab
let token: string
let seeded: GroupsInSync
let watch: RpoWatch

before(async () => {
  lab = await ApiLab.start()
  token = await lab.adminToken()
  seeded = await insertGroupsInSync(lab.store, lab.admin.project_id, {
    groups: 3,
    pairsPerGroup: 2,
  })
  const { store, clock, agents } = lab
  // No test is to meet the end of a stretch.
  clock.advance(RPO_POINT_MS - (clock.wallMs() % RPO_POINT_MS))
  const log = createLog('test', 'silent')
  watch = createRpoWatch({ store, clock, log, agents, agentSilenceMs: 1_000 })
})
after(async () => await lab.stop())

const list = async (query = '', expected = 200) => {
  const url = `/v1/${lab.admin.project_id}/resource/rpo-statistics${query}`
  const reply = await lab.call({ url, headers: { 'x-auth-token': token } }, 'sdrs')
  assert.equal(reply.status, expected, reply.text)
  return reply.body
}

/** Both sites report now; `change` is about the first group. */
async function report(change: Partial<SessionStatus> = {}): Promise<void> {
  const sessions = seeded.sessions.map((one, at) => (at === 0 ? { ...one, ...change } : one))
  for (const site of SITES) await lab.agents.receive(reportOf(site, sessions))
}

test('a stretch of time has one record with the most pairs that were behind at any look', async () => {
  assert.deepEqual(await list(), { resource_rpo_statistics: [], count: 0 })
  await report()
  await watch.look()
  const [first] = (await list()).resource_rpo_statistics
  assert.equal(first.resource_num, 0)
  assert.equal(first.resource_type, 'replication')
  assert.match(first.point_time, /^\d{4}-\d\d-\d\d \d\d:\d[05]$/)

  await report({ link: 'down' })
  await watch.look()
  await report()
  await watch.look()
  const { resource_rpo_statistics: points, count } = await list()
  assert.equal(count, 1)
  assert.deepEqual([points[0].id, points[0].resource_num], [first.id, 2])
})

test('every pair of a silent site is behind, one whose protection is off is not, and the next stretch has a record of its own', async () => {
  lab.clock.advance(RPO_POINT_MS)
  await lab.store.write((tx) =>
    tx
      .updateTable('ownership')
      .set({ state: 'closed' })
      .where('session', '=', seeded.groups[2]?.id ?? '')
      .execute(),
  )
  await watch.look()
  const { resource_rpo_statistics: points, count } = await list()
  assert.equal(count, 2)
  assert.deepEqual(
    points.map((one: { resource_num: number }) => one.resource_num),
    [4, 2],
  )
})

test('records are asked for by period, kind and page, and wrong values are refused', async () => {
  const { resource_rpo_statistics: points } = await list()
  const [late, early] = points as { id: string; created_at: string }[]
  assert.ok(late !== undefined && early !== undefined)
  const at = (time: string) => encodeURIComponent(time)
  const ids = async (query: string) =>
    (await list(query)).resource_rpo_statistics.map((one: { id: string }) => one.id)
  for (const [query, expected] of [
    [`?start_time=${at(late.created_at)}`, [late.id]],
    [`?end_time=${at(early.created_at)}`, [early.id]],
    [`?end_time=${at(early.created_at.slice(0, 19))}`, []],
    [`?start_time=${at(early.created_at)}000&end_time=${at(late.created_at)}`, [late.id, early.id]],
    ['?resource_type=replication&limit=1', [late.id]],
    ['?limit=1&offset=1', [early.id]],
    [`?limit=1&marker=${late.id}`, [early.id]],
    [`?marker=${early.id}`, []],
    ['?marker=gone', []],
    ['?limit=0', []],
    ['?shoe_size=44&start_time=', [late.id, early.id]],
  ] as const) {
    assert.deepEqual(await ids(query), expected, query)
  }
  for (const query of ['start_time=yesterday', 'end_time=2024-13-01%2000:00:00.0']) {
    assert.equal((await list(`?${query}`, 400)).error.code, 'SDRS.0201')
  }
  assert.equal((await list('?resource_type=server', 400)).error.code, 'SDRS.0201')
  assert.equal((await list('?limit=1001', 400)).error.code, 'SDRS.0221')
  assert.equal((await list('?offset=-1', 400)).error.code, 'SDRS.0222')
})

test('another project sees none of it', async () => {
  const other = await lab.project('local-1_other')
  const stranger = await lab.userWith('reader', other)
  const url = `/v1/${other}/resource/rpo-statistics`
  const reply = await lab.call({ url, headers: { 'x-auth-token': stranger.token } }, 'sdrs')
  assert.equal(reply.body.count, 0)
})

test('records of more than thirty days are deleted', async () => {
  lab.clock.advance(30 * 24 * 3_600_000)
  token = await lab.adminToken()
  await watch.look()
  const { resource_rpo_statistics: points } = await list()
  assert.equal(points.length, 1)
})
