/** The program on the page about raw data, as an operator would copy it from there: what it makes of a store that this software wrote. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { systemFileRanges } from '#base/system/libc.ts'
import { flipped } from '../../../../test/support/flipped.ts'
import { SNAPSHOT_BLOCK_BYTES } from '../snapshots.ts'
import { BeforeImage } from './before-image.ts'
import { MAP_HEADER_BYTES } from './map-log.ts'
import { encodeSnapshot } from './record.ts'
import { writeKept } from './sealing.ts'
import { systemDisk } from './system-disk.ts'

const PAGE = new URL('../../../../docs/operating/raw-layout.md', import.meta.url)
const BLOCK = SNAPSHOT_BLOCK_BYTES
const SIZE = 6 * BLOCK + 1000
const disk = systemDisk(systemFileRanges())
const noPython = spawnSync('python3', ['--version']).status === 0 ? false : 'python3 is missing'

/** Each block of another byte. */
function fill(from: number, bytes = SIZE): Buffer {
  const content = Buffer.alloc(bytes)
  for (let at = 0; at < bytes; at += BLOCK)
    content.fill(from + at / BLOCK, at, Math.min(at + BLOCK, bytes))
  return content
}

async function make(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-raw-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const folder = join(directory, 'snapshots', 's')
  mkdirSync(folder, { recursive: true })
  mkdirSync(join(directory, 'volumes', 'v'), { recursive: true })
  writeFileSync(join(directory, 'volumes', 'v', 'data'), fill(100, SIZE + BLOCK))
  const record = (state: 'ready' | 'sealed') =>
    writeFileSync(
      join(folder, 'snapshot.json'),
      encodeSnapshot({
        id: 's',
        purpose: 'kept',
        state,
        reason: null,
        takenMs: 0,
        stallMs: 0,
        volumes: [{ volume: 'v', kind: 'before_image', sizeBytes: SIZE }],
      }),
    )
  const program = join(directory, 'read-snapshot.py')
  const [, text = ''] = /```python\n(.*?)```/s.exec(readFileSync(PAGE, 'utf8')) ?? []
  writeFileSync(program, text)
  const paths = { data: join(folder, 'v.data'), map: join(folder, 'v.map') }
  const image = await BeforeImage.create(disk, paths, SIZE)
  const held = fill(1)
  const block = (n: number) => ({ block: n, bytes: held.subarray(n * BLOCK, (n + 1) * BLOCK) })
  await image.preserve([block(0), { block: 2, bytes: null }, { block: 3, bytes: null }])
  await image.preserve([block(4), block(6)])
  await image.close()
  return {
    folder,
    paths,
    record,
    checksum: (n: number) => image.table.checksum(n),
    read: (out: string) => {
      const to = join(directory, out)
      const ended = spawnSync('python3', [program, directory, 's', to], { encoding: 'utf8' })
      return { ...ended, raw: () => readFileSync(join(to, 'v.raw')) }
    },
  }
}

/** Blocks of the image as they are, with those of `held` over them. */
function expected(below: Buffer, held: readonly number[], holes: readonly number[]): Buffer {
  const image = Buffer.from(below.subarray(0, SIZE))
  for (const n of held) image.set(fill(1).subarray(n * BLOCK, (n + 1) * BLOCK), n * BLOCK)
  for (const n of holes) image.fill(0, n * BLOCK, (n + 1) * BLOCK)
  return image
}

test('puts preserved blocks back over a copy of the live volume', { skip: noPython }, async (t) => {
  const { record, read, paths } = await make(t)
  record('ready')
  const whole = read('whole')
  assert.equal(whole.status, 0, whole.stderr)
  assert.ok(whole.raw().equals(expected(fill(100), [0, 4, 6], [2, 3])))

  const torn = readFileSync(paths.data)
  writeFileSync(paths.data, flipped(torn, 6 * BLOCK * 8))
  const without = read('without')
  assert.equal(without.status, 0, without.stderr)
  assert.ok(without.raw().equals(expected(fill(100), [0], [2, 3])), 'the last batch was torn')

  writeFileSync(paths.data, torn)
  writeFileSync(paths.map, flipped(readFileSync(paths.map), (MAP_HEADER_BYTES + 20) * 8))
  const damaged = read('damaged')
  assert.equal(damaged.status, 1)
  assert.match(damaged.stderr, /v\.map: damaged/)
})

test('lays the blocks of a divergence out at their places, and says which they are', {
  skip: noPython,
}, async (t) => {
  const { record, read, folder, checksum } = await make(t)
  await writeKept(disk, join(folder, 'v.kept'), SIZE, [
    { kind: 'hole', block: 2, value: 1 },
    { kind: 'data', block: 4, value: checksum(4) },
    { kind: 'data', block: 6, value: checksum(6) },
  ])
  record('sealed')
  const kept = read('kept')
  assert.equal(kept.status, 0, kept.stderr)
  assert.ok(kept.raw().equals(expected(Buffer.alloc(SIZE), [4, 6], [])))
  const ranges = kept.stdout.trim().split('\n')
  assert.deepEqual(
    ranges.map((line) => line.replace(/^.*: /, '')),
    [2, 4, 6].map((n) => `kept ${n * BLOCK} to ${Math.min((n + 1) * BLOCK, SIZE)}`),
  )
})
