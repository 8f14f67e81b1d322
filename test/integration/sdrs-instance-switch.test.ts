/** Protected instances while their group is switched, and in every state. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import type { RequestServices } from '#control/operations/definitions/requests.ts'
import { INSTANCE_STATUSES } from '#domain/protected-instance.ts'
import { GROUPS, INSTANCES, instanceLab } from '../support/instance-lab.ts'
import { type Region } from '../support/region.ts'

const kit = instanceLab()
const {
  server,
  row,
  power,
  guestAt,
  nicsAt,
  protect,
  show,
  refused,
  inSync,
  dropGroup,
  dropServers,
  worn,
} = kit
let region: Region
let services: RequestServices

before(async () => {
  ;({ region, services } = await kit.start())
})
after(async () => await region.stop())

test('the identity of a server goes where production goes, and nothing runs at the other site', async () => {
  const web = await server('web')
  const group = await region.group('g')
  const id = await protect(group, web.id)
  const dr = (await show(id)).target_server
  await region.act(group, 'start-server-group')
  assert.equal((await show(id)).status, 'protected')
  await inSync(id)
  assert.equal((await show(id)).progress, 100)
  const [identity, spare] = [await worn(web.id), await worn(dr)]

  const action = `${GROUPS}/${group}/action`
  const reverse = (to: string) => ({ 'reverse-server-group': { priority_station: to } })
  await refused('POST', action, reverse('target'), 'SDRS.1319')
  assert.equal(await power(web.id, 'stop'), null)
  await region.act(group, 'reverse-server-group', { priority_station: 'target' })
  const turned = await show(id)
  assert.deepEqual([turned.status, turned.priority_station], ['protected', 'target'])
  assert.deepEqual([turned.source_server, turned.target_server], [web.id, dr])
  assert.deepEqual([await worn(dr), await worn(web.id)], [identity, spare])
  assert.deepEqual([nicsAt('az2', dr), nicsAt('az1', web.id)], [identity, spare])
  assert.equal((await row(dr)).status, 'stopped')
  assert.equal(await power(web.id, 'start'), 'SERVER_NOT_PRODUCTION')
  assert.equal(await power(dr, 'start'), null)
  await inSync(id)
  await refused('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true }, 'SDRS.1330')
  await refused('POST', action, reverse('source'), 'SDRS.1319')
  assert.equal(await power(dr, 'stop'), null)
  await region.act(group, 'reverse-server-group', { priority_station: 'source' })
  assert.deepEqual([await worn(web.id), await worn(dr)], [identity, spare])

  assert.equal(await power(web.id, 'start'), null)
  await inSync(id)
  await region.act(group, 'failover-server-group')
  const over = await show(id)
  assert.deepEqual([over.status, over.priority_station], ['failed-over', 'target'])
  assert.equal(guestAt('az1', web.id)?.power, 'off')
  assert.deepEqual([await worn(dr), await worn(web.id)], [identity, []])
  assert.deepEqual([nicsAt('az2', dr), nicsAt('az1', web.id)], [identity, []])
  const old = await row(web.id)
  assert.deepEqual([old.status, old.power], ['stopped', 'off'])
  assert.equal(await power(web.id, 'start'), 'SERVER_NOT_PRODUCTION')
  assert.equal(await power(dr, 'start'), null)
  await refused(
    'POST',
    `${INSTANCES}/${id}/resize`,
    { resize: { flavorRef: 't2.nano' } },
    'SDRS.1328',
  )
  await refused('POST', `${INSTANCES}/${id}/nic`, { subnet_id: newId() }, 'SDRS.1327')

  await region.act(group, 'start-server-group')
  assert.equal((await show(id)).status, 'protected')
  assert.deepEqual(await worn(web.id), spare)
  assert.deepEqual(nicsAt('az1', web.id), spare)
  await inSync(id)
  assert.equal(await power(dr, 'stop'), null)
  await region.act(group, 'reverse-server-group', { priority_station: 'source' })
  await inSync(id)
  await region.act(group, 'stop-server-group')
  assert.equal((await show(id)).status, 'available')
  // As after a restored database, whose row follows the record.
  for (const [writer, replica, station] of [
    ['az2', 'az1', 'target'],
    ['az1', 'az2', 'source'],
  ] as const) {
    await services.store.write((tx) =>
      tx.updateTable('ownership').set({ writer, replica }).where('session', '=', group).execute(),
    )
    await region.until('the group follows its record', async () => {
      return (await show(id)).priority_station === station
    })
    const [production, other] = station === 'source' ? [web.id, dr] : [dr, web.id]
    assert.deepEqual([await worn(production), await worn(other)], [identity, spare])
  }
  await region.job('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true })
  await dropGroup(group)
  await dropServers(web.id)
})

test('a site that was dead in a failover powers its old servers off when it is back; servers start by themselves if the group wants that', async () => {
  const web = await server('web')
  const made = await region.job('POST', GROUPS, {
    server_group: {
      name: 'g',
      source_availability_zone: 'az1',
      target_availability_zone: 'az2',
      domain_id: await region.domain(),
      source_vpc_id: region.vpc,
      start_servers: true,
    },
  })
  const group = made.entities.server_group_id as string
  const id = await protect(group, web.id)
  const dr = (await show(id)).target_server
  await region.act(group, 'start-server-group')
  await inSync(id)
  const [identity, spare] = [await worn(web.id), await worn(dr)]
  await region.stopSite('az1')
  await region.act(group, 'failover-server-group')
  assert.deepEqual(await worn(dr), identity)
  assert.equal((await row(dr)).status, 'active')
  assert.equal(guestAt('az2', dr)?.power, 'running')
  assert.equal(guestAt('az1', web.id)?.power, 'running', 'nobody could tell it')
  const action = `${GROUPS}/${group}/action`
  await region.startSite('az1')
  await region.until('the old server is off', async () => guestAt('az1', web.id)?.power === 'off')
  await region.until('the old server has no NIC', async () => nicsAt('az1', web.id)?.length === 0)
  await region.until('the control plane knows', async () => {
    const reply = await region.call('POST', action, { 'start-server-group': {} })
    if (reply.status === 200) await region.plane.operations.waitFor(reply.body.job_id as string)
    else assert.equal(reply.body.error.code, 'SDRS.1342')
    return reply.status === 200
  })
  assert.equal((await show(id)).status, 'protected')
  assert.deepEqual(await worn(web.id), spare)
  await inSync(id)
  await region.act(group, 'stop-server-group')
  await region.job('DELETE', `${INSTANCES}/${id}`)
  // Production is where it was: its server has the identity, the other one the spare NIC.
  assert.deepEqual([await worn(dr), await worn(web.id)], [identity, spare])
  assert.equal((await row(dr)).status, 'active')
  await dropGroup(group)
  await dropServers(web.id, dr)
})

test('every state of an instance is one of the contract, and the forbidden ones refuse', async () => {
  const web = await server('web')
  const group = await region.group('g')
  const id = await protect(group, web.id)
  const { store } = services
  for (const status of INSTANCE_STATUSES) {
    if (status === 'invalid' || status === 'fault') continue
    await store.write((tx) =>
      tx.updateTable('protected_instances').set({ status }).where('id', '=', id).execute(),
    )
    // Held against the contract on the way.
    assert.equal((await show(id)).status, status)
    const { count } = await region.ok(
      'GET',
      `${INSTANCES}?status=${status}&server_group_id=${group}`,
    )
    assert.equal(count, 1)
    const well = status === 'available' || status === 'protected'
    if (!well) {
      await refused('POST', `${INSTANCES}/${id}/nic`, { subnet_id: newId() }, 'SDRS.1327')
      await refused('POST', `${INSTANCES}/${id}/nic/delete`, { nic_id: newId() }, 'SDRS.1327')
    }
    if (!well && status !== 'error-resizing') {
      await refused(
        'POST',
        `${INSTANCES}/${id}/resize`,
        { resize: { flavorRef: 't2.nano' } },
        'SDRS.1328',
      )
    }
    if (
      ['creating', 'deleting', 'nic-creating', 'resizing', 'starting', 'failing-over'].includes(
        status,
      )
    ) {
      await refused('DELETE', `${INSTANCES}/${id}`, undefined, 'SDRS.1301')
    }
  }
  await store.write((tx) =>
    tx
      .updateTable('protected_instances')
      .set({ status: 'available' })
      .where('id', '=', id)
      .execute(),
  )
  const [{ replication }] = (await show(id)).attachment
  const pairIs = async (status: string) =>
    await store.write((tx) =>
      tx.updateTable('replication_pairs').set({ status }).where('id', '=', replication).execute(),
    )
  await pairIs('error')
  assert.equal((await show(id)).status, 'fault')
  assert.equal(
    (await region.ok('GET', `${INSTANCES}?query_type=status_abnormal&server_group_id=${group}`))
      .count,
    1,
  )
  await pairIs('available')
  await region.job('DELETE', `${INSTANCES}/${id}`, { delete_target_server: true })
  await dropGroup(group)
  await dropServers(web.id)
})
