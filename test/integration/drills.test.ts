/** Drills over two real agents whose guests are lines in memory: the API, every refusal, what is left behind, and what is not. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import {
  requestDrill,
  requestDrillDeletion,
} from '#control/operations/definitions/drills/drill-requests.ts'
import {
  deleteFreePort,
  requestPort,
} from '#control/operations/definitions/networks/network-requests.ts'
import { preflightReport } from '#control/operations/definitions/recovery/preflight-report.ts'
import { storePlan } from '#control/operations/definitions/recovery/recovery-requests.ts'
import { groupFacts } from '#control/operations/definitions/protection/sync-views.ts'
import { createDrillClock } from '#control/operations/drill-clock.ts'
import { findGroup } from '#control/resources/groups.ts'
import { defaultVpcId } from '#control/resources/networks.ts'
import { findDrill } from '#control/resources/drills.ts'
import { quotaUsed, setQuotaLimit } from '#control/resources/surroundings.ts'
import { decideGroup } from '#domain/protection-group.ts'
import { instanceLab } from '../support/instance-lab.ts'
import { PROJECT, type Region } from '../support/region.ts'
import { DRILLS, drillCalls } from './drills/drill-calls.ts'
import { testDrillsOfOld } from './drills/drills-of-old.ts'
import { testSchedules } from './drills/schedules.ts'

const lab = instanceLab()
let region: Region
let group: string
let instance: string
let production: string

before(async () => {
  region = (await lab.start()).region
  production = (await lab.server('web', [lab.blank()])).id
  group = await region.group('shop')
  instance = await lab.protect(group, production)
})
after(async () => await region.stop())

const calls = drillCalls(lab, () => ({ region, group }))
const { wish, make, end, show, network, subnet, refused, reports, services } = calls

test('a group that never had a copy has nothing to try', async () => {
  await refused({}, 'SDRS.1830')
  await region.act(group, 'start-server-group')
  await lab.inSync(instance)
})

test('a drill boots copies of the DR side in a network of its own, leaves a signed report, and nothing else', async () => {
  const before = await region.show(group)
  const id = await make()
  const shown = await show(id)
  assert.equal(shown.status, 'available')
  assert.notEqual(shown.drill_vpc_id, defaultVpcId(PROJECT))
  const [{ protected_instance, drill_server_id }] = shown.drill_servers
  assert.equal(protected_instance, instance)
  assert.equal((await region.show(group)).disaster_recovery_drill_num, 1)

  const guest = lab.guestAt('az2', drill_server_id)
  assert.equal(guest?.power, 'running')
  const [nic] = guest?.definition.nics ?? []
  const [own] = await lab.ports(production)
  assert.equal(nic?.address, own?.address, 'it has the address of production')
  assert.equal(nic?.domain, shown.drill_vpc_id)
  assert.notEqual(nic?.mac, own?.mac)
  assert.equal(guest?.disks.length, 2)
  assert.equal((await lab.row(drill_server_id)).status, 'active')
  const standby = (await lab.show(instance)).target_server
  assert.deepEqual(await lab.devices(drill_server_id), ['/dev/vda attached', '/dev/vdb attached'])
  assert.deepEqual(
    (await lab.disks(drill_server_id)).map(({ boot_index }) => boot_index),
    (await lab.disks(standby)).map(({ boot_index }) => boot_index),
  )

  const [ready] = await reports(id)
  assert.equal(ready?.report.result, 'passed')
  assert.equal(ready.report.data_age_basis, 'in_sync')
  assert.equal(ready.report.data_age_ms, 0)
  assert.ok(ready.report.recovery_time_ms !== null)
  assert.deepEqual(
    ready.report.steps.map(({ name }) => name),
    ['turn', 'snapshot', 'clone', 'release', 'servers'],
  )
  const { snapshots } = await region.plane.sites.command('az2', 'snapshot.list', {})
  assert.deepEqual(snapshots, [], 'the snapshot went when the copies were made')

  await end(id)
  const reply = await region.call('GET', `${DRILLS}/${id}`)
  assert.deepEqual([reply.status, reply.body.error.code], [404, 'SDRS.1902'])
  assert.equal(lab.guestAt('az2', drill_server_id), undefined)
  const [ended] = await reports(id)
  assert.equal(ended?.report.teardown?.verdict, 'clean')
  assert.deepEqual(ended.report.teardown.asked, { servers: 1, disks: 2, snapshots: 1 })
  assert.deepEqual(ended.report.servers, ready.report.servers)
  const now = await region.show(group)
  assert.equal(now.disaster_recovery_drill_num, 0)
  assert.deepEqual({ ...now, updated_at: 0 }, { ...before, updated_at: 0 })
  assert.equal(now.progress, 100)
})

test('what a drill may not be made of is refused, and changes nothing', async () => {
  await refused({ name: 'a b' }, 'SDRS.0202')
  await refused({ server_group_id: 'x' }, 'SDRS.0207')
  await refused({ server_group_id: newId() }, 'SDRS.1013')
  await refused({ drill_vpc_id: 'x' }, 'SDRS.0204')
  await refused({ drill_vpc_id: newId() }, 'SDRS.1928')
  await refused({ drill_vpc_id: defaultVpcId(PROJECT) }, 'SDRS.1907')
  const vpc = await network('192.168.0.0/16')
  await refused({ drill_vpc_id: vpc }, 'SDRS.1908')
  await subnet(vpc, 'other', '192.168.128.0/20', '192.168.128.1')
  await refused({ drill_vpc_id: vpc }, 'SDRS.1909')
  const { id } = await subnet(vpc, 'same', '192.168.0.0/20', '192.168.0.1')
  const [own] = await lab.ports(production)
  const port = await requestPort(services(), {
    project: PROJECT,
    subnet: id,
    address: own?.address ?? '',
    securityGroups: [],
    name: 'in the way',
  })
  assert.ok(port.ok)
  await refused({ drill_vpc_id: vpc }, 'SDRS.1910')
  await deleteFreePort(services(), PROJECT, port.port.id)

  const drill = await make({ drill_vpc_id: vpc })
  assert.equal((await show(drill)).drill_vpc_id, vpc)
  await refused({ drill_vpc_id: vpc }, 'SDRS.1921')
  for (const [kind, code] of [
    ['vpcs', 'SDRS.1929'],
    ['subnets', 'SDRS.1930'],
    ['instances', 'SDRS.1922'],
    ['volumes', 'SDRS.1922'],
    ['gigabytes', 'SDRS.1922'],
  ] as const) {
    const { store } = region.plane
    // The group's own drill network is taken, so another would have to be made.
    const held = kind === 'vpcs' || kind === 'subnets' ? await make() : null
    await store.write((tx) => setQuotaLimit(tx, PROJECT, kind, 0))
    await refused({}, code)
    await store.write((tx) => setQuotaLimit(tx, PROJECT, kind, -1))
    if (held !== null) await end(held)
  }
  const volume = lab.guestAt('az2', (await show(drill)).drill_servers[0].drill_server_id)?.disks[1]
  assert.ok(volume !== undefined)
  const pair = { replication: { server_group_id: group, volume_id: volume, name: 'copy' } }
  await lab.refused('POST', '/v1/{project}/replications', pair, 'SDRS.1825')

  await lab.refused('GET', `${DRILLS}/nonsense`, undefined, 'SDRS.1900')
  await lab.refused('GET', `${DRILLS}/null`, undefined, 'SDRS.1901')
  await lab.refused('GET', `${DRILLS}/${newId()}`, undefined, 'SDRS.1902', 404)
  await lab.refused('DELETE', `${DRILLS}/${newId()}`, undefined, 'SDRS.1902', 404)
  const strange = await region.call('GET', `${DRILLS}/${drill}`, undefined, 'stranger')
  assert.equal(strange.status, 403)
  await end(drill)
})

test('drills are listed by every filter, renamed, and shown to their project only', async () => {
  const [first, second] = [await make({ name: 'first' }), await make({ name: 'second' })]
  const list = async (query: string) => {
    const { disaster_recovery_drills: rows, count } = await region.ok('GET', `${DRILLS}?${query}`)
    assert.ok(count >= rows.length)
    return rows.map(({ id }: { id: string }) => id)
  }
  assert.deepEqual(await list(''), [second, first])
  assert.deepEqual(await list('limit=1&offset=1'), [first])
  assert.deepEqual(await list(`marker=${second}`), [first])
  assert.deepEqual(await list('name=FIR'), [first])
  assert.deepEqual(await list('status=available'), [second, first])
  assert.deepEqual(await list('status=error'), [])
  assert.deepEqual(await list(`server_group_id=${newId()}`), [])
  assert.deepEqual(await list(`drill_vpc_id=${(await show(second)).drill_vpc_id}`), [second])
  await lab.refused('GET', `${DRILLS}?status=odd`, undefined, 'SDRS.0209')
  const body = { disaster_recovery_drill: { name: 'renamed' } }
  const renamed = await region.ok('PUT', `${DRILLS}/${first}`, body)
  assert.equal(renamed.disaster_recovery_drill.name, 'renamed')
  const again = { disaster_recovery_drill: { name: '' } }
  await lab.refused('PUT', `${DRILLS}/${first}`, again, 'SDRS.0202')
  await end(first)
  await end(second)
})

test('a drill is in the way of the deletion of its group, and of nothing else', async () => {
  const id = await make()
  const { db } = region.plane.store
  const found = await findGroup(db, PROJECT, group)
  assert.ok(found !== undefined)
  const { facts } = await groupFacts(db, lab.services(), found)
  assert.equal(facts.drills, 1)
  const bare = { ...facts, instances: 0, pairs: 0 }
  assert.deepEqual(decideGroup(bare, { kind: 'delete' }), {
    ok: false,
    refusal: 'GROUP_HAS_DRILLS',
  })
  assert.equal(decideGroup(facts, { kind: 'stop' }).ok, true)
  await end(id)
})

test('probes that fail are told, and the drill is made all the same', async () => {
  lab.sites.az2.found = ({ probe }) => ({
    ok: probe.kind === 'boot',
    detail: probe.kind === 'boot' ? 'it uses its address' : 'connection refused',
    since_start_ms: probe.kind === 'boot' ? 12 : null,
    output: '',
  })
  const outcome = await requestDrill(lab.services(), {
    project: PROJECT,
    user: 'u',
    group,
    name: 'probed',
    vpc: null,
    options: {
      probes: { [instance]: [{ kind: 'boot' }, { kind: 'tcp', port: 1 }] },
      timeoutMs: 1_000,
    },
    schedule: null,
    autoDelete: false,
  })
  assert.ok(outcome.ok)
  await region.plane.operations.waitFor(outcome.operation)
  const [ready] = await reports(outcome.drill.id)
  assert.equal((await show(outcome.drill.id)).status, 'available')
  assert.equal(ready?.report.result, 'probes_failed')
  assert.equal(ready.report.recovery_time_ms, null)
  assert.deepEqual(
    ready.report.servers[0]?.probes.map(({ ok, detail }) => `${ok} ${detail}`),
    ['true it uses its address', 'false connection refused'],
  )
  lab.sites.az2.found = () => ({ ok: true, detail: 'found', since_start_ms: 1, output: '' })
  await end(outcome.drill.id)
})

test('a drill that cannot be made says why, and is deleted without a trace', async () => {
  lab.sites.az2.refusing.set('server.start', 1)
  const job = await region.jobEnd('POST', DRILLS, wish())
  assert.deepEqual([job.status, job.error_code], ['FAIL', 'SDRS.1922'])
  const id = job.entities.disaster_recovery_drill_id
  assert.equal((await show(id)).status, 'error')
  const [failed] = await reports(id)
  assert.deepEqual([failed?.report.stage, failed?.report.result], ['failed', 'failed'])
  assert.equal(failed?.report.failure?.step, 'finish')
  assert.match(failed?.report.failure?.message ?? '', /NO_MEMORY|is full/)
  await end(id)
  assert.equal((await reports(id))[0]?.report.teardown?.verdict, 'clean')
})

test('what is left behind is named, the drill stays, and is deleted when that is gone', async () => {
  const id = await make()
  const { sites } = region.plane
  const guest = lab.guestAt('az2', (await show(id)).drill_servers[0].drill_server_id)
  const volume = guest?.disks[1] ?? ''
  await sites.command('az2', 'snapshot.create', { snapshot: 'kept', volumes: [volume] })
  const job = await region.jobEnd('DELETE', `${DRILLS}/${id}`)
  assert.deepEqual([job.status, job.error_code], ['FAIL', 'SDRS.1923'])
  assert.equal((await show(id)).status, 'error-deleting')
  const [left] = await reports(id)
  assert.equal(left?.report.teardown?.verdict, 'not_clean')
  assert.match(left.report.teardown.reasons.join(), new RegExp(`disk ${volume}.*snapshots`))
  const [failure] = (
    await region.ok(
      'GET',
      '/v1/{project}/task-center/failure-jobs?resource_type=disaster_recovery_drills',
    )
  ).failure_jobs
  assert.equal(failure.failure_status, 'deleteFail')
  await sites.command('az2', 'snapshot.delete', { snapshot: 'kept' })
  await end(id)
  assert.equal((await reports(id))[0]?.report.teardown?.verdict, 'clean')
})

testSchedules(calls)

test('a probe counts from the start of its guest, whenever it was asked for', async () => {
  let asked = 0
  lab.sites.az2.found = ({ watch }) => ({
    ok: ++asked > 2,
    detail: watch === true ? 'looked at' : 'asked',
    since_start_ms: asked > 2 ? 1_234 : null,
    output: '',
  })
  const id = await make()
  lab.sites.az2.found = () => ({ ok: true, detail: 'found', since_start_ms: 1, output: '' })
  const [ready] = await reports(id)
  assert.ok(ready?.version === 2)
  const [server] = ready.report.servers
  const began = ready.report.drill.began_at
  assert.ok(server !== undefined && began !== null && server.started_at !== null)
  assert.equal(server.probes[0]?.after_begin_ms, server.started_at - began + 1_234)
  assert.equal(ready.report.recovery_time_ms, server.probes[0]?.after_begin_ms)
  await end(id)
})

test('a drill follows the recovery plan, copies a disk that two servers share once, and says what it left out', async () => {
  const { id: database } = await lab.server('db', [lab.blank()])
  const second = await lab.protect(group, database, { name: 'db' })
  const { volume } = await region.ok(
    'POST',
    '/v2/{project}/volumes',
    { volume: { name: 'shared', size: 1, availability_zone: 'az1', multiattach: true } },
    202,
  )
  await region.until('the disk is there', async () => {
    const shown = await region.ok('GET', `/v2/{project}/volumes/${volume.id}`)
    return shown.volume.status === 'available'
  })
  const shared = await region.pair(group, volume.id)
  for (const one of [instance, second]) {
    await region.job('POST', `/v1/{project}/protected-instances/${one}/attachreplication`, {
      replicationAttachment: { replication_id: shared, device: '/dev/vdf' },
    })
  }
  await lab.inSync(instance)
  await lab.inSync(second)
  const stored = await storePlan(
    services(),
    PROJECT,
    group,
    {
      waves: [{ instances: [second] }, { instances: [instance], pause: 'Look.' }],
      instances: {
        [second]: {
          probes: [{ probe: { kind: 'tcp', port: 5432 } }],
          script_after: { script: 'dns' },
        },
      },
    },
    'somebody',
  )
  assert.ok(stored.ok, JSON.stringify(stored))
  const from = lab.sites.az2.log.length
  const id = await make()
  const servers = new Map<string, string>(
    (await show(id)).drill_servers.map(
      (one: { protected_instance: string; drill_server_id: string }) => [
        one.protected_instance,
        one.drill_server_id,
      ],
    ),
  )
  const mine = lab.sites.az2.log
    .slice(from)
    .filter(({ command }) => command === 'server.start' || command === 'server.probe')
    .map(({ command, server }) => `${command} ${server}`)
    // On a busy machine it may be asked again.
    .filter((line, at, all) => line !== all[at - 1])
  const [first, other] = [servers.get(second) ?? '', servers.get(instance) ?? '']
  assert.deepEqual(mine, [
    `server.start ${first}`,
    `server.probe ${first}`,
    `server.start ${other}`,
    `server.probe ${other}`,
  ])
  const disksOf = (server: string) => lab.guestAt('az2', server)?.disks ?? []
  assert.deepEqual([disksOf(first).length, disksOf(other).length], [3, 3])
  assert.equal(disksOf(first).filter((disk) => disksOf(other).includes(disk)).length, 1)
  const [ready] = await reports(id)
  assert.ok(ready?.version === 2)
  assert.deepEqual(ready.report.plan, { waves: 2, scripts_left_out: ['dns'], pauses_left_out: 1 })
  assert.equal(ready.report.result, 'passed')
  const probes = new Map(ready.report.servers.map((one) => [one.instance, one.probes[0]?.probe]))
  assert.deepEqual(probes.get(second), { kind: 'tcp', port: 5432 })
  assert.deepEqual(probes.get(instance), { kind: 'boot' })
  await end(id)
  assert.equal((await reports(id))[0]?.report.teardown?.asked.disks, 5)
})

testDrillsOfOld(calls)

test('what was asked nothing has proved nothing', async () => {
  const outcome = await requestDrill(services(), {
    project: PROJECT,
    user: 'u',
    group,
    name: 'blind',
    vpc: null,
    options: { probes: { '*': [] }, timeoutMs: 1_000, plan: 'ignore' },
    schedule: null,
    autoDelete: false,
  })
  assert.ok(outcome.ok)
  await region.plane.operations.waitFor(outcome.operation)
  const [ready] = await reports(outcome.drill.id)
  assert.deepEqual([ready?.report.result, ready?.report.recovery_time_ms], ['nothing_proved', null])
  await end(outcome.drill.id)
})

test('a drill whose site does not give anything back is given up by force, and cleaned up when the site is heard', async () => {
  const { disaster_recovery_drill_num: before } = await region.show(group)
  const used = () =>
    Promise.all(
      (['instances', 'volumes', 'gigabytes', 'ports'] as const).map((kind) =>
        quotaUsed(region.plane.store.db, PROJECT, kind),
      ),
    )
  const without = await used()
  const id = await make()
  const counted = await used()
  assert.ok(counted.every((count, index) => count > (without[index] ?? 0)))
  const { store, operations, sites } = region.plane
  const volume =
    lab.guestAt('az2', (await show(id)).drill_servers[0].drill_server_id)?.disks[1] ?? ''
  lab.sites.az2.refusing.set('server.remove', 1)
  const forced = await requestDrillDeletion(services(), PROJECT, id, true)
  assert.ok(forced.ok)
  assert.equal((await operations.waitFor(forced.operation)).status, 'succeeded')
  const [left] = await reports(id)
  assert.ok(left?.version === 2)
  assert.deepEqual(
    [left.report.teardown?.verdict, left.report.teardown?.forced],
    ['not_clean', true],
  )
  assert.match(left.report.teardown?.reasons.join() ?? '', /server .* is still at az2/)
  const renaming = { disaster_recovery_drill: { name: 'renamed' } }
  for (const [method, body] of [['GET'], ['DELETE'], ['PUT', renaming]] as const) {
    assert.equal((await region.call(method, `${DRILLS}/${id}`, body)).status, 404, method)
  }
  assert.equal((await region.show(group)).disaster_recovery_drill_num, before)
  const row = await findDrill(store.db, PROJECT, id)
  assert.ok(row?.forced_at !== null && row?.status === 'error-deleting')
  assert.deepEqual(await used(), without, 'nobody could free what it has left')
  const another = await make()
  assert.notEqual((await show(another)).drill_vpc_id, row.vpc, 'its network is not used meanwhile')
  await end(another)

  const log = createLog('test', 'silent')
  let afterMs = 0
  const clock = { ...systemClock, wallMs: () => systemClock.wallMs() + afterMs }
  const turn = () => createDrillClock({ ...services(), clock }, log).turn()
  const statusNow = async () => (await findDrill(store.db, PROJECT, id))?.status
  await turn()
  assert.equal((await reports(id)).length, 2, 'not at once again')
  // The site is heard and keeps something: the first try says what, the next come every hour and say nothing new.
  await sites.command('az2', 'snapshot.create', { snapshot: 'keeps', volumes: [volume] })
  const failures = async () =>
    (await operations.list({ resourceId: id, status: ['failed'] })).length
  for (const [tries, next] of [61_000, 3_700_000].entries()) {
    afterMs = next
    await turn()
    await region.until('it has failed', async () => (await failures()) > tries)
    assert.equal(await statusNow(), 'error-deleting')
    assert.equal((await reports(id)).length, 3)
    afterMs = 61_000
    await turn()
    assert.equal(await statusNow(), 'error-deleting', 'no other try before an hour is over')
  }
  await sites.command('az2', 'snapshot.delete', { snapshot: 'keeps' })
  afterMs = 2 * 3_700_000
  await region.until('it is cleaned up', async () => {
    await turn()
    return (await reports(id)).length === 4
  })
  assert.equal((await reports(id))[0]?.report.teardown?.verdict, 'clean')
  assert.equal(await findDrill(store.db, PROJECT, id), undefined)
})

test('the preflight of a drill says what its request says', async () => {
  const { store, witness } = region.plane
  const row = await findGroup(store.db, PROJECT, group)
  assert.ok(row !== undefined)
  const both = async (vpc: string | null) => {
    const statements = { force: false, preferredOff: false, drillVpc: vpc }
    const report = await preflightReport({ ...services(), witness }, row, 'drill', statements)
    const wanted = { project: PROJECT, user: 'u', group, name: 'tried', vpc }
    const options = { probes: {}, timeoutMs: 1_000 }
    const rest = { options, schedule: null, autoDelete: false }
    const outcome = await requestDrill(services(), { ...wanted, ...rest })
    if (outcome.ok) {
      await region.plane.operations.waitFor(outcome.operation)
      await end(outcome.drill.id)
    }
    const said = report.blockers.map(({ code }) => code)
    assert.deepEqual(said, outcome.ok ? [] : [outcome.refusal])
    return said
  }
  assert.deepEqual(await both(null), [])
  assert.deepEqual(await both(newId()), ['DRILL_VPC_UNKNOWN'])
  assert.deepEqual(await both(row.vpc), ['DRILL_VPC_OF_GROUP'])
  await store.write((tx) => setQuotaLimit(tx, PROJECT, 'gigabytes', 0))
  assert.deepEqual(await both(null), ['QUOTA_GIGABYTES'])
  await store.write((tx) => setQuotaLimit(tx, PROJECT, 'gigabytes', -1))
  await store.write((tx) => setQuotaLimit(tx, PROJECT, 'ports', 0))
  assert.deepEqual(await both(null), ['QUOTA_PORTS'])
  await store.write((tx) => setQuotaLimit(tx, PROJECT, 'ports', -1))
})
