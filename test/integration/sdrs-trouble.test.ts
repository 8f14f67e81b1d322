import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Region } from '../support/region.ts'

/** Sites that die in the middle of a switch or of a copy. */
const MIB = 1_048_576

let region: Region
/** Runs once when an operation reaches this boundary. */
let trap: { readonly point: string; spring(): Promise<void> } | undefined
let sprung: Promise<void> = Promise.resolve()

before(async () => {
  region = await Region.start({
    agent: { syncRateBytes: MIB },
    crashPoint(operation, step, phase) {
      if (trap?.point !== `${operation} ${step} ${phase}`) return
      sprung = trap.spring()
      trap = undefined
    },
  })
})
after(async () => await region.stop())

const ACTION = (group: string) => `/v1/{project}/server-groups/${group}/action`

async function protectedGroup(name: string) {
  const volume = await region.volume(name)
  const group = await region.group(name)
  const pair = await region.pair(group, volume, name)
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  return { volume, group, pair }
}

async function write(site: string, name: string, data: Buffer): Promise<void> {
  const client = await region.nbd(site, name)
  await client.write(0, data)
  await client.flush()
  await client.disconnect()
}

async function read(site: string, name: string, length: number): Promise<Buffer> {
  const client = await region.nbd(site, name)
  const data = await client.read(0, length)
  await client.disconnect()
  return data
}

async function remove(group: string, ...pairs: string[]): Promise<void> {
  for (const pair of pairs) await region.job('DELETE', `/v1/{project}/replications/${pair}`)
  await region.job('DELETE', `/v1/{project}/server-groups/${group}`)
}

async function code(method: string, path: string, body: object): Promise<string> {
  return (await region.call(method, path, body)).body.error.code as string
}

test('a reversal whose new production site dies is finished by repeating it', async () => {
  const { group, pair } = await protectedGroup('turned')
  await write('az1', pair, Buffer.alloc(4096, 1))
  trap = {
    point: 'group.reverse reverse_record after-record',
    spring: () => region.stopSite('az2'),
  }
  const reverse = { 'reverse-server-group': { priority_station: 'target' } }
  const job = await region.jobEnd('POST', ACTION(group), reverse)
  await sprung
  assert.equal(job.status, 'FAIL')
  assert.equal(job.error_code, 'SDRS.1029')
  const shown = await region.show(group)
  assert.deepEqual([shown.status, shown.priority_station], ['error-reversing', 'source'])
  assert.equal((await region.showPair(pair)).status, 'error-reversing')
  const back = { 'reverse-server-group': { priority_station: 'source' } }
  assert.equal(await code('POST', ACTION(group), back), 'SDRS.0216')

  await region.startSite('az2')
  await region.until('heard', async () => region.plane.agents.heard('az2'))
  await region.act(group, 'reverse-server-group', { priority_station: 'target' })
  const turned = await region.show(group)
  assert.deepEqual([turned.status, turned.priority_station], ['protected', 'target'])
  assert.deepEqual(await read('az2', pair, 4096), Buffer.alloc(4096, 1))
  await remove(group, pair)
})

test('a reversal whose old production site dies is finished by a failover', async () => {
  const { group, pair } = await protectedGroup('orphaned')
  await write('az1', pair, Buffer.alloc(4096, 2))
  trap = {
    point: 'group.reverse reverse_record after-record',
    spring: () => region.stopSite('az1'),
  }
  const reverse = { 'reverse-server-group': { priority_station: 'target' } }
  const job = await region.jobEnd('POST', ACTION(group), reverse)
  await sprung
  assert.equal(job.status, 'FAIL')
  await region.act(group, 'failover-server-group')
  const shown = await region.show(group)
  assert.deepEqual([shown.status, shown.priority_station], ['failed-over', 'target'])
  assert.deepEqual(await read('az2', pair, 4096), Buffer.alloc(4096, 2))
  await region.startSite('az1')
  await region.until('heard', async () => region.plane.agents.heard('az1'))
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  await remove(group, pair)
})

test('while a first copy runs, nothing is stopped, reversed or failed over without force', async () => {
  const volume = await region.volume('copying')
  await write('az1', volume, Buffer.alloc(16 * MIB, 3))
  const group = await region.group('copying')
  const pair = await region.pair(group, volume, 'copying')
  await region.act(group, 'start-server-group')
  await region.until('it copies', async () => {
    const { replication_status, progress } = await region.showPair(pair)
    return replication_status === 'copying' && progress > 0
  })
  assert.equal(await code('POST', ACTION(group), { 'stop-server-group': {} }), 'SDRS.1830')
  assert.equal(await code('POST', ACTION(group), { 'failover-server-group': {} }), 'SDRS.1830')
  const reverse = { 'reverse-server-group': { priority_station: 'target' } }
  assert.equal(await code('POST', ACTION(group), reverse), 'SDRS.1830')

  await region.stopSite('az1')
  assert.equal(await code('POST', ACTION(group), { 'failover-server-group': {} }), 'SDRS.1830')
  const force = { 'failover-server-group': { force: true } }
  const job = await region.jobEnd('POST', ACTION(group), force)
  assert.equal(job.status, 'FAIL', 'fragments are nothing to fail over to')
  assert.equal(job.error_code, 'SDRS.1830')
  assert.equal((await region.show(group)).status, 'error-failing-over')

  await region.startSite('az1')
  await region.inSync(pair)
  await region.act(group, 'failover-server-group')
  assert.deepEqual(await read('az2', pair, 4096), Buffer.alloc(4096, 3))
  await remove(group, pair)
})

test('a forced failover leaves behind the pair that was still copying, and keeps its good disk', async () => {
  const { group, pair } = await protectedGroup('most')
  await write('az1', pair, Buffer.alloc(4096, 4))
  const volume = await region.volume('late')
  await write('az1', volume, Buffer.alloc(16 * MIB, 5))
  const late = await region.pair(group, volume, 'late')
  await region.until('it copies', async () => {
    return (await region.showPair(late)).replication_status === 'copying'
  })
  assert.equal((await region.showPair(pair)).replication_status, 'active')
  await region.stopSite('az1')
  assert.equal(await code('POST', ACTION(group), { 'failover-server-group': {} }), 'SDRS.1830')
  await region.act(group, 'failover-server-group', { force: true })
  assert.deepEqual(await read('az2', pair, 4096), Buffer.alloc(4096, 4))
  const left = await region.showPair(late)
  assert.equal(left.status, 'error')
  assert.equal(left.failure_detail, 'DR_SIDE_NOT_IN_SYNC')
  await region.refuses('az2', late)

  await region.startSite('az1')
  await region.until('heard', async () => region.plane.agents.heard('az1'))
  await region.job('DELETE', `/v1/{project}/replications/${late}`, {
    replication: { delete_target_volume: false },
  })
  assert.deepEqual(await read('az1', volume, 4096), Buffer.alloc(4096, 5))
  await remove(group, pair)
})

test('a consistency group that copies is neither switched nor failed over, and can be paused in the middle', async () => {
  const pairs = '/v2/{project}/os-vendor-replications'
  const groups = '/v2/{project}/os-vendor-replication-consistency-groups'
  const disks = [await region.volume('middle-1'), await region.volume('middle-2', 1, 'az2')]
  const data = Buffer.alloc(32 * MIB, 5)
  await write('az1', disks[0] ?? '', data)
  const common = { priority_station: 'az1', replication_model: 'hypermetro' }
  const made = await region.ok(
    'POST',
    pairs,
    { replication: { ...common, volume_ids: disks } },
    202,
  )
  const { id: pair } = made.replication
  const shown = async () => (await region.ok('GET', `${pairs}/${pair}`)).replication
  const copying = () =>
    region.until('it copies', async () => {
      const { replication_status: status, progress } = await shown()
      assert.notEqual(status, 'active')
      return status === 'copying' && Number(progress) > 0
    })
  await copying()
  const request = { replication_consistency_group: { ...common, replication_ids: [pair] } }
  const { replication_consistency_group: group } = await region.ok('POST', groups, request, 202)
  await region.until('it is in the group', async () => {
    return (await shown()).replication_consistency_group_id === group.id
  })
  await copying()
  const path = `${groups}/${group.id}`
  const action = (name: string, value: unknown = null) => ({
    [`os-${name}-replication-consistency-group`]: value,
  })
  for (const body of [action('reverse'), action('failover'), action('failover', { force: true })]) {
    assert.equal((await region.call('POST', `${path}/action`, body)).status, 409)
  }
  await region.ok('POST', `${path}/action`, action('stop'))
  assert.equal((await shown()).replication_status, 'inactive')
  assert.deepEqual(await read('az1', disks[0] ?? '', data.length), data)
  const change = { replication_consistency_group: { remove_replication_ids: [pair] } }
  await region.ok('PUT', path, change, 202)
  await region.until('the pair is alone', async () => {
    return (await shown()).replication_consistency_group_id === null
  })
  for (const one of [path, `${pairs}/${pair}`]) {
    await region.ok('DELETE', one, undefined, 202)
    await region.until(`${one} is gone`, async () => (await region.call('GET', one)).status === 404)
  }
})
