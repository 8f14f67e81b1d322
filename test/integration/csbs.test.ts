/** Backups of servers through the public API with scripted sites: what is stored, resumed, let go and restored. */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { createBackupSchedule } from '#control/operations/backup-schedule.ts'
import { createLog } from '#base/log.ts'
import { newId } from '#base/ids.ts'
import { forgetBackupHistory } from '#control/operations/backup-history.ts'
import { ApiLab } from '../support/api.ts'
import { commandLine } from '../support/command-line.ts'
import { BackupWorld, PROVIDER } from '../support/backup-world.ts'
import { disksOfPairs, groupRow, insertRows, pairRow, reportOf } from '../support/group-rows.ts'

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
  const made = logs.filter((log: { operation_type: string }) => log.operation_type === 'protect')
  const by = made.map((log: { scheduled_operation_id: unknown }) => log.scheduled_operation_id)
  const [operation] = policy.scheduled_operations
  // The manual run of two servers, and four of the schedule.
  assert.equal(by.filter((id: unknown) => id === null).length, 2)
  assert.equal(by.filter((id: unknown) => id === operation.id).length, by.length - 2)
  assert.equal(by.length, 2 + 4 * 2)

  // The clock was years ahead when somebody looked, and was put right.
  const change = (next_at: number) =>
    store.write((tx) =>
      tx.updateTable('backup_schedules').set({ next_at }).where('plan', '=', policy.id).execute(),
    )
  await change(clock.wallMs() + 5 * 365 * 86_400_000)
  assert.equal(await schedule().look(), 0)
  const { next_at } = await store.db
    .selectFrom('backup_schedules')
    .select('next_at')
    .where('plan', '=', policy.id)
    .executeTakeFirstOrThrow()
  assert.ok((next_at ?? 0) - clock.wallMs() <= 86_400_000)

  // What it made stays when it goes.
  await world.ok('DELETE', `policies/${policy.id}`)
  assert.equal((await world.call('GET', `policies/${policy.id}`)).status, 404)
  assert.equal((await keep(policy.id)).length, items.length)
})

test('the command line restores by form, attaches, backs up groups and sets rates', async () => {
  const { store } = world.lab
  const origin = await world.lab.listen()
  const holdfast = async (...args: string[]) => {
    await world.report()
    const said = await commandLine(world.lab, origin, [...args, '--json'])
    assert.equal(said.code, 0, said.err)
    return JSON.parse(said.out.trim().split('\n').at(-1) ?? '')
  }
  const refused = async (...args: string[]) => {
    const { code, err } = await commandLine(world.lab, origin, args)
    assert.notEqual(code, 0)
    return err
  }
  const [server] = await world.servers(1)
  const { id } = await world.backUp(server?.id ?? '')
  const disk = server?.volume ?? ''
  const fresh = await holdfast(
    'backup',
    'restore',
    id,
    '--new-volumes',
    '--name',
    'n',
    '--rate',
    '3',
  )
  assert.equal(fresh.status, 'success')
  assert.equal(world.sites.of('restore.start').at(-1)?.request.rate_bytes, 3 * 1024 * 1024)
  const [volume] = fresh.volumes
  const again = await holdfast('backup', 'restore', id, '--volume', `${disk}=${volume}`, '--yes')
  assert.deepEqual(again.volumes, [volume])
  assert.match(await refused('backup', 'restore', id, '--volume', disk), /--yes is required/)
  assert.match(await refused('backup', 'restore', id, '--name', 'x'), /--new-volumes/)
  assert.match(await refused('backup', 'restore', id, '--volume', 'no', '--yes'), /not accepted/)

  const attached = await holdfast('checkpoint', 'attach', id)
  assert.equal(attached.attachment.status, 'attached')
  assert.equal(attached.attachment.exports[0].volume, disk)
  await holdfast('checkpoint', 'detach', id)
  assert.match(await refused('checkpoint', 'detach', id), /not attached/)

  const group = groupRow(world.project)
  const pairs = [pairRow(group, 1)]
  const volumes = disksOfPairs(group, pairs)
  await insertRows(store, { protection_groups: [group], replication_pairs: pairs, volumes })
  const whole = await holdfast('backup', 'group', group.id, '--name', 'whole', '--rate', '0')
  assert.equal(whole.resource_type, 'Holdfast::ProtectionGroup')
  const back = await holdfast('backup', 'restore', whole.id, '--yes')
  assert.deepEqual(back.volumes, [pairs[0]?.source_volume])

  const rates = await holdfast('backup', 'rate', '--copy', '5')
  assert.deepEqual(rates, { backup: 0, restore: 0, copy: 5 * 1024 * 1024 })
  assert.match(await refused('backup', 'rate', '--copy', 'fast'), /whole MiB/)
})

test('restores, logs, verifications and copies are read page by page, and forgotten after 90 days', async () => {
  const { store, clock } = world.lab
  const [server] = await world.servers(1)
  const item = await world.backUp(server?.id ?? '')
  const foreign = await world.lab.project('local-1_elsewhere')
  const now = clock.wallMs()
  const old = now - 91 * 86_400_000
  const common = { provider: PROVIDER, checkpoint: item.checkpoint_id }
  const texts = { parameters: '{}', resources_status: '{}', resources_reason: '{}' }
  const ended = { started_at: old, ended_at: old, error_info: null, extra_info: null }
  const log = { operation_type: 'protect', plan: null, restore: null, schedule: null, ...ended }
  const record = {
    item: item.id,
    checkpoint: item.checkpoint_id,
    policy: null,
    destination_region: 'local-2',
    destination_project: 'p',
    destination_checkpoint: null,
    destination_item: null,
    destination_vault_checkpoint: null,
    scheduled: 0,
    accelerate: 0,
    name: null,
    description: null,
    progress: 100,
    sent_bytes: 0,
    missing_bytes: 0,
    fail_code: null,
    fail_reason: null,
    gone_at: null,
  } as const
  await store.write(async (tx) => {
    for (let at = 0; at < 7; at += 1) {
      const project = at === 6 ? foreign : world.project
      const times = { created_at: old + at, updated_at: old + at }
      const row = { project, id: newId(), status: at === 0 ? 'fail' : 'success', ...times }
      const { created_at: _, updated_at: __, ...entry } = row
      await tx
        .insertInto('restores')
        .values({ ...row, ...common, ...texts, item: null, target: null })
        .execute()
      await tx
        .insertInto('verifications')
        .values({ ...row, ...common, ...texts })
        .execute()
      await tx
        .insertInto('replication_records')
        .values({ ...row, ...record })
        .execute()
      await tx
        .insertInto('backup_logs')
        .values({ ...entry, ...common, ...log })
        .execute()
    }
  })
  for (const name of ['restores', 'verifications', 'operation_logs', 'replication_records']) {
    const all: { id: string; status: string }[] = (await world.ok('GET', name))[name]
    const paged: { id: string }[] = []
    for (let marker = ''; ; ) {
      const query = `limit=2${marker === '' ? '' : `&marker=${marker}`}`
      const answer = await world.ok('GET', `${name}?${query}`)
      paged.push(...answer[name])
      const last = answer[name].at(-1)
      if (answer[`${name}_links`] === undefined || last === undefined) break
      marker = last.id
    }
    assert.deepEqual(paged, all, name)
    const up = (await world.ok('GET', `${name}?sort=created_at:asc,id:asc`))[name]
    assert.equal(up.length, all.length)
    const failed = (await world.ok('GET', `${name}?status=fail`))[name]
    assert.ok(failed.every(({ status }: { status: string }) => status === 'fail'))
    const [strange] = await store.db
      .selectFrom(name === 'operation_logs' ? 'backup_logs' : (name as 'restores'))
      .select('id')
      .where('project', '=', foreign)
      .execute()
    assert.equal((await world.call('GET', `${name}?marker=${strange?.id}`)).status, 400)
  }
  const counted = await world.ok('GET', 'replication_records?limit=1')
  assert.deepEqual([counted.count, counted.replication_records.length], [6, 1])

  await forgetBackupHistory(store, now)
  for (const name of ['restores', 'verifications', 'operation_logs']) {
    const rows = await store.db
      .selectFrom(name === 'operation_logs' ? 'backup_logs' : (name as 'restores'))
      .select('project')
      .where('project', '=', foreign)
      .execute()
    assert.deepEqual(rows, [], name)
  }
  // A copy that is there is known for as long as its source is.
  const kept = (await world.ok('GET', 'replication_records')).replication_records
  assert.deepEqual([...new Set(kept.map(({ status }: { status: string }) => status))], ['success'])
  await world.ok('DELETE', `providers/${PROVIDER}/checkpoints/${item.checkpoint_id}`)
  await world.settled()
  await forgetBackupHistory(store, now)
  assert.equal((await world.ok('GET', 'replication_records')).count, 0)
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
