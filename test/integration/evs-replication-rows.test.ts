import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import { gatherPairs } from '#control/operations/definitions/protection/consistency-groups.ts'
import { forgetSession } from '#control/operations/definitions/protection/forget-group.ts'
import { retypeVolume } from '#control/operations/definitions/volumes/volumes.ts'
import { imageId } from '#control/resources/images.ts'
import { readShown, writeShown } from '#control/resources/shown-replications.ts'
import { listChores } from '#control/resources/surroundings.ts'
import { readMeta } from '#control/store/meta.ts'
import { STORE_BUSY } from '#control/store/store.ts'
import type { VolumeRow } from '#control/store/tables/resources.ts'
import { ApiLab } from '../support/api.ts'
import {
  disksOfPairs,
  groupRow,
  insertGroupsInSync,
  insertRows,
  ownershipRow,
  pairRow,
  reportOf,
  volumeRow,
} from '../support/group-rows.ts'
import { insertServers } from '../support/server-rows.ts'

/**
 * What is decided about replication pairs and consistency groups without any site doing anything: over rows that nobody made, with sites that report
 * what the test says. No operation runs, so also what is refused before one would, what is answered when none ends, and what one leaves that fails.
 */
let lab: ApiLab
let token: string
let project: string

before(async () => {
  lab = await ApiLab.start()
  token = await lab.adminToken()
  project = lab.admin.project_id
})
after(async () => await lab.stop())

type Shown = Readonly<Record<string, unknown>>

const PAIRS = () => `/v2/${project}/os-vendor-replications`
const GROUPS = () => `/v2/${project}/os-vendor-replication-consistency-groups`

async function get(url: string) {
  const reply = await lab.call({ url, headers: { 'x-auth-token': token } }, 'evs')
  assert.equal(reply.status, 200, reply.text)
  return reply.body as Record<string, Record<string, unknown>[]>
}

const post = async (url: string, body: unknown, status: number) => {
  const reply = await lab.call(
    { method: 'POST', url, headers: { 'x-auth-token': token }, body },
    'evs',
  )
  assert.equal(reply.status, status, reply.text)
  return reply.body as { readonly error?: { readonly code: string; readonly message: string } }
}

const native = (method: 'GET' | 'POST', path: string, body?: object) =>
  lab.call({ method, url: `/api/v1/${path}`, headers: { 'x-auth-token': token }, body })

test('what keeps a disk from growing by itself keeps it from growing in its group', async () => {
  const paused = groupRow(project, { form: 'evs', name: 'grows' })
  const [a, b] = [pairRow(paused, 1), pairRow(paused, 2)]
  await insertRows(lab.store, {
    protection_groups: [paused],
    replication_pairs: [a, b],
    volumes: disksOfPairs(paused, [a, b]),
  })
  await insertServers(lab.store, project, 1, imageId('holdfast-tiny'))
  const change = async (id: string, over: Partial<VolumeRow>) =>
    await lab.store.write((tx) =>
      tx.updateTable('volumes').set(over).where('id', '=', id).execute(),
    )
  const extend = async (newSizeGb: number, status: number) => {
    const value = { replications: [a, b].map(({ id }) => ({ id, new_size: newSizeGb })) }
    const body = { 'os-extend-replication-volumes': value }
    return (await post(`${GROUPS()}/${paused.id}/action`, body, status)).error
  }
  const plain = { status: 'available', bootable: 0, multiattach: 0 } as const
  for (const disk of [a.source_volume, b.target_volume]) {
    for (const [over, newSizeGb, code] of [
      [{ bootable: 1 }, 1_025, 'EVS.1010'],
      [{}, 32_769, 'EVS.1010'],
      [{ status: 'in-use', multiattach: 1 }, 2, 'EVS.1065'],
      [{ status: 'attaching' }, 2, 'EVS.1048'],
    ] as const) {
      await change(disk, { ...plain, ...over })
      assert.equal((await extend(newSizeGb, 400))?.code, code, JSON.stringify(over))
    }
    await change(disk, plain)
  }
  const { server } = await lab.store.db
    .selectFrom('server_disks')
    .select('server')
    .executeTakeFirstOrThrow()
  await lab.store.write(async (tx) => {
    const held = tx.updateTable('server_disks').set({ volume: b.target_volume })
    await held.where('server', '=', server).execute()
    await tx.updateTable('servers').set({ status: 'error' }).where('id', '=', server).execute()
  })
  assert.equal((await extend(2, 400))?.code, 'EVS.1066')
})

test('what sites say or no longer say changes the time of change with what is shown, and only then', async () => {
  const made = await insertGroupsInSync(lab.store, project, { groups: 1, pairsPerGroup: 2 })
  const [group] = made.groups
  assert.ok(group !== undefined)
  await lab.store.write((tx) =>
    tx.updateTable('protection_groups').set({ form: 'evs' }).where('id', '=', group.id).execute(),
  )
  const report = async () => await lab.agents.receive(reportOf('az1', made.sessions))
  type Look = readonly [unknown, unknown, unknown]
  const looks = async () => {
    const list = (await get(`${PAIRS()}?replication_consistency_group_id=${group.id}`))[
      'replications'
    ]
    const shown = (await get(`${GROUPS()}/${group.id}`)) as unknown as Record<string, Shown>
    const all = [...(list ?? []), shown['replication_consistency_group'] ?? {}]
    return all.map(
      (one): Look => [one['replication_status'], one['fault_level'], one['updated_at'] ?? ''],
    )
  }
  const since = async (time: unknown) =>
    (await get(`${PAIRS()}?changes-since=${String(time)}`))['replications']
      ?.map((one) => one['id'])
      .sort()
  const ids = made.pairs.map(({ id }) => id).sort()
  const passed = async (wanted: Look, before: readonly Look[]) => {
    lab.clock.advance(5_000)
    const now = await looks()
    for (const [at, [status, level, time]] of now.entries()) {
      assert.deepEqual([status, level], [wanted[0], wanted[1]])
      assert.ok(
        String(time) > String(before[at]?.[2]),
        `${String(time)} after ${String(before[at]?.[2])}`,
      )
    }
    // Nothing has changed since: the time stands, also for who asks what has changed.
    lab.clock.advance(500)
    if (wanted[0] === 'active') await report()
    assert.deepEqual(await looks(), now)
    assert.deepEqual(await since(now[0]?.[2]), ids)
    return now
  }
  await report()
  const first = await looks()
  assert.deepEqual(first[0]?.slice(0, 2), ['active', '0'])
  const silent = await passed(['inactive', '2', null], first)
  lab.clock.advance(5_000)
  await report()
  const heard = await looks()
  assert.deepEqual(heard[2]?.slice(0, 2), ['active', '0'])
  assert.ok(heard.every((one, at) => String(one[2]) > String(silent[at]?.[2])))
  await passed(['inactive', '2', null], heard)
})

test('how something was shown is written down while it exists, and shown also when it cannot be', async (t) => {
  const made = await insertGroupsInSync(lab.store, project, { groups: 1, pairsPerGroup: 1 })
  const [group] = made.groups
  assert.ok(group !== undefined)
  await lab.store.write((tx) =>
    tx.updateTable('protection_groups').set({ form: 'evs' }).where('id', '=', group.id).execute(),
  )
  const [deleted, id] = [newId(), group.id]
  const row = { shown: 'something', changed_at: 1 }
  await lab.store.write((tx) =>
    writeShown(
      tx,
      [deleted, id].map((id) => ({ id, ...row })),
    ),
  )
  assert.deepEqual([...(await readShown(lab.store.db, [deleted, id])).keys()], [id])

  const failing = t.mock.method(lab.store, 'write', async () => {
    throw new Fault(STORE_BUSY, 'writing')
  })
  const shown = (await get(`${GROUPS()}/${id}`)) as unknown as Record<string, Shown>
  assert.equal(shown['replication_consistency_group']?.['id'], id)
  assert.ok(failing.mock.callCount() > 0)
})

test('pairs that were to come into a group that fails are what they were: paused, replicating, or set going again', async () => {
  const now = lab.clock.wallMs()
  const { history_mark } = await readMeta(lab.store.db)
  /** What it was, what the operation left of it, and what it is to be. */
  const cases = [
    ['protected', 'updating', 'in_sync', 'protected', 'protected', 1, 'protected'],
    ['protected', 'updating', 'closed', 'available', 'starting', 0, 'starting'],
    ['protected', 'error-stopping', 'closed', 'error-stopping', 'starting', 1, 'starting'],
    ['available', 'updating', 'closed', 'available', 'available', 0, 'available'],
    ['error-stopping', 'error-stopping', 'closed', 'error-stopping', 'available', 1, 'available'],
    ['error-stopping', 'error-stopping', 'solo', 'error-stopping', 'protected', 1, 'protected'],
    ['error-starting', 'updating', 'resyncing', 'error-starting', 'starting', 1, 'starting'],
    ['error-starting', 'updating', 'closed', 'available', 'starting', 0, 'starting'],
  ] as const
  const group = groupRow(project, { form: 'evs', status: 'creating', name: 'failing' })
  const lones = cases.map(([, status]) =>
    groupRow(project, { form: 'lone', status, name: 'failing' }),
  )
  const pairs = cases.map(([, , , status, , in_session], at) =>
    pairRow(lones[at] ?? group, 1, { status, in_session, progress: 100, never_replicated: 0 }),
  )
  await insertRows(lab.store, { protection_groups: [group, ...lones], replication_pairs: pairs })
  const started: string[] = []
  const newcomers = cases.map(([was], at) => ({
    was,
    pair: pairs[at]?.id ?? '',
    lone: lones[at]?.id ?? '',
  }))
  const failure = { code: 'SUB_OPERATION_FAILED', message: 'no', step: 'pause' }
  await lab.store.write(async (tx) => {
    for (const [at, [, , state]] of cases.entries()) {
      const row = ownershipRow(lones[at] ?? group, history_mark, state)
      await tx.insertInto('ownership').values(row).execute()
    }
    const services = { clock: lab.clock }
    const context = { services, resourceId: group.id, input: { newcomers } } as never
    await gatherPairs.failed(tx, context, failure, async (kind, { resourceId, apart }) => {
      assert.deepEqual([kind.name, apart], ['group.start', true])
      started.push(resourceId)
      return newId()
    })
  })
  const { db } = lab.store
  for (const [at, [, , , , status, , pairStatus]] of cases.entries()) {
    const [lone, pair] = [lones[at]?.id ?? '', pairs[at]?.id ?? '']
    const found = await db
      .selectFrom('protection_groups')
      .selectAll()
      .where('id', '=', lone)
      .executeTakeFirstOrThrow()
    const own = await db
      .selectFrom('replication_pairs')
      .selectAll()
      .where('id', '=', pair)
      .executeTakeFirstOrThrow()
    assert.deepEqual([found.status, own.status], [status, pairStatus], JSON.stringify(cases[at]))
    assert.equal(started.includes(lone), status === 'starting')
    if (status === 'available') assert.equal(own.in_session, 0)
    assert.ok(found.updated_at >= now)
  }
  const failed = await db
    .selectFrom('protection_groups')
    .selectAll()
    .where('id', '=', group.id)
    .executeTakeFirstOrThrow()
  assert.deepEqual([failed.status, failed.failure_detail], ['error', failure.code])
})

/** The answer to a request that waits, with the clock moving on until it is there. */
async function patiently<T>(request: Promise<T>): Promise<T> {
  let done = false
  void request.finally(() => (done = true)).catch(() => {})
  while (!done) {
    lab.clock.advance(1_000)
    await new Promise((resolve) => setImmediate(resolve))
  }
  return await request
}

test('what still starts or stops after the wait is answered with 503, once for all groups, and never for those of others', async () => {
  const other = await lab.project('elsewhere')
  const make = (form: 'evs' | 'lone', status: string, of = project) =>
    groupRow(of, { form, status, name: 'slow' })
  const stopping = make('evs', 'stopping')
  const starting = make('evs', 'starting')
  const theirs = make('evs', 'starting', other)
  const lones = [make('lone', 'starting'), make('lone', 'stopping'), make('lone', 'starting')]
  const pairs = lones.map((lone) => pairRow(lone, 1, { status: lone.status }))
  await insertRows(lab.store, {
    protection_groups: [stopping, starting, theirs, ...lones],
    replication_pairs: pairs,
    volumes: lones.flatMap((lone, at) => disksOfPairs(lone, pairs.slice(at, at + 1))),
  })
  const action = (name: string) => ({ [`os-${name}-replication-consistency-group`]: null })
  const act = (id: string, name: string, status: number) =>
    post(`${GROUPS()}/${id}/action`, action(name), status)
  const grow = { 'os-extend-replication-volumes': { id: newId(), new_size: 2 } }
  const group = {
    replication_ids: pairs.map(({ id }) => id),
    priority_station: 'az1',
    replication_model: 'hypermetro',
  }
  const before = lab.clock.wallMs()
  for (const request of [
    act(stopping.id, 'stop', 503),
    act(starting.id, 'stop', 503),
    act(starting.id, 'failover', 503),
    post(`${GROUPS()}/${starting.id}/action`, grow, 503),
    post(GROUPS(), { replication_consistency_group: group }, 503),
  ]) {
    const { error } = await patiently(request)
    assert.equal(error?.code, 'EVS.5503')
    assert.match(error?.message ?? '', /paused.*Repeat/)
  }
  assert.ok(lab.clock.wallMs() > before + 20_000, 'the clock was waited for')
  await patiently(act(starting.id, 'sync', 200))

  // Not one poll: the clock stands.
  for (const id of [theirs.id, newId()]) {
    assert.equal((await act(id, 'stop', 404)).error?.code, 'EVS.5404')
    assert.equal((await post(`${GROUPS()}/${id}/action`, grow, 404)).error?.code, 'EVS.5404')
  }
})

test('a group gets no more pairs than one session has members', async () => {
  const group = groupRow(project, { form: 'evs', name: 'full' })
  const pairs = [pairRow(group, 1), pairRow(group, 2)] as const
  await insertRows(lab.store, {
    protection_groups: [group],
    replication_pairs: pairs,
    volumes: disksOfPairs(group, pairs),
  })
  const put = async (add: number, remove: readonly string[]) => {
    const change = {
      add_replication_ids: Array.from({ length: add }, () => newId()),
      remove_replication_ids: remove,
    }
    const body = { replication_consistency_group: change }
    const url = `${GROUPS()}/${group.id}`
    const headers = { 'x-auth-token': token }
    return await lab.call({ method: 'PUT', url, headers, body }, 'evs')
  }
  const full = await put(1_023, [])
  assert.deepEqual([full.status, /1024.*37100017/.test(full.text)], [409, true], full.text)
  // One place was made, and only then it is looked who comes.
  assert.equal((await put(1_023, [pairs[0].id])).status, 404)
  assert.equal((await put(1_025, [])).status, 400)
})

test('a site that has not said that it has a session no more is told again when its group is forgotten', async () => {
  const made = await insertGroupsInSync(lab.store, project, { groups: 2, pairsPerGroup: 1 })
  const [first, second] = made.groups
  assert.ok(first !== undefined && second !== undefined)
  const services = { agents: lab.agents, clock: lab.clock, witness: { forget: async () => {} } }
  const forget = (id: string) =>
    lab.store.write((tx) => forgetSession(tx, { services } as never, id))
  const told = async (site: string) =>
    (await listChores(lab.store.db, site)).map(({ request }) => JSON.parse(request).record.session)
  // Both are heard; one still has the first session, as after a silence in which it was ended.
  await lab.agents.receive(reportOf('az1', made.sessions.slice(0, 1)))
  await lab.agents.receive(reportOf('az2', []))
  await forget(first.id)
  await forget(second.id)
  assert.deepEqual([await told('az1'), await told('az2')], [[first.id], []])
  lab.clock.advance(5_000)
  await forget(second.id)
  assert.deepEqual([await told('az1'), await told('az2')], [[first.id, second.id], [second.id]])
})

test('a type that a site did not take is taken back, but not from one disk of a pair', async () => {
  const volumes = [null, newId()].map((pair) =>
    volumeRow(project, 'az1', { volume_type: 'ESSD', pair }),
  )
  await insertRows(lab.store, { volumes })
  const failure = { code: 'SITE_REFUSED', message: 'no', step: 'limit' }
  const types: string[] = []
  for (const { id } of volumes) {
    const input = { from: 'SSD', to: 'ESSD' }
    const context = { services: { clock: lab.clock }, resourceId: id, input } as never
    await lab.store.write((tx) => retypeVolume.failed(tx, context, failure, async () => ''))
    const query = lab.store.db.selectFrom('volumes').select('volume_type').where('id', '=', id)
    types.push((await query.executeTakeFirstOrThrow()).volume_type)
  }
  assert.deepEqual(types, ['SSD', 'ESSD'])
})

test('a group whose update failed is as paused as before: it is synced, or fails over by force', async () => {
  const { history_mark } = await readMeta(lab.store.db)
  const force = { 'os-failover-replication-consistency-group': { force: true } }
  for (const [value, status, over, form = 'evs'] of [
    [force, 'failing-over', 'own'],
    // A stopped group of SDRS too, which has no such action.
    [force, 'failing-over', 'own', 'sdrs'],
    [{ 'os-sync-replication-consistency-group': null }, 'starting', 'evs'],
    [force, 'failing-over', 'evs'],
  ] as const) {
    const stuck = form === 'evs' ? 'error-updating' : 'available'
    const group = groupRow(project, { form, name: 'stuck', status: stuck })
    const pair = pairRow(group, 1, { progress: 100, added_epoch: 2, never_replicated: 0 })
    await insertRows(lab.store, {
      protection_groups: [group],
      replication_pairs: [pair],
      volumes: disksOfPairs(group, [pair]),
    })
    await lab.store.write((tx) =>
      tx
        .insertInto('ownership')
        .values(ownershipRow(group, history_mark, 'closed'))
        .execute(),
    )
    const own = (body: object) => native('POST', `groups/${group.id}/failover`, body)
    const ahead = async (force: boolean) =>
      (await native('GET', `groups/${group.id}/preflight?action=failover&force=${force}`)).body
        .preflight
    await lab.agents.receive(reportOf('az2', []))
    if (over === 'own') {
      // Over our own interface too: the same checks, in the words of its preflight.
      const refused = await own({})
      assert.deepEqual([refused.status, refused.body.error.code], [409, 'FORCE_NEEDED'])
      const { accepted, needs, blockers } = await ahead(false)
      assert.deepEqual([accepted, needs, blockers[0].code], [false, ['force'], 'FORCE_NEEDED'])
      assert.equal((await ahead(true)).accepted, true)
      assert.equal((await native('POST', `groups/${newId()}/failover`, {})).status, 404)
      const { status: answered, body } = await own({ force: true })
      assert.equal(answered, 202)
      const { kind } = (await native('GET', `operations/${body.operation_id}`)).body.operation
      assert.equal(kind, 'group.failover-paused')
    } else await post(`${GROUPS()}/${group.id}/action`, value, 200)
    const query = lab.store.db.selectFrom('protection_groups').select('status')
    const row = await query.where('id', '=', group.id).executeTakeFirstOrThrow()
    assert.equal(row.status, status)
  }
})

test('one disk of a pair that replicates is changed through no door, and is the same afterwards', async () => {
  const group = groupRow(project, { status: 'protected', name: 'doors' })
  const pair = pairRow(group, 1, { in_session: 1, status: 'protected' })
  const volumes = disksOfPairs(group, [pair])
  const { source_volume: production, target_volume: dr } = pair
  const snapshot = newId()
  await insertRows(lab.store, { protection_groups: [group], replication_pairs: [pair], volumes })
  await lab.store.write((tx) =>
    tx
      .insertInto('snapshots')
      .values({
        id: snapshot,
        project,
        name: 's',
        description: null,
        metadata: '{}',
        size_gb: 1,
        group_id: null,
        site: 'az1',
        volumes: JSON.stringify([production]),
        status: 'available',
        facts: null,
        failure_detail: null,
        created_at: 1,
        updated_at: 1,
      })
      .execute(),
  )
  const send = async (method: 'POST' | 'DELETE', path: string, body: unknown) => {
    const url = path.replace('{project}', project)
    const given = body === undefined ? {} : { body }
    return await lab.call({ method, url, headers: { 'x-auth-token': token }, ...given })
  }
  const state = async () => [
    await lab.store.db.selectFrom('volumes').selectAll().orderBy('id').execute(),
    await lab.store.db.selectFrom('snapshots').selectAll().execute(),
  ]
  const before = await state()
  const extend = { 'os-extend': { new_size: 100 } }
  const retype = { 'os-retype': { new_type: 'ESSD' } }
  const attach = { 'os-attach': { instance_uuid: newId(), mountpoint: '/dev/vdb' } }
  for (const volume of [production, dr]) {
    const doors: [string, unknown][] = [
      ...['/v2', '/v3'].flatMap((version): [string, unknown][] => {
        const path = `${version}/{project}/volumes/${volume}`
        const readOnly = { 'os-update_readonly_flag': { readonly: true } }
        return [
          [path, undefined],
          [`${path}/action`, extend],
          [`${path}/action`, retype],
          [`${path}/action`, readOnly],
          ...(volume === dr
            ? ([
                [`${path}/action`, attach],
                [`${path}/action`, { 'os-reserve': {} }],
              ] as const)
            : []),
        ] as [string, unknown][]
      }),
      [`/v2/{project}/volumes/${volume}/retype`, retype],
      ...['/v2', '/v2.1'].flatMap((version): [string, unknown][] => [
        [`${version}/{project}/cloudvolumes/${volume}`, undefined],
        [`${version}/{project}/cloudvolumes/${volume}/action`, extend],
      ]),
    ]
    for (const [path, body] of doors) {
      const reply = await send(body === undefined ? 'DELETE' : 'POST', path, body)
      const found = [reply.status, reply.body?.error?.code]
      assert.deepEqual(found, [400, 'EVS.2089'], `${path} ${JSON.stringify(body)}: ${reply.text}`)
    }
  }
  const rollback = `/v2/{project}/cloudsnapshots/${snapshot}/rollback`
  const refused = await send('POST', rollback, { rollback: { volume_id: production } })
  assert.deepEqual([refused.status, refused.body?.error?.code], [400, 'EVS.2089'])
  assert.deepEqual(await state(), before)
})
