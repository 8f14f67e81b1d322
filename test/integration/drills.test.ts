/** Drills over two real agents whose guests are lines in memory: the API, every refusal, what is left behind, and what is not. */
import assert from 'node:assert/strict'
import { createPublicKey } from 'node:crypto'
import { after, before, test } from 'node:test'
import { defaultVpcId } from '#control/resources/networks.ts'
import { findReport, listReports } from '#control/resources/drills.ts'
import { chainProblems, openReport, type SealedReport } from '#wire/reports/sealed.ts'
import { GROUPS, instanceLab } from '../support/instance-lab.ts'
import { PROJECT, type Region, type Reply } from '../support/region.ts'

const DRILLS = '/v1/{project}/disaster-recovery-drills'

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

const wish = (over: object = {}) => ({
  disaster_recovery_drill: { server_group_id: group, name: 'drill', ...over },
})
const make = async (over: object = {}): Promise<string> => {
  const job = await region.job('POST', DRILLS, wish(over))
  assert.equal(job.job_type, 'createDisasterRecoveryDrill')
  assert.equal(job.entities.server_group_id, group)
  return job.entities.disaster_recovery_drill_id as string
}
const end = async (id: string): Promise<void> => {
  const job = await region.job('DELETE', `${DRILLS}/${id}`)
  assert.equal(job.job_type, 'deleteDisasterRecoveryDrill')
  assert.equal(job.entities.disaster_recovery_drill_id, id)
}
const show = async (id: string): Promise<Reply['body']> =>
  (await region.ok('GET', `${DRILLS}/${id}`)).disaster_recovery_drill

const refused = async (over: object, code: string) =>
  await lab.refused('POST', DRILLS, wish(over), code)

async function reports(drill: string): Promise<SealedReport[]> {
  const { db } = region.plane.store
  const keys = [createPublicKey(region.plane.services.reports.publicKey())]
  const found: SealedReport[] = []
  for (const { ordinal } of await listReports(db, PROJECT, { limit: 100 })) {
    const row = await findReport(db, PROJECT, { ordinal })
    const opened = openReport(Buffer.from(row?.document ?? ''), keys)
    assert.ok(opened.ok, JSON.stringify(opened))
    found.push(opened.sealed)
  }
  assert.deepEqual(chainProblems(found), [])
  return found.filter(({ report }) => report.drill.id === drill)
}

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
    ['snapshot', 'clone', 'release', 'start', 'probe'],
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
