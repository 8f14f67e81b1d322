/** Backups of servers through the public API with scripted sites: what is stored, resumed, let go and restored. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { createBackupSchedule } from '#control/operations/backup-schedule.ts'
import { createLog } from '#base/log.ts'
import { backupUpkeep, UPKEEP_RESOURCE } from '#control/operations/definitions/backup-upkeep.ts'
import { ApiLab } from '../support/api.ts'
import { BackupWorld, PROVIDER } from '../support/backup-world.ts'
import { reportOf } from '../support/group-rows.ts'

let world: BackupWorld

before(async () => {
  world = await BackupWorld.start()
})
after(async () => {
  await world.stop()
})

const restoreOf = (
  item: { id: string; checkpoint_id: string },
  server: string,
  volumes: object[],
) => ({
  restore: {
    checkpoint_id: item.checkpoint_id,
    provider_id: PROVIDER,
    parameters: {
      checkpoint_item_id: item.id,
      power_on: true,
      targets: { server_id: server, volumes },
    },
  },
})

test('a server is backed up, and the next backup builds on it', async () => {
  const [server] = await world.servers(1)
  assert.ok(server !== undefined)
  const first = await world.backUp(server.id, { backup_name: 'first', description: 'one' })
  assert.equal(first.status, 'available')
  assert.equal(first.name, 'first')
  assert.equal(first.extend_info.incremental, false)
  assert.equal(first.extend_info.progress, 100)
  assert.equal(first.extend_info.volume_backups[0].source_volume_id, server.volume)
  const second = await world.backUp(server.id)
  assert.match(second.name, /^manualbk_[0-9a-f]{4}$/)
  assert.equal(second.extend_info.incremental, true)
  const full = await world.backUp(server.id, { incremental: false })
  assert.equal(full.extend_info.incremental, false)
  const told = world.sites.of('backup.start').slice(-1)[0]
  assert.equal(told?.request.parent, null)
  assert.deepEqual(told?.request.names, [server.volume])
  assert.equal(told?.request.labels.server, server.id)
})

test('a backup that the site refuses is an error with the reason, and can be deleted', async () => {
  const [server] = await world.servers(1)
  world.sites.refusals.set('backup.start', 'VOLUME_FAILED')
  const item = await world.backUp(server?.id ?? '')
  world.sites.refusals.clear()
  assert.equal(item.status, 'error')
  assert.equal(item.extend_info.fail_op, 'backup')
  assert.match(item.extend_info.fail_reason, /VOLUME_FAILED/)
  assert.equal(item.extend_info.fail_code.Code, '9999')
  await world.ok('DELETE', `providers/${PROVIDER}/checkpoints/${item.checkpoint_id}`)
  await world.settled()
  assert.equal((await world.call('GET', `checkpoint_items/${item.id}`)).status, 404)
})

test('a backup goes on while its site is away for a moment, and shows how far it is', async () => {
  const [server] = await world.servers(1)
  world.sites.slow.set('backup.start', 1)
  world.sites.refusals.set('backup.start', 'away')
  const path = `providers/${PROVIDER}/resources/${server?.id}/action`
  const { checkpoint } = await world.ok('POST', path, { protect: {} })
  const list = `checkpoint_items?checkpoint_id=${checkpoint.id}`
  const [item] = (await world.ok('GET', list)).checkpoint_items
  assert.equal(item.status, 'protecting')
  const tried = world.sites.of('backup.start').length
  while (world.sites.of('backup.start').length === tried)
    await new Promise((go) => setTimeout(go, 20))
  world.sites.refusals.clear()
  await world.settled()
  world.sites.slow.clear()
  assert.equal((await world.item(item.id)).status, 'available')
})

test('a record id stands for the only backup in it, as one client has it', async () => {
  const [server] = await world.servers(1)
  const item = await world.backUp(server?.id ?? '')
  assert.equal((await world.item(item.checkpoint_id)).id, item.id)
})

test('a backup is restored to its server, which is switched off and on; what failed is said', async () => {
  const [server] = await world.servers(1)
  assert.ok(server !== undefined)
  const item = await world.backUp(server.id)
  const volumes = [{ backup_id: item.extend_info.volume_backups[0].id, volume_id: server.volume }]
  const { restore } = await world.ok('POST', 'restores', restoreOf(item, server.id, volumes))
  assert.equal(restore.status, 'in_progress')
  await world.settled()
  const done = (await world.ok('GET', `restores/${restore.id}`)).restore
  assert.equal(done.status, 'success')
  assert.deepEqual(done.resources_status, { [`OS::Nova::Server#${server.id}`]: 'available' })
  assert.equal((await world.item(item.id)).status, 'available')
  const order = world.sites.told.slice(-4).map(({ name }) => name)
  assert.deepEqual(order, ['server.stop', 'restore.start', 'server.define', 'server.start'])
  const { request } = world.sites.of('restore.start').slice(-1)[0] ?? { request: null }
  assert.deepEqual(request.volumes, [
    { name: server.volume, volume: server.volume, pair: null, blank: false },
  ])

  world.sites.refusals.set('restore.start', 'VOLUME_BUSY')
  const again = await world.ok('POST', 'restores', restoreOf(item, server.id, volumes))
  await world.settled()
  world.sites.refusals.clear()
  const failed = (await world.ok('GET', `restores/${again.restore.id}`)).restore
  assert.equal(failed.status, 'fail')
  const shown = await world.item(item.id)
  assert.equal(shown.status, 'available')
  assert.equal(shown.extend_info.fail_op, 'restore')
})

test('deleting the backups of a record deletes the record, and what is being deleted is refused again', async () => {
  const servers = await world.servers(2)
  const policy = (
    await world.ok('POST', 'policies', {
      policy: world.policy(
        'two-servers',
        servers.map(({ id }) => id),
      ),
    })
  ).policy
  await world.report()
  const run = { checkpoint: { plan_id: policy.id, parameters: { auto_trigger: false } } }
  const { checkpoint } = await world.ok('POST', `providers/${PROVIDER}/checkpoints`, run)
  await world.settled()
  const list = `checkpoint_items?checkpoint_id=${checkpoint.id}`
  const items = (await world.ok('GET', list)).checkpoint_items
  assert.equal(items.length, 2)
  const path = `providers/${PROVIDER}/checkpoints/${checkpoint.id}`
  const stored = world.sites.vault.size
  await world.ok('DELETE', `${path}?checkpoint_items=${items[0].id}`)
  const second = await world.call('DELETE', path)
  assert.ok(second.status === 400 || second.status === 200, second.text)
  await world.settled()
  if (second.status === 400) {
    assert.equal(second.body.error_code, 'CSBS.2003')
    assert.equal(second.body.badRequest.code, 400)
    await world.ok('DELETE', path)
    await world.settled()
  }
  assert.equal(world.sites.vault.size, stored - 2)
  assert.equal((await world.call('DELETE', path)).status, 404)
  assert.equal((await world.call('GET', path)).status, 404)
  assert.equal((await world.ok('GET', list)).checkpoint_items.length, 0)
  await world.ok('DELETE', `policies/${policy.id}`)
})

test('a policy runs by itself, once per instant whoever looks, and lets go what it does not keep', async () => {
  const servers = await world.servers(2)
  const { policy } = await world.ok('POST', 'policies', {
    policy: {
      ...world.policy(
        'nightly',
        servers.map(({ id }) => id),
        { max_backups: 2, permanent: false },
      ),
      tags: [{ key: 'team', value: 'blue' }],
    },
  })
  assert.equal(policy.status, 'suspended')
  assert.equal(policy.scheduled_operations[0].operation_definition.max_backups, '2')
  const { store, clock, operations } = world.lab
  const schedule = () =>
    createBackupSchedule({
      store,
      clock,
      log: createLog('schedule', 'silent'),
      operations,
      region: 'local-1',
      destinations: [],
    })
  const [one, two] = [schedule(), schedule()]
  const keep = async (id: string) =>
    (await world.ok('GET', `checkpoint_items?policy_id=${id}`)).checkpoint_items
  // A manual one first: it is never let go, and does not count.
  await world.report()
  const run = { checkpoint: { plan_id: policy.id, 'extra-info': null } }
  await world.ok('POST', `providers/${PROVIDER}/checkpoints`, run)
  await world.settled()
  for (let day = 0; day < 4; day += 1) {
    const row = await store.db
      .selectFrom('backup_schedules')
      .select('next_at')
      .where('plan', '=', policy.id)
      .executeTakeFirstOrThrow()
    await world.forward((row.next_at ?? 0) - clock.wallMs() + 1_000)
    const [begun, twice] = await Promise.all([one.look(), two.look()])
    assert.equal(begun + twice, 1, `day ${day}`)
    await world.settled()
    assert.equal(await one.look(), 0)
  }
  const items = await keep(policy.id)
  const scheduled = items.filter(
    (item: { extend_info: { auto_trigger: boolean } }) => item.extend_info.auto_trigger,
  )
  assert.equal(items.length, 2 + 2 * 2)
  assert.equal(scheduled.length, 4)
  for (const item of scheduled) {
    assert.match(item.name, /^autobk_[0-9a-f]{4}$/)
    assert.deepEqual(item.tags, [{ key: 'team', value: 'blue' }])
  }
  const logs = (await world.ok('GET', `operation_logs?plan_id=${policy.id}`)).operation_logs
  assert.ok(logs.some((log: { operation_type: string }) => log.operation_type === 'delete'))

  // What it made stays when it goes.
  await world.ok('DELETE', `policies/${policy.id}`)
  assert.equal((await world.call('GET', `policies/${policy.id}`)).status, 404)
  assert.equal((await keep(policy.id)).length, items.length)
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
test('backups of another project do not exist', async () => {
  const [server] = await world.servers(1)
  const item = await world.backUp(server?.id ?? '')
  const foreign = await world.lab.project('local-1_foreign')
  const { token } = await world.lab.userWith('admin', foreign)
  const headers = { 'x-auth-token': token }
  const call = async (method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown) =>
    await world.lab.call(
      { method, url: `/v1/${foreign}/${path}`, headers, ...(body === undefined ? {} : { body }) },
      'csbs',
    )
  assert.equal((await call('GET', `checkpoint_items/${item.id}`)).status, 404)
  assert.deepEqual((await call('GET', 'checkpoint_items')).body.checkpoint_items, [])
  const checkpoint = `providers/${PROVIDER}/checkpoints/${item.checkpoint_id}`
  assert.equal((await call('DELETE', checkpoint)).status, 404)
  assert.equal((await call('GET', checkpoint)).status, 403)
  assert.equal((await call('GET', `csbs_backup/${item.id}/tags`)).status, 404)
  const volumes = [{ backup_id: item.extend_info.volume_backups[0].id, volume_id: server?.volume }]
  assert.equal(
    (await call('POST', 'restores', restoreOf(item, server?.id ?? '', volumes))).status,
    404,
  )
})

test('what a control plane leaves half way, the next one finishes: backup, restore and deletion', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-csbs-'))
  const database = `sqlite:${join(directory, 'state.db')}`
  const first = await BackupWorld.start({ database })
  const labs: ApiLab[] = []
  /** Stops the engine once the site has been told `name`, and goes on with another control plane. */
  const interrupted = async (name: string, begin: () => Promise<unknown>) => {
    const lab = labs.at(-1) ?? first.lab
    const report = async (of: ApiLab) => {
      for (const site of ['az1', 'az2']) await of.agents.receive(reportOf(site, []))
    }
    await report(lab)
    const before = first.sites.of(name).length
    first.sites.slow.set(name, 2)
    await begin()
    while (first.sites.of(name).length === before) await new Promise((go) => setTimeout(go, 10))
    await lab.operations.stop()
    const next = await ApiLab.start({ database, beside: first.lab, sites: first.sites.client })
    labs.push(next)
    await report(next)
    next.operations.start()
    for (;;) {
      const [left] = await next.operations.list({ status: ['pending', 'running'] })
      if (left === undefined) break
      await next.operations.waitFor(left.id)
    }
    return first.sites.of(name).slice(before)
  }
  try {
    const [server] = await first.servers(1)
    assert.ok(server !== undefined)
    const path = `providers/${PROVIDER}/resources/${server.id}/action`
    const backups = await interrupted('backup.start', () => first.ok('POST', path, { protect: {} }))
    assert.ok(backups.length > 1)
    assert.equal(new Set(backups.map(({ request }) => request.backup)).size, 1)
    const [item] = (await first.ok('GET', 'checkpoint_items')).checkpoint_items
    assert.equal(item.status, 'available')

    const volumes = [{ backup_id: item.extend_info.volume_backups[0].id, volume_id: server.volume }]
    const body = restoreOf(item, server.id, volumes)
    const restores = await interrupted('restore.start', () => first.ok('POST', 'restores', body))
    assert.equal(new Set(restores.map(({ request }) => request.restore)).size, 1)
    const [restore] = (await first.ok('GET', 'restores')).restores
    assert.equal(restore.status, 'success')
    assert.equal((await first.item(item.id)).status, 'available')

    const checkpoint = `providers/${PROVIDER}/checkpoints/${item.checkpoint_id}`
    await interrupted('vault.forget', () => first.ok('DELETE', checkpoint))
    assert.deepEqual((await first.ok('GET', 'checkpoint_items')).checkpoint_items, [])
    assert.equal(first.sites.vault.size, 0)
  } finally {
    for (const lab of labs.toReversed()) await lab.stop()
    await first.stop()
    await rm(directory, { recursive: true, force: true })
  }
})
