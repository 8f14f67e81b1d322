import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, open, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { ExportTable } from '#agent/nbd/exports.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import type { FillInfo } from '#wire/site/servers.ts'
import { type Images, openImages } from './images.ts'

const MIB = 1024 * 1024
const log = createLog('test', 'silent')

let directory: string
let volumes: VolumeStore
let exports: ExportTable
let images: Images
let snapshots: Set<string>

const at = (...parts: string[]) => join(directory, ...parts)
const dataOf = (volume: string) => readFile(at('volumes', volume, 'data'))

async function start(): Promise<void> {
  volumes = await openFileVolumeStore({ directory: at('volumes'), log, wallMs: () => 1_000 })
  exports = new ExportTable()
  images = await openImages({
    directory: at('images'),
    fillDirectory: at('fills'),
    volumes,
    exports,
    hasSnapshots: (volume) => snapshots.has(volume),
    log,
  })
  await images.fills.start()
}

async function stop(): Promise<void> {
  await images.close()
  await volumes.close()
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-fills-'))
  snapshots = new Set()
  await start()
})

afterEach(async () => {
  await stop()
  await rm(directory, { recursive: true })
})

/** An image of the operator: data, a hole, zeroes that are stored, data. */
async function ownImage(name: string, sizeBytes = 8 * MIB): Promise<Buffer> {
  const content = Buffer.alloc(sizeBytes)
  randomBytes(MIB + 512).copy(content, 0)
  randomBytes(MIB).copy(content, sizeBytes - MIB)
  const file = await open(at('images', `${name}.raw`), 'w')
  await file.truncate(sizeBytes)
  await file.write(content, 0, MIB + 512, 0)
  await file.write(Buffer.alloc(MIB), 0, MIB, 3 * MIB)
  await file.write(content, sizeBytes - MIB, MIB, sizeBytes - MIB)
  await file.close()
  return content
}

const newVolume = (id: string, sizeBytes = 16 * MIB) =>
  volumes.create(id, sizeBytes, { mode: 'standalone' })

const fill = (volume: string, image: string, id = 'fill-1') =>
  images.commands.fillVolume({ volume, image, fill: id })

/** As the control plane does: repeats until it is filled. */
async function filled(volume: string, image: string, id = 'fill-1'): Promise<FillInfo> {
  for (;;) {
    const info = await fill(volume, image, id)
    if (info.state === 'filled') return info
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** The next refusal, however often the request is repeated until then. */
async function refusal(volume: string, image: string, id = 'fill-1'): Promise<string> {
  for (;;) {
    try {
      assert.notEqual((await fill(volume, image, id)).state, 'filled')
    } catch (error) {
      if (isFault(error)) return error.code
      throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

test("an operator's own image is listed, and fills a volume with its holes kept", async () => {
  const content = await ownImage('own')
  await newVolume('v1')
  const info = await filled('v1', 'own')
  assert.deepEqual([info.done_bytes, info.total_bytes], [8 * MIB, 8 * MIB])
  const data = await dataOf('v1')
  assert.ok(data.subarray(0, content.length).equals(content))
  assert.ok(data.subarray(content.length).every((byte) => byte === 0))
  const volume = await volumes.open('v1')
  assert.ok((await volume.allocatedBytes()) < 3 * MIB, 'zeroes became holes')
  const listed = (await images.commands.images()).images
  assert.deepEqual(
    listed.map(({ image, state }) => [image, state]),
    [
      ['holdfast-tiny', 'absent'],
      ['holdfast-counter', 'absent'],
      ['own', 'ready'],
    ],
  )
  assert.match(listed[2]?.sha256 ?? '', /^[0-9a-f]{64}$/)
})

test('what the volume held before is gone where the image has holes, and stays behind the image', async () => {
  const content = await ownImage('own')
  await newVolume('v1')
  const volume = await volumes.open('v1')
  volume.writeSync(Buffer.alloc(16 * MIB, 7), 0, 16 * MIB, 0)
  await filled('v1', 'own')
  const data = await dataOf('v1')
  assert.ok(data.subarray(0, content.length).equals(content))
  assert.ok(data.subarray(content.length).every((byte) => byte === 7))
})

test('nobody opens, serves or snapshots a volume that is not whole; afterwards it is served', async () => {
  await ownImage('own')
  await newVolume('v1')
  await fill('v1', 'own')
  const open = exports.open('v1')
  assert.ok('refusal' in open && open.reason.includes('filled with an image'))
  assert.throws(
    () => images.fills.refuseWhileFilling(['v0', 'v1']),
    (error) => isFault(error) && error.code === 'VOLUME_BUSY',
  )
  await filled('v1', 'own')
  assert.deepEqual(exports.names(), ['v1'])
  images.fills.refuseWhileFilling(['v0', 'v1'])
})

test('a request that ended changes nothing when it is repeated, also after a restart and after another one', async () => {
  await ownImage('own')
  await newVolume('v1')
  await filled('v1', 'own')
  const write = async () =>
    (await volumes.open('v1')).writeSync(Buffer.from('written by a guest'), 0, 18, 0)
  const kept = async () => (await dataOf('v1')).subarray(0, 18).toString()
  await write()
  assert.equal((await fill('v1', 'own')).state, 'filled')
  assert.equal(await kept(), 'written by a guest')
  await stop()
  await start()
  assert.equal((await fill('v1', 'own')).state, 'filled')
  assert.equal(await kept(), 'written by a guest')
  await filled('v1', 'own', 'fill-2')
  assert.notEqual(await kept(), 'written by a guest')
  await write()
  assert.equal((await fill('v1', 'own', 'fill-1')).state, 'filled')
  assert.equal(await kept(), 'written by a guest')
})

test('a fill that was cut off goes on by itself after a restart, and the volume stays closed until its end', async () => {
  const content = await ownImage('own', 80 * MIB)
  await newVolume('v1', 96 * MIB)
  await fill('v1', 'own')
  await stop()
  assert.deepEqual(await readdir(at('fills')), ['v1.json'])
  await start()
  assert.ok('refusal' in exports.open('v1'))
  await filled('v1', 'own')
  assert.ok((await dataOf('v1')).subarray(0, content.length).equals(content))
})

test('volumes that are served otherwise, open, too small or preserved by snapshots are refused', async () => {
  await ownImage('own')
  assert.equal(await refusal('v1', 'own'), 'VOLUME_UNKNOWN')
  await volumes.create('standby', 16 * MIB, { mode: 'standby', reason: 'a copy' })
  assert.equal(await refusal('standby', 'own'), 'VOLUME_BUSY')
  await newVolume('small', 4 * MIB)
  assert.equal(await refusal('small', 'own'), 'SIZE_MISMATCH')
  await newVolume('kept')
  snapshots.add('kept')
  assert.equal(await refusal('kept', 'own'), 'VOLUME_BUSY')
  await newVolume('v1')
  assert.equal(await refusal('v1', 'none'), 'IMAGE_UNKNOWN')
  assert.equal(await refusal('v1', '..'), 'IMAGE_UNKNOWN')
  // Not known yet, so that the one that comes first takes a while.
  await ownImage('unseen')
  const both = ['fill-1', 'fill-2'].map((id) => fill('v1', 'unseen', id))
  const refused = (await Promise.allSettled(both)).filter(({ status }) => status === 'rejected')
  assert.equal(refused.length, 1)
  const [{ reason }] = refused as [PromiseRejectedResult]
  assert.ok(isFault(reason) && reason.code === 'VOLUME_BUSY')
})

test('a volume that is too small for an image whose size was not known is served as before', async () => {
  await ownImage('own')
  await newVolume('small', 4 * MIB)
  exports.remove('small', 'test')
  assert.equal(await refusal('small', 'own'), 'SIZE_MISMATCH')
  assert.deepEqual(exports.names(), ['small'])
  assert.deepEqual(await readdir(at('fills')), [])
})

test('deleting a volume ends its fill; another volume of that id can be filled', async () => {
  const content = await ownImage('own', 80 * MIB)
  await newVolume('v1', 96 * MIB)
  await fill('v1', 'own')
  await images.fills.aroundDeletion('v1', () => volumes.delete('v1'))
  assert.deepEqual(await readdir(at('fills')), [])
  await newVolume('v1', 96 * MIB)
  await filled('v1', 'own')
  assert.ok((await dataOf('v1')).subarray(0, content.length).equals(content))
})

test('many volumes are filled from one image at once', async () => {
  const content = await ownImage('own')
  const ids = ['a', 'b', 'c', 'd', 'e'].map((name) => `volume-${name}`)
  for (const id of ids) await newVolume(id)
  await Promise.all(ids.map((id) => filled(id, 'own', `fill-${id}`)))
  for (const id of ids) {
    assert.ok((await dataOf(id)).subarray(0, content.length).equals(content), id)
  }
})

test('without a package source the failure says what is missing, and a later wish tries again', async () => {
  await newVolume('v1')
  const path = process.env['PATH']
  process.env['PATH'] = at('nothing')
  try {
    await fill('v1', 'holdfast-tiny')
    assert.equal(await refusal('v1', 'holdfast-tiny'), 'IMAGE_FAILED')
    const [tiny] = (await images.commands.images()).images
    assert.deepEqual([tiny?.state, tiny?.sha256], ['failed', null])
    assert.match(tiny?.reason ?? '', /apt-get is not installed/)
    assert.deepEqual(exports.names(), ['v1'], 'nothing was written, so it is served')
    assert.equal((await images.commands.prepareImage({ image: 'holdfast-tiny' })).state, 'failed')
    assert.equal((await images.commands.prepareImage({ image: 'holdfast-tiny' })).state, 'building')
  } finally {
    process.env['PATH'] = path
  }
})
