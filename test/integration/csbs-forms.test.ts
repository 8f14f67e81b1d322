/** Forms of backups and restores beyond the published API, with scripted sites: single disks, volumes, new volumes, groups, reading in place, rates. */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { addChore } from '#control/resources/surroundings.ts'
import type { Reply } from '../support/api.ts'
import { BackupWorld, PROVIDER } from '../support/backup-world.ts'
import {
  disksOfPairs,
  groupRow,
  insertRows,
  instanceRow,
  ownershipRow,
  pairRow,
  reportOf,
  volumeRow,
} from '../support/group-rows.ts'

let world: BackupWorld
before(async () => {
  world = await BackupWorld.start()
})
after(async () => {
  await world.stop()
})

async function native(
  method: 'GET' | 'POST' | 'PUT',
  path: string,
  body?: unknown,
  of = world,
): Promise<Reply> {
  return await of.lab.call({
    method,
    url: `/api/v1/${path}`,
    headers: { 'x-auth-token': of.token },
    ...(body === undefined ? {} : { body }),
  })
}

async function accepted(path: string, body: unknown = {}, of = world): Promise<Reply['body']> {
  await of.report()
  const reply = await native('POST', path, body, of)
  assert.equal(reply.status, 202, reply.text)
  return reply.body
}

const refusal = async (path: string, body: unknown): Promise<string> => {
  const reply = await native('POST', path, body)
  return reply.body.error?.code ?? reply.text
}

const lastRestore = () => world.sites.of('restore.start').at(-1)?.request

const restored = async (id: string) => (await world.ok('GET', `restores/${id}`)).restore

const volume = async (id: string) =>
  await world.lab.store.db
    .selectFrom('volumes')
    .selectAll()
    .where('id', '=', id)
    .executeTakeFirstOrThrow()

/** A second disk of a server. */
async function addDisk(server: string): Promise<string> {
  const { store } = world.lab
  const attachments = JSON.stringify([
    { id: 'a', server, device: '/dev/vdb', host: null, mode: 'rw', at: 1 },
  ])
  const row = volumeRow(world.project, 'az1', { name: 'data', status: 'in-use', attachments })
  await insertRows(store, { volumes: [row] })
  await store.write((tx) =>
    tx
      .insertInto('server_disks')
      .values({
        volume: row.id,
        server,
        project: world.project,
        device: '/dev/vdb',
        boot_index: null,
        state: 'attached',
        delete_with_server: 0,
        created_at: 1,
      })
      .execute(),
  )
  return row.id
}

test('one disk of a backup is written back, whether the server or only the volume is named', async () => {
  const [server] = await world.servers(1)
  assert.ok(server !== undefined)
  const data = await addDisk(server.id)
  const item = await world.backUp(server.id)
  const shown = (await native('GET', `backups/${item.id}`)).body.backup
  assert.equal(shown.disks.length, 2)
  assert.equal(shown.stall_ms, 1)

  const one = await accepted(`backups/${item.id}/restore`, {
    server: server.id,
    disks: [{ disk: data }],
    power_on: false,
  })
  await world.settled()
  assert.equal((await restored(one.restore_id)).status, 'success')
  assert.deepEqual(lastRestore().volumes, [{ name: data, volume: data, pair: null, blank: false }])
  const { status } = await world.lab.store.db
    .selectFrom('servers')
    .select('status')
    .where('id', '=', server.id)
    .executeTakeFirstOrThrow()
  assert.equal(status, 'stopped')

  // Its server is found, and switched on again afterwards.
  const told = world.sites.told.length
  const two = await accepted(`backups/${item.id}/restore`, { disks: [{ disk: data }] })
  await world.settled()
  const done = await restored(two.restore_id)
  assert.equal(done.status, 'success')
  assert.deepEqual(Object.keys(done.resources_status), [
    `OS::Nova::Server#${server.id}`,
    `OS::Cinder::Volume#${data}`,
  ])
  const order = world.sites.told.slice(told).map(({ name }) => name)
  assert.deepEqual(order, ['restore.start', 'server.define', 'server.start'])

  const path = `backups/${item.id}/restore`
  assert.equal(await refusal(path, { disks: [{ disk: 'nothing' }] }), 'BACKUP_NOT_OF_ITEM')
  const swapped = { disks: [{ disk: data, volume: server.volume }] }
  assert.equal(await refusal(path, swapped), 'DISK_IS_SYSTEM')
  const gone = { disks: [{ disk: data, volume: 'f'.repeat(36) }] }
  assert.equal(await refusal(path, gone), 'VOLUME_UNKNOWN')
  assert.equal(await refusal(path, { new_volumes: true, server: server.id }), 'RESTORE_TO_WHAT')
})

test('a backup is restored to new volumes: they hold everything before anybody may use them', async () => {
  const [server] = await world.servers(1)
  assert.ok(server !== undefined)
  const item = await world.backUp(server.id)
  world.sites.slow.set('restore.start', 1)
  const body = { new_volumes: true, name: 'again', site: 'az2', rate_bytes: 1_048_576 }
  const begun = await accepted(`backups/${item.id}/restore`, body)
  const [id] = begun.volumes
  assert.equal((await volume(id)).status, 'creating')
  await world.settled()
  world.sites.slow.clear()
  const row = await volume(id)
  assert.equal(row.status, 'available')
  assert.equal(row.name, 'again')
  assert.equal(row.az, 'az2')
  assert.equal(row.bootable, 1)
  assert.deepEqual(lastRestore().volumes, [
    { name: server.volume, volume: id, pair: null, blank: true },
  ])
  assert.equal(lastRestore().rate_bytes, 1_048_576)
  assert.equal((await restored(begun.restore_id)).status, 'success')
  assert.equal((await world.item(item.id)).status, 'available')

  world.sites.refusals.set('restore.start', 'VOLUME_NO_SPACE')
  const failing = await accepted(`backups/${item.id}/restore`, { new_volumes: true })
  await world.settled()
  world.sites.refusals.clear()
  assert.equal((await restored(failing.restore_id)).status, 'fail')
  assert.equal((await volume(failing.volumes[0])).status, 'error')
  assert.equal((await world.item(item.id)).extend_info.fail_op, 'restore')
  const path = `backups/${item.id}/restore`
  assert.equal(await refusal(path, { new_volumes: true, site: 'az9' }), 'SITE_UNKNOWN')
  assert.equal(await refusal(path, { new_volumes: true, volume_type: 'x' }), 'TYPE_UNKNOWN')
})

test('the disks of a group are one backup of one moment, and go back together', async () => {
  const { store } = world.lab
  const group = groupRow(world.project, { name: 'shop' })
  const pairs = [1, 2].map((member) => pairRow(group, member, { in_session: 1 }))
  await insertRows(store, {
    protection_groups: [group],
    replication_pairs: pairs,
    volumes: disksOfPairs(group, pairs),
  })
  await store.write((tx) =>
    tx
      .insertInto('ownership')
      .values(ownershipRow(group, 'a'.repeat(32)))
      .execute(),
  )
  const begun = await accepted(`groups/${group.id}/backup`, { name: 'all' })
  await world.settled()
  const told = world.sites.of('backup.start').at(-1)
  const sources = pairs.map(({ source_volume }) => source_volume)
  assert.equal(told?.site, 'az2')
  assert.deepEqual(
    told.request.volumes,
    pairs.map(({ target_volume }) => target_volume),
  )
  assert.deepEqual(told.request.names, sources)
  // A copy that waits its turn must still be one when it is read.
  assert.equal(told.request.session, group.id)
  assert.equal(told.request.labels.group, group.id)
  const item = await world.item(begun.backup.id)
  assert.equal(item.status, 'available')
  assert.equal(item.resource_type, 'Holdfast::ProtectionGroup')
  assert.equal(item.extend_info.volume_backups.length, 2)
  assert.equal(item.extend_info.stall_ms, 1)

  // The site that is in sync may turn out not to be consistent just then.
  world.sites.refusals.set('az2 backup.start', 'NOT_CONSISTENT')
  await accepted(`groups/${group.id}/backup`)
  await world.settled()
  world.sites.refusals.clear()
  const own = world.sites.of('backup.start').at(-1)
  assert.equal(own?.request.session, undefined)
  // Or not in touch, or without a vault, or silent. It hears of the end of what it may have begun.
  for (const trouble of ['COPY_BEHIND', 'NO_VAULT', 'away']) {
    world.sites.refusals.set('az2 backup.start', trouble)
    if (trouble === 'away') {
      world.lab.clock.advance(60_000)
      await world.lab.agents.receive(reportOf('az1', []))
    }
    const other = await accepted(`groups/${group.id}/backup`)
    await world.settled()
    world.sites.refusals.clear()
    await world.report()
    assert.equal((await world.item(other.backup.id)).status, 'available', trouble)
    assert.equal(world.sites.of('backup.start').at(-1)?.site, 'az1')
    const chores = await store.db
      .selectFrom('site_chores')
      .select(['site', 'command', 'request'])
      .execute()
    const cancel = chores.filter(({ request }) => request.includes(other.backup.id))
    assert.deepEqual(
      cancel.map(({ site, command }) => `${site} ${command}`),
      ['az2 backup.cancel'],
    )
  }
  assert.deepEqual([own?.site, own?.request.volumes], ['az1', sources])
  assert.equal(own?.request.parent, told.request.backup.replace(/^./, 'c'))

  const back = await accepted(`backups/${item.id}/restore`)
  await world.settled()
  assert.equal((await restored(back.restore_id)).status, 'success')
  const { volumes } = lastRestore()
  assert.deepEqual(
    volumes,
    pairs.map((pair) => ({
      name: pair.source_volume,
      volume: pair.source_volume,
      pair: pair.id,
      blank: false,
    })),
  )
  assert.equal(await refusal(`groups/${'f'.repeat(32)}/backup`, {}), 'GROUP_UNKNOWN')
})

test('a protected server is backed up and restored where it runs', async () => {
  const { store } = world.lab
  const [source, target] = await world.servers(2)
  assert.ok(source !== undefined && target !== undefined)
  const before = await world.backUp(source.id)
  const group = groupRow(world.project, { status: 'failed-over', station: 'target' })
  const pair = pairRow(group, 1, { source_volume: source.volume, target_volume: target.volume })
  const instance = instanceRow(group, { source_server: source.id, target_server: target.id })
  await insertRows(store, {
    protection_groups: [group],
    replication_pairs: [pair],
    protected_instances: [instance],
  })
  await store.write(async (tx) => {
    for (const { id, volume: disk } of [source, target]) {
      await tx.updateTable('volumes').set({ pair: pair.id }).where('id', '=', disk).execute()
      const az = id === target.id ? 'az2' : 'az1'
      await tx
        .updateTable('servers')
        .set({ instance: instance.id, az })
        .where('id', '=', id)
        .execute()
      await tx.updateTable('volumes').set({ az }).where('id', '=', disk).execute()
    }
  })
  // Named by what it was before the switch, it is what runs in its place, and goes on from what there is.
  const item = await world.backUp(source.id)
  assert.equal(item.status, 'available')
  assert.equal(item.resource_id, source.id)
  assert.equal(item.extend_info.incremental, true)
  const told = world.sites.of('backup.start').at(-1)
  assert.equal(told?.site, 'az2')
  assert.deepEqual(told.request.volumes, [target.volume])
  assert.deepEqual(told.request.names, [source.volume])

  // A backup of before goes to the server that runs, in the published form, in the ancestor's, and by itself.
  const form = ({ id, volume }: typeof target) => ({
    checkpoint_item_id: before.id,
    power_on: false,
    targets: {
      server_id: id,
      volumes: [{ backup_id: before.extend_info.volume_backups[0].id, volume_id: volume }],
    },
  })
  const forms = [form(target), form(source), {}]
  for (const parameters of forms) {
    await world.report()
    const { restore } = await world.ok('POST', 'restores', {
      restore: { checkpoint_id: before.checkpoint_id, provider_id: PROVIDER, parameters },
    })
    await world.settled()
    const done = await restored(restore.id)
    assert.equal(done.status, 'success', JSON.stringify(done))
    const last = world.sites.of('restore.start').at(-1)
    assert.equal(last?.site, 'az2')
    assert.deepEqual(last.request.volumes, [
      { name: source.volume, volume: target.volume, pair: null, blank: false },
    ])
  }
  await accepted(`backups/${before.id}/restore`, { server: source.id })
  await world.settled()
  assert.equal(world.sites.of('restore.start').at(-1)?.site, 'az2')
})

test('a backup is read where it is until it is detached, and is not deleted meanwhile', async () => {
  const [server] = await world.servers(1)
  assert.ok(server !== undefined)
  const item = await world.backUp(server.id)
  const begun = await accepted(`backups/${item.id}/attach`)
  assert.equal(begun.backup.attachment.status, 'attaching')
  await world.settled()
  const { attachment } = (await native('GET', `backups/${item.id}`)).body.backup
  assert.equal(attachment.status, 'attached')
  assert.equal(attachment.site, 'az1')
  assert.equal(attachment.exports[0].volume, server.volume)
  assert.match(attachment.exports[0].export, /^checkpoint\//)
  assert.equal(world.sites.of('vault.attach').at(-1)?.request.owner, world.project)
  assert.equal(await refusal(`backups/${item.id}/attach`, {}), 'ATTACHED_ALREADY')
  const path = `providers/${PROVIDER}/checkpoints/${item.checkpoint_id}`
  const kept = await world.call('DELETE', path)
  assert.equal(kept.body.error_code, 'CSBS.2003', kept.text)

  // By the id of a checkpoint with this one backup, as clients have it.
  await accepted(`backups/${item.checkpoint_id}/detach`)
  await world.settled()
  assert.equal((await native('GET', `backups/${item.id}`)).body.backup.attachment, null)
  assert.equal(await refusal(`backups/${item.id}/detach`, {}), 'NOT_ATTACHED')

  // What a site refuses leaves nothing behind.
  world.sites.refusals.set('vault.attach', 'TOO_MANY_ATTACHED')
  await accepted(`backups/${item.id}/attach`)
  await world.settled()
  world.sites.refusals.clear()
  assert.equal((await native('GET', `backups/${item.id}`)).body.backup.attachment, null)
  // What is still to be cleaned up there ends the attempt that failed, and not what is attached afterwards.
  const detaching = async () =>
    await world.lab.store.db
      .selectFrom('site_chores')
      .select('request')
      .where('command', '=', 'vault.detach')
      .execute()
  const attempt = () => world.sites.of('vault.attach').at(-1)?.request.attachment
  const failed = { checkpoint: world.sites.of('vault.attach').at(-1)?.request.checkpoint }
  const left = [{ request: JSON.stringify({ ...failed, attachment: attempt() }) }]
  assert.deepEqual(await detaching(), left)
  // An older release left no name, and what has none ends whatever is there.
  await world.lab.store.write((tx) =>
    addChore(tx, { site: 'az1', command: 'vault.detach', request: failed }, 1),
  )
  await accepted(`backups/${item.id}/attach`)
  assert.deepEqual(await detaching(), left)
  await world.settled()
  assert.ok(!left[0]?.request.includes(attempt() ?? ''))
  await accepted(`backups/${item.id}/detach`)
  await world.settled()
  assert.equal(world.sites.of('vault.detach').at(-1)?.request.attachment, attempt())
  await world.ok('DELETE', path)
  await world.settled()
})

test('an administrator bounds how fast backups and restores are; who asks for less gets less', async () => {
  const [server] = await world.servers(1)
  assert.ok(server !== undefined)
  const set = await native('PUT', 'backup-rates', { rates: { backup: 5_000_000, restore: 0 } })
  assert.deepEqual(set.body.rates, { backup: 5_000_000, restore: 0, copy: 0 }, set.text)
  const low = await native('PUT', 'backup-rates', { rates: { backup: 10 } })
  assert.equal(low.status, 400)
  await world.backUp(server.id)
  assert.equal(world.sites.of('backup.start').at(-1)?.request.rate_bytes, 5_000_000)
  const item = await world.backUp(server.id)
  await native('PUT', 'backup-rates', { rates: { restore: 2_000_000 } })
  for (const [asked, got] of [
    [0, 2_000_000],
    [1_000_000, 1_000_000],
    [9_000_000, 2_000_000],
  ] as const) {
    await accepted(`backups/${item.id}/restore`, { new_volumes: true, rate_bytes: asked })
    await world.settled()
    assert.equal(lastRestore().rate_bytes, got)
  }
  await native('PUT', 'backup-rates', { rates: { backup: 0, restore: 0 } })
  const { token } = await world.lab.userWith('admin', world.project)
  const url = '/api/v1/backup-rates'
  const reply = await world.lab.call({ method: 'GET', url, headers: { 'x-auth-token': token } })
  assert.equal(reply.status, 403)
})

test('the limit of checkpoints holds for runs and single backups, and is told as the ancestor tells it', async () => {
  const [server] = await world.servers(1)
  assert.ok(server !== undefined)
  const policy = world.policy('limited', [server.id])
  const { id } = (await world.ok('POST', 'policies', { policy })).policy
  const { quota } = await world.ok('GET', `quotas/${world.project}/detail`)
  await world.ok('PUT', `quotas/${world.project}`, {
    quota: { checkpoints: quota.checkpoints.in_use },
  })
  await world.report()
  const run = { checkpoint: { plan_id: id, parameters: {} } }
  const full = await world.call('POST', `providers/${PROVIDER}/checkpoints`, run)
  assert.equal(full.status, 413, full.text)
  assert.equal(full.body.overLimit.code, 413)
  const path = `providers/${PROVIDER}/resources/${server.id}/action`
  const one = await world.call('POST', path, { protect: {} })
  assert.deepEqual([one.status, one.body.error_code], [400, 'CSBS.9006'])
  await world.ok('DELETE', `quotas/${world.project}`)
  await world.ok('POST', `providers/${PROVIDER}/checkpoints`, run)
  await world.settled()
  await world.ok('DELETE', `policies/${id}`)
})

test('restores and attachments of another project do not exist, and readers change nothing', async () => {
  const [server] = await world.servers(1)
  const item = await world.backUp(server?.id ?? '')
  const foreign = await world.lab.project('local-1_strange')
  const strange = await world.lab.userWith('admin', foreign)
  const reader = await world.lab.userWith('reader', world.project)
  for (const what of ['restore', 'attach', 'detach']) {
    const url = `/api/v1/backups/${item.id}/${what}`
    const call = async (token: string) =>
      (await world.lab.call({ method: 'POST', url, headers: { 'x-auth-token': token }, body: {} }))
        .status
    assert.deepEqual([await call(strange.token), await call(reader.token)], [404, 403], what)
  }
  const url = `/api/v1/backups/${item.id}`
  const headers = { 'x-auth-token': reader.token }
  assert.equal((await world.lab.call({ url, headers })).status, 200)
})

test('restores to new volumes and attachments go on under the next control plane', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-forms-'))
  const database = `sqlite:${join(directory, 'state.db')}`
  const first = await BackupWorld.start({ database })
  const { ApiLab } = await import('../support/api.ts')

  const labs: Awaited<ReturnType<typeof ApiLab.start>>[] = []
  const interrupted = async (name: string, begin: () => Promise<unknown>) => {
    const lab = labs.at(-1) ?? first.lab
    const before = first.sites.of(name).length
    first.sites.refusals.set(name, 'away')
    await begin()
    while (first.sites.of(name).length === before) await new Promise((go) => setTimeout(go, 10))
    await lab.operations.stop()
    first.sites.refusals.clear()
    const next = await ApiLab.start({ database, beside: first.lab, sites: first.sites.client })
    labs.push(next)
    for (const site of ['az1', 'az2']) await next.agents.receive(reportOf(site, []))
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
    const item = await first.backUp(server?.id ?? '')
    const restore = () => accepted(`backups/${item.id}/restore`, { new_volumes: true }, first)
    const asked = await interrupted('restore.start', restore)
    assert.equal(new Set(asked.map(({ request }) => request.restore)).size, 1)
    const [done] = (await first.ok('GET', 'restores')).restores
    assert.equal(done.status, 'success')
    await interrupted('vault.attach', () => accepted(`backups/${item.id}/attach`, {}, first))
    const attached = (await native('GET', `backups/${item.id}`, undefined, first)).body.backup
    assert.equal(attached.attachment.status, 'attached')
  } finally {
    for (const lab of labs.toReversed()) await lab.stop()
    await first.stop()
    await rm(directory, { recursive: true, force: true })
  }
})
