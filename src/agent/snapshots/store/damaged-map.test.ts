/** A map that lost a bit: whatever it says afterwards, it never shows another image than the one that was preserved. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { systemFileRanges } from '#base/system/libc.ts'
import { SNAPSHOT_BLOCK_BYTES } from '../snapshots.ts'
import { BeforeImage } from './before-image.ts'
import { MAP_HEADER_BYTES, MAP_RECORD_BYTES } from './map-log.ts'
import { writeKept } from './sealing.ts'
import { systemDisk } from './system-disk.ts'
import { flipped } from '../../../../test/support/flipped.ts'

const BLOCKS = 20
const SIZE = BLOCKS * SNAPSHOT_BLOCK_BYTES
const disk = systemDisk(systemFileRanges())

function place(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-map-'))
  t.after(() => rmSync(directory, { recursive: true }))
  return { data: join(directory, 'data'), map: join(directory, 'map') }
}

const block = (fill: number) => Buffer.alloc(SNAPSHOT_BLOCK_BYTES, fill)

/** Five batches: data, holes, several blocks. Then, after an orderly stop, the one that vouches for them. */
async function make(paths: { data: string; map: string }, settled: boolean): Promise<number[]> {
  const image = await BeforeImage.create(disk, paths, SIZE)
  await image.preserve([{ block: 2, bytes: block(1) }])
  await image.preserve([
    { block: 3, bytes: null },
    { block: 4, bytes: null },
  ])
  await image.preserve([
    { block: 7, bytes: block(2) },
    { block: 9, bytes: block(3) },
  ])
  await image.preserve([{ block: 11, bytes: block(4) }])
  await image.preserve([{ block: 19, bytes: block(5) }])
  if (settled) await image.settle()
  await image.close()
  return [...image.table.held()]
}

async function heldAfter(paths: { data: string; map: string }, bytes: Buffer) {
  writeFileSync(paths.map, bytes)
  const found = await BeforeImage.open(disk, paths, 'following')
  if (!(found instanceof BeforeImage)) {
    assert.ok(readFileSync(paths.map).equals(bytes), 'what is damaged is left as it is')
    return found.problem
  }
  await found.close()
  return [...found.table.held()]
}

test('a bit that flips in front of a batch that is there fails the snapshot, and cuts nothing off', async (t) => {
  const paths = place(t)
  const held = await make(paths, true)
  const whole = readFileSync(paths.map)
  assert.deepEqual(await heldAfter(paths, whole), held)
  const vouching = whole.length - MAP_RECORD_BYTES
  for (let bit = MAP_HEADER_BYTES * 8; bit < whole.length * 8; bit += 9) {
    const after = await heldAfter(paths, flipped(whole, bit))
    if (bit < vouching * 8)
      assert.match(String(after), /record \d+ of its map is damaged/, `${bit}`)
    // The last one vouches for the rest and holds nothing itself.
    else assert.deepEqual(after, held, `${bit}`)
  }
})

test('after a stop that was not orderly only the last batch may be taken for torn', async (t) => {
  const paths = place(t)
  const held = await make(paths, false)
  const whole = readFileSync(paths.map)
  const last = whole.length - 2 * MAP_RECORD_BYTES
  for (let bit = MAP_HEADER_BYTES * 8; bit < whole.length * 8; bit += 11) {
    const after = await heldAfter(paths, flipped(whole, bit))
    if (bit < last * 8) assert.equal(typeof after, 'string', `${bit}`)
    else assert.deepEqual(after, held.slice(0, -1), `${bit}`)
  }
})

test('a sealed map is read whole or not at all', async (t) => {
  const paths = place(t)
  await make(paths, true)
  await writeKept(disk, paths.map, SIZE, [
    { kind: 'hole', block: 3, value: 2 },
    { kind: 'hole', block: 12, value: 1 },
  ])
  const whole = readFileSync(paths.map)
  for (let bit = MAP_HEADER_BYTES * 8; bit < whole.length * 8; bit += 3) {
    writeFileSync(paths.map, flipped(whole, bit))
    const found = await BeforeImage.open(disk, paths, 'sealed')
    assert.ok(!(found instanceof BeforeImage), `${bit}`)
  }
  writeFileSync(paths.map, whole)
  const found = await BeforeImage.open(disk, paths, 'sealed')
  assert.ok(found instanceof BeforeImage)
  assert.deepEqual([...found.table.held()], [3, 4, 12])
  await found.close()
})

test('a block of a sealed image that lost a bit is an error to its reader, and takes no other with it', async (t) => {
  const paths = place(t)
  await make(paths, true)
  const image = await BeforeImage.open(disk, paths, 'following')
  assert.ok(image instanceof BeforeImage)
  const records = [2, 7, 9].map(
    (held) => ({ kind: 'data', block: held, value: image.table.checksum(held) }) as const,
  )
  await image.close()
  await writeKept(disk, paths.map, SIZE, records)
  const bytes = readFileSync(paths.data)
  writeFileSync(paths.data, flipped(bytes, (7 * SNAPSHOT_BLOCK_BYTES + 100) * 8))
  const kept = readFileSync(paths.map)
  // Every start opens it again.
  for (let start = 1; start <= 3; start++) {
    const found = await BeforeImage.open(disk, paths, 'sealed')
    assert.ok(found instanceof BeforeImage)
    assert.deepEqual([...found.table.held()], [2, 7, 9], `start ${start}`)
    await assert.rejects(found.readBlock(7), { code: 'SNAPSHOT_BROKEN' })
    assert.deepEqual(await found.readBlock(9), block(3))
    await found.close()
    assert.ok(readFileSync(paths.map).equals(kept), 'nothing is cut off')
  }
})

test('what an orderly stop has vouched for is damage at every later start, and never taken for torn', async (t) => {
  const paths = place(t)
  const held = await make(paths, true)
  for (let start = 1; start <= 2; start++) {
    const found = await BeforeImage.open(disk, paths, 'following')
    assert.ok(found instanceof BeforeImage)
    await found.close()
  }
  writeFileSync(paths.data, flipped(readFileSync(paths.data), 19 * SNAPSHOT_BLOCK_BYTES * 8))
  const found = await BeforeImage.open(disk, paths, 'following')
  assert.ok(found instanceof BeforeImage)
  assert.deepEqual([...found.table.held()], held)
  await assert.rejects(found.readBlock(19), { code: 'SNAPSHOT_BROKEN' })
  await found.close()
})
