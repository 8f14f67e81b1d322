/** Clients that others wrote: python-karborclient over the life of a checkpoint, and what strictly typed SDKs decode. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import { BackupWorld, PROVIDER, RegionLink } from '../support/backup-world.ts'
import { assertGo, type GoType } from '../support/go-types.ts'

/** Of the distribution, whichever comes first in the path. */
const PYTHON = '/usr/bin/python3'
const link = new RegionLink()
let world: BackupWorld
let other: BackupWorld
let url = ''

before(async () => {
  world = await BackupWorld.start({ regions: link.client })
  other = await BackupWorld.start()
  link.target = other
  url = await world.lab.listen()
})
after(async () => {
  await world.stop()
  await other.stop()
})

const missing = (): string | false =>
  spawnSync(PYTHON, ['-c', 'import karborclient.client, keystoneauth1']).status === 0
    ? false
    : 'python-karborclient is not installed: apt-get install python3-karborclient'

const SCRIPT = `
import json, sys, time
from keystoneauth1 import session
from keystoneauth1.identity import v3
from karborclient import client
c = json.loads(sys.argv[1])
auth = v3.Password(auth_url=c['url'] + '/v3', username=c['user'], password=c['password'],
                   user_domain_name=c['domain'], project_id=c['project_id'])
k = client.Client('1', session=session.Session(auth=auth), service_type='data-protect', endpoint_override=c['url'] + '/v1/' + c['project_id'])
P = c['provider']
def settled(get, passing):
    for _ in range(200):
        one = get()
        if one.status != passing: return one
        time.sleep(0.1)
    raise Exception('still ' + passing)
assert [p.id for p in k.providers.list()] == [P]
assert k.providers.get(P).id == P
assert len(k.protectables.list()) == 1
assert k.protectables.get('OS::Nova::Server').name == 'OS::Nova::Server'
assert c['server'] in [i.id for i in k.protectables.list_instances('OS::Nova::Server')]
assert k.protectables.get_instance('OS::Nova::Server', c['server']).id == c['server']
plan = k.plans.create('plan', P, [{'id': c['server'], 'type': 'OS::Nova::Server', 'name': 'one'}], {})
assert plan.status == 'suspended'
k.plans.update(plan.id, {'name': 'renamed'})
assert [p.name for p in k.plans.list(search_opts={'name': 'renamed'})] == ['renamed']
pattern = 'BEGIN:VCALENDAR\\\\nBEGIN:VEVENT\\\\nRRULE:FREQ=DAILY;BYHOUR=4;BYMINUTE=0\\\\nEND:VEVENT\\\\nEND:VCALENDAR'
properties = {'format': 'calendar', 'pattern': pattern, 'start_time': '2026-11-21 00:00:00'}
trigger = k.triggers.create('daily', 'time', properties)
assert k.triggers.get(trigger.id).properties['window'] == 900
operation = k.scheduled_operations.create('nightly', 'protect', trigger.id, {'plan_id': plan.id, 'provider_id': P})
assert operation.id in [o.id for o in k.scheduled_operations.list()]
checkpoint = k.checkpoints.create(P, plan.id, None)
checkpoint = settled(lambda: k.checkpoints.get(P, checkpoint.id), 'protecting')
assert checkpoint.status == 'available', checkpoint.status
assert json.loads(checkpoint.resource_graph) == []
assert checkpoint.protection_plan['name'] == 'renamed'
assert len(k.checkpoints.list(P, search_opts={'plan_id': plan.id})) == 1
restore = k.restores.create(P, checkpoint.id, None, {}, None)
restore = settled(lambda: k.restores.get(restore.id), 'in_progress')
assert restore.status == 'success', restore.resources_reason
assert len(k.restores.list()) == 1
verification = k.verifications.create(P, checkpoint.id, {})
assert settled(lambda: k.verifications.get(verification.id), 'in_progress').status == 'success'
assert {log.operation_type for log in k.operation_logs.list()} >= {'protect', 'restore', 'verify'}
assert k.quotas.get(c['project_id'], detail=False).plans == 50
assert k.quotas.get(c['project_id'], detail=True).plans['in_use'] == 1
assert k.quotas.update(c['project_id'], {'plans': 55}).plans == 55
assert k.quotas.defaults(c['project_id']).plans == 50
assert k.quota_classes.get('default').plans == 50
assert len(k.services.list()) == 2
for wrong in (lambda: k.plans.get(c['absent']), lambda: k.checkpoints.get(P, c['absent'])):
    try:
        wrong()
        raise Exception('nothing was raised')
    except Exception as error:
        assert 'HTTP 404' in str(error), error
k.checkpoints.delete(P, checkpoint.id)
k.scheduled_operations.delete(operation.id)
k.triggers.delete(trigger.id)
k.plans.delete(plan.id)
print('done')
`

test('python-karborclient walks through the life of a checkpoint', {
  skip: missing(),
}, async () => {
  const [server] = await world.servers(1)
  await world.report()
  const { user, password, domain, project_id } = world.lab.admin
  const wanted = {
    url,
    user,
    password,
    domain,
    project_id,
    provider: PROVIDER,
    server: server?.id,
    absent: '00000000-0000-4000-8000-000000000000',
  }
  const child = spawn(PYTHON, ['-W', 'ignore', '-c', SCRIPT, JSON.stringify(wanted)])
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (said += text))
  }
  // The verification looks for a site that is heard.
  const reports = setInterval(() => void world.report(), 500)
  const [code] = (await once(child, 'close')) as [number]
  clearInterval(reports)
  assert.equal(code, 0, said)
  assert.match(said, /done\n$/)
})

// ---------------------------------------------------------------- typed clients

const struct = (of: Readonly<Record<string, GoType>>): GoType => ({ struct: of })
const list = (of: GoType): GoType => ({ list: of })

const VOLUME_BACKUP = struct({
  status: 'string',
  space_saving_ratio: 'int',
  name: 'string',
  bootable: 'bool',
  average_speed: 'int',
  source_volume_size: 'int',
  source_volume_id: 'string',
  source_volume_name: 'string',
  incremental: 'bool',
  snapshot_id: 'string',
  image_type: 'string',
  id: 'string',
  size: 'int',
})

/** `backup.Backup` of both Go SDKs; where they differ, the stricter one. */
const BACKUP = struct({
  id: 'string',
  checkpoint_id: 'string',
  status: 'string',
  created_at: 'string',
  updated_at: 'string',
  name: 'string',
  description: 'string',
  resource_id: 'string',
  resource_type: 'string',
  backup_data: struct({
    eip: 'string',
    cloudservicetype: 'string',
    ram: 'int',
    vcpus: 'int',
    private_ip: 'string',
    disk: 'int',
    imagetype: 'string',
    __openstack_region_name: 'string',
  }),
  extend_info: struct({
    auto_trigger: 'bool',
    average_speed: 'int',
    copy_from: 'string',
    copy_status: 'string',
    fail_code: struct({ Code: 'string', Description: 'string' }),
    fail_op: 'string',
    fail_reason: 'string',
    image_type: 'string',
    incremental: 'bool',
    progress: 'int',
    resource_az: 'string',
    resource_name: 'string',
    resource_type: 'string',
    size: 'int',
    space_saving_ratio: 'int',
    volume_backups: list(VOLUME_BACKUP),
    finished_at: 'string',
    os_images_data: list(struct({ image_id: 'string' })),
    hypervisor_type: 'string',
    supported_restore_mode: 'string',
    support_lld: 'bool',
  }),
  tags: list(struct({ key: 'string', value: 'string' })),
})

/** `policies.BackupPolicy`; the operation's numbers are texts, or numbers, never both. */
const policyOf = (count: GoType, flag: GoType): GoType =>
  struct({
    created_at: 'string',
    description: 'string',
    id: 'string',
    name: 'string',
    parameters: struct({ common: { map: 'any' } }),
    project_id: 'string',
    provider_id: 'string',
    resources: list(
      struct({ id: 'string', type: 'string', name: 'string', extra_info: { map: 'any' } }),
    ),
    scheduled_operations: list(
      struct({
        description: 'string',
        enabled: 'bool',
        name: 'string',
        operation_type: 'string',
        operation_definition: struct({
          max_backups: count,
          retention_duration_days: count,
          permanent: flag,
          plan_id: 'string',
          provider_id: 'string',
          day_backups: count,
          week_backups: count,
          month_backups: count,
          year_backups: count,
          timezone: 'string',
        }),
        trigger: struct({
          properties: struct({ pattern: 'string', start_time: 'string' }),
          id: 'string',
          name: 'string',
          type: 'string',
        }),
        id: 'string',
        trigger_id: 'string',
      }),
    ),
    status: 'string',
    tags: list(struct({ key: 'string', value: 'string' })),
  })

/** What both Go SDKs parse; a zone at the end breaks them. */
const NAIVE = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/

test('strictly typed clients decode backups, good, failed and copied ones, and policies', async () => {
  const servers = await world.servers(2)
  const definition = {
    max_backups: 0,
    permanent: false,
    day_backups: 2,
    week_backups: 2,
    month_backups: 2,
    year_backups: 2,
    timezone: 'UTC+01:00',
  }
  const wish = world.policy('typed', [servers[1]?.id ?? ''], definition)
  const made = (await world.ok('POST', 'policies', { policy: wish })).policy
  assertGo(policyOf('string', 'string'), made)
  const read = (await world.ok('GET', `policies/${made.id}`)).policy
  assertGo(policyOf('int', 'bool'), read)
  assert.equal(read.status, 'suspended')
  assert.match(
    read.scheduled_operations[0].trigger.properties.start_time,
    /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/,
  )

  const good = await world.backUp(servers[0]?.id ?? '', { tags: [{ key: 'a', value: 'b' }] })
  world.sites.refusals.set('backup.start', 'VOLUME_FAILED')
  const failed = await world.backUp(servers[0]?.id ?? '')
  world.sites.refusals.clear()
  await world.report()
  await world.ok('POST', `providers/${PROVIDER}/checkpoint_items/${good.id}/replicate`, {
    replication: { destination_region: 'local-2', destination_project_id: other.project },
  })
  await world.settled()
  const copied = await world.item(good.id)
  const [record] = copied.replication_records
  const replica = await other.item(record.destination_checkpoint_item_id)
  for (const backup of [good, failed, copied, replica]) {
    assertGo(BACKUP, backup)
    for (const time of [backup.created_at, backup.updated_at]) assert.match(time, NAIVE)
    assert.equal(Array.isArray(backup.extend_info.volume_backups), true)
  }
  assert.match(failed.extend_info.fail_code.Code, /^\d+$/)
})
