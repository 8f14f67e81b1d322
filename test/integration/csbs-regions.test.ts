/** Backups are copied between two regions through the public API, with scripted sites at both ends. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, before, test } from 'node:test'
import { createBackupSchedule } from '#control/operations/backup-schedule.ts'
import { createLog } from '#base/log.ts'
import {
  backupUpkeep,
  UPKEEP_RESOURCE,
} from '#control/operations/definitions/backup/backup-upkeep.ts'
import { BackupWorld, pattern, PROVIDER, RegionLink } from '../support/backup-world.ts'

const link = new RegionLink()
let world: BackupWorld
let other: BackupWorld

before(async () => {
  world = await BackupWorld.start({ regions: link.client })
  other = await BackupWorld.start()
  link.target = other
})
after(async () => {
  await world.stop()
  await other.stop()
})

test('the backups of a policy are copied to another region once, and are backups there', async () => {
  const [server] = await world.servers(1)
  assert.ok(server !== undefined)
  const { policy } = await world.ok('POST', 'policies', {
    policy: world.policy('copied', [server.id]),
  })
  const run = { checkpoint: { plan_id: policy.id, parameters: {} } }
  for (let made = 0; made < 2; made += 1) {
    await world.report()
    await world.ok('POST', `providers/${PROVIDER}/checkpoints`, run)
    await world.settled()
  }
  // One without the policy does not count.
  await world.backUp(server.id)
  const path = `providers/${PROVIDER}/checkpoints/replicate`
  const body = {
    replication: {
      policy_id: policy.id,
      destination_region: 'local-2',
      destination_project_id: other.project,
      enable_acceleration: true,
    },
  }
  await world.report()
  const { replication } = await world.ok('POST', path, body)
  assert.equal(replication.source_region, 'local-1')
  assert.equal(replication.checkpoint_items.length, 2)
  const again = await world.call('POST', path, body)
  assert.equal(again.body.error_code, 'CSBS.6031', again.text)
  await world.settled()
  const [first, second] = world.sites.of('replica.start').slice(-2)
  assert.equal(first?.request.accelerate, true)
  assert.equal(first?.request.base, null)
  assert.equal(second?.request.base.checkpoint, first?.request.checkpoint)

  for (const {
    checkpoint_item_id: id,
    replication_record_id: record,
  } of replication.checkpoint_items) {
    const source = await world.item(id)
    assert.equal(source.extend_info.copy_status, 'success')
    const [copy] = source.replication_records
    assert.equal(copy.id, record)
    assert.equal(copy.status, 'success')
    const there = await other.item(copy.destination_checkpoint_item_id)
    assert.equal(there.checkpoint_id, copy.destination_checkpoint_id)
    assert.equal(there.extend_info.image_type, 'replication')
    assert.equal(there.extend_info.copy_from, 'local-1')
    assert.equal(there.resource_id, server.id)
    assert.equal(there.protected_at, source.protected_at)
    assert.equal(there.extend_info.volume_backups.length, 1)
  }
  assert.deepEqual((await world.ok('POST', path, body)).replication.checkpoint_items, [])
  const one = `providers/${PROVIDER}/checkpoint_items/${replication.checkpoint_items[0].checkpoint_item_id}/replicate`
  const { policy_id: _, ...single } = body.replication
  assert.equal((await world.call('POST', one, { replication: single })).status, 400)

  // Its source may go: the copy does not.
  const item = await world.item(replication.checkpoint_items[0].checkpoint_item_id)
  const copy = item.replication_records[0].destination_checkpoint_item_id
  await world.ok('DELETE', `providers/${PROVIDER}/checkpoints/${item.checkpoint_id}`)
  await world.settled()
  assert.equal((await other.item(copy)).status, 'available')
})

test('a policy with a replication operation copies what it made by itself', async () => {
  const [server] = await world.servers(1)
  const wish = world.policy('both', [server?.id ?? '']) as { scheduled_operations: object[] }
  const copying = {
    enabled: true,
    operation_type: 'replication',
    operation_definition: { destination_region: 'local-2', destination_project_id: other.project },
    trigger: { properties: { pattern: pattern('FREQ=DAILY;BYHOUR=5;BYMINUTE=0') } },
  }
  const { policy } = await world.ok('POST', 'policies', {
    policy: { ...wish, scheduled_operations: [...wish.scheduled_operations, copying] },
  })
  assert.deepEqual(
    policy.scheduled_operations.map((one: { operation_type: string }) => one.operation_type).sort(),
    ['backup', 'replication'],
  )
  const { store, clock, operations } = world.lab
  const log = createLog('schedule', 'silent')
  const regions = { region: 'local-1', destinations: ['local-2'] }
  const schedule = createBackupSchedule({ store, clock, log, operations, ...regions })
  // Whichever of the two is due first, a copy comes after a backup.
  for (let look = 0; look < 3; look += 1) {
    const { next_at: at } = await store.db
      .selectFrom('backup_schedules')
      .select((eb) => eb.fn.min<number>('next_at').as('next_at'))
      .where('plan', '=', policy.id)
      .executeTakeFirstOrThrow()
    await world.forward(Number(at) - clock.wallMs() + 1_000)
    await schedule.look()
    await world.settled()
    await world.report()
  }
  const items = (await world.ok('GET', `checkpoint_items?policy_id=${policy.id}`)).checkpoint_items
  const [record] = items.flatMap(
    (one: { replication_records: object[] }) => one.replication_records,
  )
  assert.equal(record?.status ?? 'no copy was begun', 'success')
  assert.equal(record.extra_info.auto_trigger, true)
  await world.ok('DELETE', `policies/${policy.id}`)
})

test('a copy into a project that the account may not work in fails and says so, and may be tried again', async () => {
  const [server] = await world.servers(1)
  const item = await world.backUp(server?.id ?? '')
  const path = `providers/${PROVIDER}/checkpoint_items/${item.id}/replicate`
  const to = (project: string) => ({
    replication: { destination_region: 'local-2', destination_project_id: project, name: 'there' },
  })
  await world.ok('POST', path, to('f'.repeat(32)))
  await world.settled()
  const failed = await world.item(item.id)
  assert.equal(failed.extend_info.copy_status, 'fail')
  assert.match(failed.replication_records[0].extra_info.fail_reason, /REGION_DENIED/)
  await world.report()
  await world.ok('POST', path, to(other.project))
  await world.settled()
  const done = await world.item(item.id)
  assert.equal(done.extend_info.copy_status, 'success', JSON.stringify(done.replication_records))
  const copy = await other.item(done.replication_records[1].destination_checkpoint_item_id)
  assert.equal(copy.name, 'there')

  // Whoever knows the ids of a copy that came for somebody else gets nothing by naming them.
  const record: string = done.replication_records[1].id
  const foreign = await other.lab.project('local-2_foreign')
  const { token } = await other.lab.userWith('admin', foreign)
  const claim = async (id: string, key: string, checkpoint = `d${record.slice(1)}`) => {
    const disk = { volume: 'v', volume_name: null, name: 'd', system: true, size_gb: 1, size_mb: 1 }
    const named = { resource_id: 's', resource_name: 's', resource_type: 's', resource_az: 'az1' }
    const figures = { size_mb: 1, average_speed: 0, space_saving: 0, taken_at: 1 }
    const marks = { incremental: false, scheduled: false, tags: [], backup_data: {}, address: null }
    const body = {
      source_region: 'local-1',
      checkpoint,
      name: 'mine',
      description: null,
      disks: [disk],
      ...named,
      ...figures,
      ...marks,
    }
    const headers = { 'x-auth-token': key }
    const url = `/api/v1/replicas/${id}`
    const reply = await other.lab.call({ method: 'PUT', url, headers, body })
    return [reply.status, reply.body.error?.code]
  }
  assert.deepEqual(await claim(record, token), [409, 'REPLICA_NOT_HERE'])
  assert.deepEqual(await claim(randomUUID(), other.token), [409, 'REPLICA_NOT_HERE'])
  // One that was let in before this was noted, or before the state was saved: what its ticket wrote into the vault says for whom.
  const [early, unnoted] = [randomUUID(), randomUUID()]
  other.sites.vault.add(early)
  other.sites.labels.set(early, { owner: other.project, replica: unnoted })
  assert.deepEqual(await claim(unnoted, token, early), [409, 'REPLICA_NOT_HERE'])
  assert.deepEqual(await claim(unnoted, other.token, early), [200, undefined])
  assert.deepEqual(await claim(unnoted, other.token, early), [200, undefined])
})

test('a project that backups of this one may not go to is refused at once, and by a copy that was begun all the same', async () => {
  const [server] = await world.servers(1)
  const item = await world.backUp(server?.id ?? '')
  const path = `providers/${PROVIDER}/checkpoint_items/${item.id}/replicate`
  const body = {
    replication: { destination_region: 'local-2', destination_project_id: other.project },
  }
  link.closed = other.project
  const refused = await world.call('POST', path, body)
  assert.deepEqual([refused.status, refused.body.error_code], [403, 'CSBS.9001'])
  const sent = other.sites.of('replica.admit').length
  link.closed = ''
  world.sites.slow.set('replica.start', 1)
  await world.ok('POST', path, body)
  await world.settled()
  world.sites.slow.clear()
  assert.equal((await world.item(item.id)).extend_info.copy_status, 'success')
  assert.equal(other.sites.of('replica.admit').length, sent + 1)
  // What sent it is not remembered for longer than it takes.
  assert.deepEqual(await world.lab.store.db.selectFrom('backup_works').selectAll().execute(), [])
})

test('a copy that was deleted in its region is sent again when somebody asks for this backup, and not by its policy', async () => {
  const [server] = await world.servers(1)
  const { policy } = await world.ok('POST', 'policies', {
    policy: world.policy('again', [server?.id ?? '']),
  })
  await world.report()
  const run = { checkpoint: { plan_id: policy.id, parameters: {} } }
  await world.ok('POST', `providers/${PROVIDER}/checkpoints`, run)
  await world.settled()
  const to = { destination_region: 'local-2', destination_project_id: other.project }
  const all = { replication: { ...to, policy_id: policy.id } }
  // Asked for as the ancestor has it, the checkpoint shows its copy.
  const path = `providers/${PROVIDER}/checkpoints`
  world.sites.slow.set('replica.start', 1)
  const { copy: begun } = await world.ok('POST', `${path}/action`, {
    copy: { plan_id: policy.id, parameters: { 'OS::Nova::Server': to } },
  })
  const [checkpoint] = begun.checkpoint_id
  const shown = async () => (await world.ok('GET', `${path}/${checkpoint}`)).checkpoint.status
  assert.match(await shown(), /^(wait_)?copying$/)
  await world.settled()
  world.sites.slow.clear()
  assert.equal(await shown(), 'finished')
  const list = await world.ok('GET', `checkpoint_items?checkpoint_id=${checkpoint}`)
  const { id } = list.checkpoint_items[0]
  const one = `providers/${PROVIDER}/checkpoint_items/${id}/replicate`
  const refused = await world.call('POST', one, { replication: to })
  assert.deepEqual([refused.status, refused.body.error_code], [400, 'CSBS.9001'])

  const copy = (await world.item(id)).replication_records[0].destination_checkpoint_item_id
  const there = await other.item(copy)
  await other.report()
  await other.ok('DELETE', `providers/${PROVIDER}/checkpoints/${there.checkpoint_id}`)
  await other.settled()
  await world.report()
  const none = await world.ok('POST', `providers/${PROVIDER}/checkpoints/replicate`, all)
  assert.deepEqual(none.replication.checkpoint_items, [])
  // A region that does not answer has what it had.
  link.cut = true
  assert.equal((await world.call('POST', one, { replication: to })).status, 400)
  link.cut = false
  const again = await world.ok('POST', one, { replication: to })
  await world.settled()
  const records = (await world.item(id)).replication_records
  const made = records.find(
    (record: { id: string }) => record.id === again.replication.replication_record_id,
  )
  assert.equal(made.status, 'success', JSON.stringify(records))
  assert.notEqual(made.destination_checkpoint_item_id, copy)
  assert.equal((await other.item(made.destination_checkpoint_item_id)).status, 'available')
  await world.ok('DELETE', `policies/${policy.id}`)

  // The ancestor copies what its own plans made as well; to the other form they are no policies.
  const resources = [{ id: server?.id, type: 'OS::Nova::Server', name: 'one' }]
  const { plan } = await world.ok('POST', 'plans', {
    plan: { name: 'plan', provider_id: PROVIDER, parameters: {}, resources },
  })
  const ofPlan = { copy: { plan_id: plan.id, parameters: { 'OS::Nova::Server': to } } }
  assert.equal((await world.call('POST', `${path}/action`, ofPlan)).status, 400)
  await world.report()
  await world.ok('POST', path, { checkpoint: { plan_id: plan.id } })
  await world.settled()
  const asPolicy = { replication: { ...to, policy_id: plan.id } }
  assert.equal((await world.call('POST', `${path}/replicate`, asPolicy)).status, 404)
  const { copy: last } = await world.ok('POST', `${path}/action`, ofPlan)
  await world.settled()
  assert.equal(last.checkpoint_id.length, 1)
  const done = (await world.ok('GET', `${path}/${last.checkpoint_id[0]}`)).checkpoint
  assert.equal(done.status, 'finished')
  await world.ok('DELETE', `plans/${plan.id}`)
})

test('what a replication operation keeps is kept in the other region, whatever becomes of the sources', async () => {
  const [server] = await world.servers(1)
  const wish = world.policy('bounded', [server?.id ?? '']) as { scheduled_operations: object[] }
  const copying = {
    enabled: true,
    operation_type: 'replication',
    operation_definition: {
      destination_region: 'local-2',
      destination_project_id: other.project,
      max_backups: 1,
    },
    trigger: { properties: { pattern: pattern('FREQ=DAILY;BYHOUR=5;BYMINUTE=0') } },
  }
  const { policy } = await world.ok('POST', 'policies', {
    policy: { ...wish, scheduled_operations: [...wish.scheduled_operations, copying] },
  })
  const { store, clock, operations } = world.lab
  const log = createLog('schedule', 'silent')
  const regions = { region: 'local-1', destinations: ['local-2'] }
  const schedule = createBackupSchedule({ store, clock, log, operations, ...regions })
  const days = async (looks: number) => {
    for (let look = 0; look < looks; look += 1) {
      const { next_at: at } = await store.db
        .selectFrom('backup_schedules')
        .select((eb) => eb.fn.min<number>('next_at').as('next_at'))
        .where('plan', '=', policy.id)
        .executeTakeFirstOrThrow()
      await world.forward(Number(at) - clock.wallMs() + 1_000)
      await schedule.look()
      await world.settled()
      await other.report()
      await other.settled()
    }
  }
  const there = async () =>
    (await other.ok('GET', `checkpoint_items?resource_id=${server?.id}`)).checkpoint_items
  // One that a person sent stays, and counts nowhere.
  const own = await world.backUp(server?.id ?? '')
  const to = { destination_region: 'local-2', destination_project_id: other.project }
  const one = `providers/${PROVIDER}/checkpoint_items/${own.id}/replicate`
  await world.ok('POST', one, { replication: to })
  await world.settled()
  await days(8)
  // At each instant the copies that are there are looked through, before the next ones come.
  const kept = await there()
  assert.ok(kept.length <= 3, `${kept.length} copies`)
  const byHand = kept.filter(
    (item: { extend_info: { auto_trigger: boolean } }) => !item.extend_info.auto_trigger,
  )
  assert.equal(byHand.length, 1)
  const sources = (await world.ok('GET', `checkpoint_items?policy_id=${policy.id}`))
    .checkpoint_items
  assert.ok(sources.length >= 3, `${sources.length} sources`)
  const sent = sources.flatMap(
    (item: { replication_records: object[] }) => item.replication_records,
  )
  assert.ok(sent.length >= 3)
  await world.ok('DELETE', `policies/${policy.id}`)
})

test('what is in the vault for no backup goes with the daily upkeep; what nobody knows stays', async () => {
  const { store, operations } = world.lab
  const [server] = await world.servers(1)
  const item = await world.backUp(server?.id ?? '')
  const put = (labels: Record<string, string>) => {
    const id = randomUUID()
    world.sites.vault.add(id)
    world.sites.labels.set(id, labels)
    return id
  }
  const twice = put({ item: item.id })
  const foreign = put({ item: randomUUID() })
  const arrived = { item: randomUUID(), owner: world.project }
  const [late, soon] = [randomUUID(), randomUUID()]
  const [lateOne, soonOne] = [
    put({ ...arrived, replica: late }),
    put({ ...arrived, replica: soon }),
  ]
  const admit = async (id: string) => {
    const headers = { 'x-auth-token': world.token }
    const url = `/api/v1/replicas/${id}/admission`
    const asked = { source_region: 'local-2', size_mb: 1 }
    return (await world.lab.call({ method: 'POST', url, headers, body: asked })).status
  }
  assert.equal(await admit(late), 200)
  await world.forward(8 * 86_400_000)
  assert.equal(await admit(soon), 200)
  await store.write(async (tx) => {
    await operations.submit(tx, backupUpkeep, {
      project: null,
      resourceType: UPKEEP_RESOURCE,
      resourceId: 'now',
      input: { collect: randomUUID() },
    })
  })
  await world.settled()
  const left = (id: string) => world.sites.vault.has(id)
  assert.deepEqual([twice, foreign, lateOne, soonOne].map(left), [false, true, false, true])
  const kept = await store.db
    .selectFrom('checkpoint_items')
    .select('vault_checkpoint')
    .where('vault_checkpoint', 'is not', null)
    .where('replica', '=', 0)
    .execute()
  assert.ok(kept.length > 0 && kept.every(({ vault_checkpoint: id }) => left(id ?? '')))
  // It has had its time, and becomes no backup any more.
  await world.report()
  assert.equal(await admit(late), 409)
})
