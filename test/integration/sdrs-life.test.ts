import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Region } from '../support/region.ts'

/** The life of a group on real agents: protect, switch, fail over, come back. */
let region: Region
before(async () => {
  region = await Region.start()
})
after(async () => await region.stop())

test('a group goes from creation through every switch back to nothing', async () => {
  const volume = await region.volume('data')
  const group = await region.group()
  const pair = await region.pair(group, volume)
  assert.equal((await region.show(group)).status, 'available')
  assert.equal((await region.showPair(pair)).replication_status, 'inactive')

  const start = await region.act(group, 'start-server-group')
  assert.equal(start.job_type, 'startProtectionGroupNoCG')
  assert.equal((await region.show(group)).status, 'protected')
  await region.inSync(pair)

  await region.act(group, 'reverse-server-group', { priority_station: 'target' })
  const reversed = await region.show(group)
  assert.deepEqual([reversed.status, reversed.priority_station], ['protected', 'target'])
  await region.inSync(pair)

  await region.act(group, 'failover-server-group')
  const over = await region.show(group)
  assert.deepEqual([over.status, over.priority_station], ['failed-over', 'source'])

  const again = await region.act(group, 'start-server-group')
  assert.equal(again.job_type, 'reprotectProtectionGroupNoCG')
  await region.inSync(pair)

  await region.act(group, 'stop-server-group')
  assert.equal((await region.show(group)).status, 'available')
  assert.equal((await region.showPair(pair)).replication_status, 'active-stopped')

  await region.job('DELETE', `/v1/{project}/replications/${pair}`, {
    replication: { delete_target_volume: true },
  })
  await region.job('DELETE', `/v1/{project}/server-groups/${group}`)
  assert.equal((await region.call('GET', `/v1/{project}/server-groups/${group}`)).status, 404)
})
