import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import { connectNbd } from '#client/nbd/client.ts'
import { Region } from '../support/region.ts'

/** Snapshots of one disk over the volume API, taken by a real agent; every answer is held against the contract. */
let region: Region
before(async () => {
  region = await Region.start()
})
after(async () => await region.stop())

const VOLUMES = '/v2/{project}/volumes'
const PATHS = ['/v2/{project}/snapshots', '/v3/{project}/snapshots', '/v2/{project}/cloudsnapshots']

async function newVolume(): Promise<string> {
  const { volume } = await region.ok(
    'POST',
    VOLUMES,
    { volume: { size: 1, availability_zone: 'az1' } },
    202,
  )
  await region.until('the disk is available', async () => {
    return (await region.ok('GET', `${VOLUMES}/${volume.id}`)).volume.status === 'available'
  })
  return volume.id
}

async function newSnapshot(path: string, snapshot: object): Promise<string> {
  const created = await region.ok('POST', path, { snapshot }, 202)
  assert.equal(created.snapshot.status, 'creating')
  const { id } = created.snapshot
  await region.until('the snapshot is available', async () => {
    return (await region.ok('GET', `${path}/${id}`)).snapshot.status === 'available'
  })
  return id
}

async function content(volume: string): Promise<string> {
  const client = await connectNbd({ unix: region.socket('az1') }, { exportName: volume })
  const bytes = await client.read(0, 4096)
  await client.disconnect()
  return Buffer.from(bytes).toString('latin1', 0, 5)
}

async function write(volume: string, text: string): Promise<void> {
  const client = await connectNbd({ unix: region.socket('az1') }, { exportName: volume })
  await client.write(0, Buffer.alloc(4096, text))
  await client.flush()
  await client.disconnect()
}

test('a snapshot is taken, shown, renamed, rolled back to and deleted, in each form of the API', async () => {
  for (const path of PATHS) {
    const volume = await newVolume()
    await write(volume, 'first')
    const id = await newSnapshot(path, {
      volume_id: volume,
      name: 'before',
      description: 'of the change',
      metadata: { a: 'b' },
      force: false,
    })
    await write(volume, 'later')
    const { snapshot } = await region.ok('GET', `${path}/${id}`)
    assert.deepEqual(
      [snapshot.name, snapshot.description, snapshot.volume_id, snapshot.size, snapshot.metadata],
      ['before', 'of the change', volume, 1, { a: 'b' }],
    )
    const renamed = await region.ok('PUT', `${path}/${id}`, { snapshot: { name: 'old' } })
    assert.equal(renamed.snapshot.name, 'old')

    const rollback = { rollback: { volume_id: volume } }
    await region.ok('POST', `/v2/{project}/cloudsnapshots/${id}/rollback`, rollback, 202)
    await region.until('rolled back', async () => {
      return (await region.ok('GET', `${path}/${id}`)).snapshot.status === 'available'
    })
    assert.equal(await content(volume), 'first')

    assert.equal((await region.call('DELETE', `${path}/${id}`)).status, 202)
    await region.until('the snapshot is gone', async () => {
      return (await region.call('GET', `${path}/${id}`)).status === 404
    })
  }
})

test('a disk is made from a snapshot or from another disk, larger if asked, and is no part of either', async () => {
  const origin = await newVolume()
  await write(origin, 'first')
  const snapshot = await newSnapshot('/v2/{project}/snapshots', { volume_id: origin })
  await write(origin, 'later')
  const make = async (volume: object) => {
    const { job_id, volume_ids } = await region.ok('POST', '/v2/{project}/cloudvolumes', { volume })
    await region.plane.operations.waitFor(job_id)
    const job = await region.ok('GET', `/v1/{project}/jobs/${job_id}`)
    assert.equal(job.status, 'SUCCESS', JSON.stringify(job))
    return volume_ids as string[]
  }
  const of = async (id: string) => (await region.ok('GET', `${VOLUMES}/${id}`)).volume
  const [old = ''] = await make({ snapshot_id: snapshot, size: 2, volume_type: 'SAS' })
  assert.equal(await content(old), 'first')
  const shown = await of(old)
  assert.deepEqual(
    [shown.size, shown.snapshot_id, shown.volume_type, shown.availability_zone],
    [2, snapshot, 'SAS', 'az1'],
  )
  const grown = await connectNbd({ unix: region.socket('az1') }, { exportName: old })
  assert.equal(grown.sizeBytes, 2 * 1_073_741_824)
  await grown.disconnect()

  const copies = await make({ source_volid: origin, availability_zone: 'az1', count: 2 })
  for (const id of copies) assert.equal(await content(id), 'later')
  assert.equal((await of(copies[0] ?? '')).size, 1)

  await write(old, 'alone')
  assert.equal(await content(origin), 'later')
  assert.equal((await region.call('DELETE', `/v2/{project}/snapshots/${snapshot}`)).status, 202)
  await region.until('the snapshot is gone', async () => {
    return (await region.call('GET', `/v2/{project}/snapshots/${snapshot}`)).status === 404
  })
  assert.equal(await content(old), 'alone')
  // Nothing of the snapshots that the copies were made of is left, so the disk may go.
  assert.equal((await region.call('DELETE', `${VOLUMES}/${origin}`)).status, 202)
  await region.until('the disk is gone', async () => {
    return (await region.call('GET', `${VOLUMES}/${origin}`)).status === 404
  })
})

test('a disk is not made from a snapshot that does not fit', async () => {
  const volume = await newVolume()
  const snapshot = await newSnapshot('/v2/{project}/snapshots', { volume_id: volume })
  await region.ok('POST', `${VOLUMES}/${volume}/action`, { 'os-extend': { new_size: 3 } }, 202)
  await region.until('grown', async () => {
    return (await region.ok('GET', `${VOLUMES}/${volume}`)).volume.size === 3
  })
  for (const [wanted, code] of [
    [{ snapshot_id: snapshot, availability_zone: 'az2' }, 'EVS.2054'],
    [{ source_volid: volume, size: 2 }, 'EVS.1010'],
    [{ snapshot_id: snapshot, source_volid: volume }, 'EVS.1016'],
  ] as const) {
    const before = await region.snapshot()
    const { status, body } = await region.call('POST', VOLUMES, { volume: wanted })
    assert.deepEqual([status, body.error.code], [400, code], JSON.stringify(wanted))
    assert.equal(await region.snapshot(), before)
  }
})

test('properties of a snapshot are set and unset one by one', async () => {
  const id = await newSnapshot('/v2/{project}/snapshots', {
    volume_id: await newVolume(),
    metadata: { kept: '1' },
  })
  const path = `/v2/{project}/snapshots/${id}/metadata`
  const set = await region.ok('POST', path, { metadata: { a: 'b' } })
  assert.deepEqual(set.metadata, { kept: '1', a: 'b' })
  await region.call('DELETE', `${path}/a`)
  assert.deepEqual((await region.ok('GET', path)).metadata, { kept: '1' })
  assert.equal((await region.call('DELETE', `${path}/a`)).status, 404)
})

test('lists are filtered, paged by marker, and counted', async () => {
  const [one, other] = [await newVolume(), await newVolume()]
  const path = '/v2/{project}/snapshots'
  for (const name of ['a', 'b', 'c']) await newSnapshot(path, { volume_id: one, name })
  await newSnapshot(path, { volume_id: other, name: 'a' })
  const names = async (query: string) => {
    const { snapshots } = await region.ok('GET', `${path}/detail?${query}`)
    return snapshots.map(({ name }: { name: string }) => name).toSorted()
  }
  assert.deepEqual(await names(`volume_id=${one}`), ['a', 'b', 'c'])
  assert.deepEqual(await names(`volume_id=${other}`), ['a'])
  assert.deepEqual(await names(`volume_id=${one}&name=b`), ['b'])
  assert.deepEqual(await names(`volume_id=${one}&status=error`), [])
  assert.deepEqual(await names(`volume_id=${one}&availability_zone=az2`), [])
  const seen: string[] = []
  let query = `volume_id=${one}&limit=2`
  for (;;) {
    const page = await region.ok('GET', `${path}?${query}`)
    seen.push(...page.snapshots.map(({ name }: { name: string }) => name))
    if (page.snapshots_links === undefined) break
    query = new URL(page.snapshots_links[0].href).search.slice(1)
  }
  assert.deepEqual(seen.toSorted(), ['a', 'b', 'c'])
  const native = await region.ok(
    'GET',
    `/v2/{project}/cloudsnapshots/detail?volume_id=${one}&limit=1`,
  )
  assert.deepEqual([native.count, native.snapshots.length], [3, 1])
})

test('what cannot be done is refused with its code and changes nothing', async () => {
  const [volume, other] = [await newVolume(), await newVolume()]
  const path = '/v2/{project}/snapshots'
  const id = await newSnapshot(path, { volume_id: volume, name: 's' })
  const rollback = `/v2/{project}/cloudsnapshots/${id}/rollback`
  const cases: [string, string, unknown, number, string][] = [
    ['POST', path, { snapshot: { volume_id: newId() } }, 404, 'EVS.5404'],
    ['POST', path, { snapshot: { volume_id: 'x' } }, 400, 'EVS.1002'],
    ['POST', path, { snapshot: { volume_id: volume, name: 'x'.repeat(256) } }, 400, 'EVS.1003'],
    ['POST', path, {}, 400, 'EVS.5400'],
    ['PUT', `${path}/${id}`, { snapshot: {} }, 400, 'EVS.1001'],
    ['PUT', `${path}/${newId()}`, { snapshot: { name: 'n' } }, 404, 'EVS.5404'],
    ['DELETE', `${path}/${newId()}`, undefined, 404, 'EVS.5404'],
    ['DELETE', `${path}/s`, undefined, 404, 'EVS.5404'],
    ['POST', rollback, { rollback: { volume_id: other } }, 400, 'EVS.5400'],
    ['POST', rollback, {}, 400, 'EVS.5400'],
  ]
  for (const [method, url, body, status, code] of cases) {
    const before = await region.snapshot()
    const reply = await region.call(method, url, body)
    const where = `${method} ${url} → ${JSON.stringify(reply.body)}`
    assert.deepEqual([reply.status, reply.body?.error?.code], [status, code], where)
    assert.equal(await region.snapshot(), before, where)
  }
  const attach = { 'os-attach': { instance_uuid: newId(), mountpoint: '/dev/vdb' } }
  assert.equal((await region.call('POST', `${VOLUMES}/${volume}/action`, attach)).status, 202)
  const refused = await region.call('POST', rollback, { rollback: { volume_id: volume } })
  assert.deepEqual([refused.status, refused.body.error.code], [400, 'EVS.5400'])
})
