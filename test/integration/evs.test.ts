import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import { connectNbd } from '#client/nbd/client.ts'
import { setQuotaLimit } from '#control/resources/surroundings.ts'
import { PROJECT, Region } from '../support/region.ts'

/** Volumes over the API, backed by files of a real agent; every answer is held against the contract. */
let region: Region
before(async () => {
  region = await Region.start()
})
after(async () => await region.stop())

const VOLUMES = '/v2/{project}/volumes'
const GIB = 1_073_741_824

async function refused(
  method: string,
  path: string,
  body: unknown,
  code: string,
  status = 400,
): Promise<void> {
  const before = await region.snapshot()
  const reply = await region.call(method, path, body)
  const where = `${method} ${path} ${JSON.stringify(body)} → ${JSON.stringify(reply.body)}`
  assert.equal(reply.body?.error?.code, code, where)
  assert.equal(reply.status, status, where)
  assert.equal(await region.snapshot(), before, `${where} changed something`)
}

async function deleteVolume(id: string): Promise<void> {
  assert.equal((await region.call('DELETE', `${VOLUMES}/${id}`)).status, 202)
  await region.until('the volume is gone', async () => {
    return (await region.call('GET', `${VOLUMES}/${id}`)).status === 404
  })
}

test('a volume is created, exported over NBD, grown and deleted', async () => {
  const created = await region.ok(
    'POST',
    VOLUMES,
    {
      volume: {
        name: 'Größe',
        description: 'd',
        size: 1,
        availability_zone: 'az1',
        volume_type: 'SAS',
        metadata: { a: 'b' },
        snapshot_id: null,
        imageRef: null,
        consistencygroup_id: null,
        shoe_size: 44,
      },
    },
    202,
  )
  const { id } = created.volume
  assert.equal(created.volume.status, 'creating')
  await region.until('available', async () => {
    return (await region.ok('GET', `${VOLUMES}/${id}`)).volume.status === 'available'
  })
  const { volume } = await region.ok('GET', `${VOLUMES}/${id}`)
  assert.equal(volume.name, 'Größe')
  assert.equal(volume.bootable, 'false')
  assert.deepEqual(volume.metadata, { a: 'b' })
  assert.equal(volume.volume_type, 'SAS')
  assert.equal(volume['os-vol-tenant-attr:tenant_id'], PROJECT)

  const address = { unix: region.socket('az1') }
  const client = await connectNbd(address, { exportName: id })
  assert.equal(client.sizeBytes, GIB)
  await client.disconnect()

  const extend = { 'os-extend': { new_size: 3 } }
  assert.equal((await region.call('POST', `${VOLUMES}/${id}/action`, extend)).status, 202)
  await region.until('grown', async () => {
    const shown = (await region.ok('GET', `${VOLUMES}/${id}`)).volume
    return shown.size === 3 && shown.status === 'available'
  })
  const grown = await connectNbd(address, { exportName: id })
  assert.equal(grown.sizeBytes, 3 * GIB)
  await grown.disconnect()

  await deleteVolume(id)
  await assert.rejects(connectNbd(address, { exportName: id }))
})

test('a wrong value in any member of a new volume has its code and changes nothing', async () => {
  const cases: [object, string, number?][] = [
    [{ name: 'ä'.repeat(128) }, 'EVS.1003'],
    [{ name: 7 }, 'EVS.1003'],
    [{ description: 'x'.repeat(256) }, 'EVS.1004'],
    [{ description: {} }, 'EVS.1004'],
    [{ size: 0 }, 'EVS.1010'],
    [{ size: -1 }, 'EVS.1010'],
    [{ size: '1' }, 'EVS.1010'],
    [{ size: null }, 'EVS.1010'],
    [{ size: 32_769 }, 'EVS.1010'],
    [{ availability_zone: 'az3' }, 'EVS.1036'],
    [{ availability_zone: 7 }, 'EVS.1036'],
    [{ volume_type: 'TAPE' }, 'EVS.2070'],
    [{ volume_type: 7 }, 'EVS.1020'],
    [{ count: 0 }, 'EVS.1021'],
    [{ count: 101 }, 'EVS.1021'],
    [{ count: 1.5 }, 'EVS.1021'],
    [{ multiattach: 'maybe' }, 'EVS.1054'],
    [{ metadata: [] }, 'EVS.1018'],
    [{ metadata: { a: 1 } }, 'EVS.1018'],
    [{ metadata: { a: 'x'.repeat(256) } }, 'EVS.5400'],
    [{ metadata: { __system__encrypted: '1' } }, 'EVS.2041'],
    [{ snapshot_id: newId() }, 'EVS.2045'],
    [{ imageRef: newId() }, 'EVS.2046'],
    [{ source_volid: newId() }, 'EVS.5404', 404],
    [{ source_volid: 'x' }, 'EVS.5404', 404],
    [{ snapshot_id: 'x' }, 'EVS.2045'],
    [{ snapshot_id: newId(), metadata: { 'hw:passthrough': 'true' } }, 'EVS.1043'],
    [{ metadata: { 'hw:passthrough': 'yes' } }, 'EVS.1057'],
    [{ metadata: { full_clone: '2' } }, 'EVS.1063'],
    [{ backup_id: newId() }, 'EVS.1006'],
    [{ snapshot_id: newId(), imageRef: newId() }, 'EVS.1016'],
  ]
  for (const [over, code, status] of cases) {
    const volume = { name: 'v', size: 1, availability_zone: 'az1', ...over }
    for (const path of [VOLUMES, '/v3/{project}/volumes', '/v2/{project}/cloudvolumes']) {
      await refused('POST', path, { volume }, code, status)
    }
  }
  for (const body of [undefined, null, {}, { volume: null }]) {
    await refused('POST', VOLUMES, body, 'EVS.1008')
  }
  for (const body of [[], 'x', { volume: [] }, { volume: 7 }]) {
    await refused('POST', VOLUMES, body, 'EVS.1009')
  }
})

test('a size with a fraction is cut off, and the zone and type have defaults', async () => {
  const { volume } = await region.ok('POST', VOLUMES, { volume: { size: 1.9 } }, 202)
  assert.equal(volume.size, 1)
  assert.equal(volume.availability_zone, 'az1')
  assert.equal(volume.volume_type, 'SSD')
  await region.until('available', async () => {
    return (await region.ok('GET', `${VOLUMES}/${volume.id}`)).volume.status === 'available'
  })
  await deleteVolume(volume.id)
})

test('several volumes of one request are numbered', async () => {
  const body = { volume: { name: 'many', size: 1, availability_zone: 'az2', count: 3 } }
  const { volume } = await region.ok('POST', VOLUMES, body, 202)
  assert.equal(volume.name, 'many-0001')
  const list = await region.ok('GET', `${VOLUMES}/detail?sort_key=created_at&sort_dir=asc`)
  const names = list.volumes.map((one: { name: string }) => one.name)
  assert.deepEqual(names.sort(), ['many-0001', 'many-0002', 'many-0003'])
  for (const { id } of list.volumes) {
    await region.until('available', async () => {
      return (await region.ok('GET', `${VOLUMES}/${id}`)).volume.status === 'available'
    })
    await deleteVolume(id)
  }
})

test('volumes are listed with filters, order and pages that link on', async () => {
  const ids = []
  for (const name of ['a', 'b', 'c']) ids.push(await region.volume(name))
  ids.push(await region.volume('d', 2, 'az2'))
  const names = async (query: string, path = VOLUMES) =>
    (await region.ok('GET', `${path}?${query}`)).volumes.map((one: { name: string }) => one.name)
  assert.deepEqual(await names('name=b'), ['b'])
  assert.deepEqual(await names('availability_zone=az2'), ['d'])
  assert.deepEqual(await names('status=error'), [])
  assert.deepEqual((await names('sort_key=size&sort_dir=asc')).at(-1), 'd')
  assert.deepEqual((await names('sort=size:desc'))[0], 'd')
  assert.deepEqual((await names('all_tenants=1&with_count=x')).length, 4)

  const seen: string[] = []
  for (let path = `${VOLUMES}?limit=3`; path !== ''; ) {
    const page = await region.ok('GET', path)
    seen.push(...page.volumes.map((one: { id: string }) => one.id))
    const next = page.volumes_links?.[0]
    assert.equal(next === undefined, seen.length === 4)
    path = next === undefined ? '' : new URL(next.href).pathname + new URL(next.href).search
  }
  assert.deepEqual([...seen].sort(), [...ids].sort())
  const detail = await region.ok('GET', '/v2/{project}/cloudvolumes/detail?limit=1')
  assert.equal(detail.count, 4)
  assert.equal(detail.volumes.length, 1)

  for (const [query, code] of [
    ['limit=0', 'EVS.5400'],
    ['limit=-1', 'EVS.5400'],
    ['limit=x', 'EVS.5400'],
    ['limit=1001', 'EVS.2142'],
    ['offset=-1', 'EVS.5400'],
    ['marker=x', 'EVS.1024'],
    ['sort_key=name', 'EVS.1039'],
    ['sort=colour:asc', 'EVS.1039'],
    ['sort_dir=up', 'EVS.1040'],
    ['availability_zone=az3', 'EVS.1041'],
    ['metadata=x', 'EVS.1025'],
  ]) {
    await refused('GET', `${VOLUMES}/detail?${query}`, undefined, code as string)
  }
  await refused('GET', `${VOLUMES}?marker=${newId()}`, undefined, 'EVS.5404', 404)
  for (const id of ids) await deleteVolume(id)
})

test('a volume is renamed, marked, attached and detached', async () => {
  const id = await region.volume('before')
  const path = `${VOLUMES}/${id}`
  const update = async (volume: object) => (await region.ok('PUT', path, { volume })).volume
  assert.equal((await update({ name: 'after', metadata: { k: 'v' } })).name, 'after')
  assert.equal((await update({ description: 'text' })).description, 'text')
  assert.deepEqual((await update({ display_name: 'shown' })).metadata, { k: 'v' })
  await refused('PUT', path, {}, 'EVS.1001')
  await refused('PUT', path, { volume: {} }, 'EVS.1001')
  await refused('PUT', path, { volume: { name: 'x'.repeat(256) } }, 'EVS.1003')

  const act = async (body: object) => (await region.call('POST', `${path}/action`, body)).status
  assert.equal(await act({ 'os-set_bootable': { bootable: true } }), 200)
  assert.equal(await act({ 'os-reserve': null }), 202)
  assert.equal(await act({ 'os-unreserve': {} }), 202)
  const server = newId()
  assert.equal(await act({ 'os-attach': { instance_uuid: server, mountpoint: '/dev/vdb' } }), 202)
  const { volume } = await region.ok('GET', path)
  assert.equal(volume.status, 'in-use')
  assert.equal(volume.bootable, 'true')
  assert.equal(volume.attachments[0].server_id, server)
  await refused('DELETE', path, undefined, 'EVS.1046')
  assert.equal(await act({ 'os-detach': {} }), 202)
  for (const body of [
    {},
    { 'os-extend': {}, 'os-reserve': {} },
    { 'os-unknown': {} },
    { 'os-reserve': 7 },
    { 'os-attach': {} },
    { 'os-set_bootable': { bootable: 'true' } },
    { 'os-detach': { attachment_id: 7 } },
  ]) {
    await refused('POST', `${path}/action`, body, 'EVS.5400')
  }
  await refused('POST', `${path}/action`, { 'os-extend': {} }, 'EVS.1011')
  for (const [new_size, code] of [
    [1, 'EVS.1015'],
    [0, 'EVS.1010'],
    ['2', 'EVS.1010'],
    [2_000, 'EVS.1010'],
  ] as const) {
    await refused('POST', `${path}/action`, { 'os-extend': { new_size } }, code)
  }
  await deleteVolume(id)
})

test('properties of a volume are set and unset one by one', async () => {
  const id = await region.volume('marked')
  const path = `/v3/{project}/volumes/${id}/metadata`
  const set = async (metadata: unknown) => (await region.call('POST', path, { metadata })).body
  assert.deepEqual(await set({ a: '1', b: '2' }), { metadata: { a: '1', b: '2' } })
  assert.deepEqual(await set({ b: '3' }), { metadata: { a: '1', b: '3' } })
  assert.equal((await set({ c: 7 })).error.code, 'EVS.1018')
  assert.equal((await set(undefined)).error.code, 'EVS.5400')
  assert.equal((await region.call('DELETE', `${path}/a`)).status, 200)
  assert.equal((await region.call('DELETE', `${path}/a`)).status, 404)
  assert.deepEqual((await region.call('GET', path)).body, { metadata: { b: '3' } })
  assert.deepEqual((await region.ok('GET', `${VOLUMES}/${id}`)).volume.metadata, { b: '3' })
  await deleteVolume(id)
})

test('an unknown or malformed id is not found', async () => {
  for (const id of [newId(), 'some-name', newId().toUpperCase(), 'x'.repeat(400)]) {
    for (const [method, path, body] of [
      ['GET', `${VOLUMES}/${id}`, undefined],
      ['PUT', `${VOLUMES}/${id}`, { volume: { name: 'n' } }],
      ['DELETE', `${VOLUMES}/${id}`, undefined],
      ['POST', `${VOLUMES}/${id}/action`, { 'os-extend': { new_size: 2 } }],
      ['GET', `/v3/{project}/volumes/${id}`, undefined],
      ['GET', `/v2/{project}/types/${id}`, undefined],
      ['GET', `/v2/{project}/snapshots/${id}`, undefined],
    ] as const) {
      await refused(method, path, body, 'EVS.5404', 404)
    }
  }
  await refused('GET', '/v2/{project}/cloudvolumes/x', undefined, 'EVS.1002')
})

test('the native form answers with jobs', async () => {
  for (const version of ['v2', 'v2.1', 'v3']) {
    const created = await region.ok(
      'POST',
      `/${version}/{project}/cloudvolumes`,
      { volume: { name: 'n', size: 1, availability_zone: 'az1', volume_type: 'SSD' } },
      version === 'v2.1' ? 202 : 200,
    )
    await region.plane.operations.waitFor(created.job_id)
    const job = await region.ok('GET', `/v1/{project}/jobs/${created.job_id}`)
    assert.equal(job.job_type, 'createVolume')
    assert.equal(job.status, 'SUCCESS')
    const id = job.entities.volume_id
    assert.deepEqual(created.volume_ids, [id])
    const path = `/v2/{project}/cloudvolumes/${id}`
    const renamed = await region.ok('PUT', path, { volume: { name: 'm' } })
    assert.equal(renamed.name, 'm')
    await refused('PUT', path, { volume: {} }, 'EVS.1007')
    const extended = await region.ok('POST', `${path}/action`, { 'os-extend': { new_size: 2 } })
    await region.plane.operations.waitFor(extended.job_id)
    assert.equal((await region.ok('GET', path)).volume.size, 2)
    const deleted = await region.ok('DELETE', path)
    await region.plane.operations.waitFor(deleted.job_id)
    assert.equal((await region.call('GET', path)).status, 404)
  }
})

test('types, zones, quotas, extensions and empty lists answer', async () => {
  for (const version of ['v2', 'v3']) {
    const base = `/${version}/{project}`
    const { volume_types } = await region.ok('GET', `${base}/types`)
    const names = volume_types.map((one: { name: string }) => one.name)
    for (const name of ['SSD', 'SAS', 'SATA']) assert.ok(names.includes(name), name)
    const [first] = volume_types
    const shown = await region.ok('GET', `${base}/types/${first.id}`)
    assert.deepEqual(shown.volume_type, first)
    const zones = (await region.ok('GET', `${base}/os-availability-zone`)).availabilityZoneInfo
    assert.deepEqual(zones, [
      { zoneName: 'az1', zoneState: { available: true } },
      { zoneName: 'az2', zoneState: { available: true } },
    ])
    const quota = (await region.ok('GET', `${base}/os-quota-sets/${PROJECT}?usage=True`)).quota_set
    assert.equal(quota.id, PROJECT)
    assert.equal(quota.volumes.limit, -1)
    assert.deepEqual(await region.ok('GET', `${base}/extensions`), { extensions: [] })
  }
  assert.deepEqual(await region.ok('GET', '/v2/{project}/os-vendor-replications'), {
    replications: [],
  })
  await refused('GET', `/v2/{project}/os-quota-sets/${newId()}`, undefined, 'EVS.0001')
  await refused('POST', '/v2/{project}/snapshots', { snapshot: {} }, 'EVS.1002')
  await refused('POST', '/v2/{project}/os-vendor-replications', {}, 'EVS.5400')
})

test('quotas of disks and gigabytes refuse what exceeds them', async () => {
  const { store } = region.plane
  const volume = { name: 'q', size: 5, availability_zone: 'az1' }
  await store.write((tx) => setQuotaLimit(tx, PROJECT, 'gigabytes', 4))
  await refused('POST', VOLUMES, { volume }, 'EVS.5413', 413)
  await refused('POST', '/v2/{project}/cloudvolumes', { volume }, 'EVS.1042')
  await store.write((tx) => setQuotaLimit(tx, PROJECT, 'gigabytes', -1))
  await store.write((tx) => setQuotaLimit(tx, PROJECT, 'volumes', 0))
  await refused('POST', VOLUMES, { volume }, 'EVS.5413', 413)
  await refused('POST', '/v2/{project}/cloudvolumes', { volume }, 'EVS.1034')
  await store.write((tx) => setQuotaLimit(tx, PROJECT, 'volumes', -1))
})
