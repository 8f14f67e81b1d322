/** The order of preserving and overwriting, against a disk that forgets: at every point of a run the power is cut, and what the disk still has must
 *  make up the snapshot byte for byte. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { VOLUME_READ_ERROR } from '#agent/volumes/faults.ts'
import type { Extent, Volume, VolumeGuard } from '#agent/volumes/volume.ts'
import { Fault } from '#base/fault.ts'
import { SNAPSHOT_BLOCK_BYTES } from '../snapshots.ts'
import { contentOf, guardedWrite, guardedZero } from '../snapshots.contract.ts'
import { BeforeImage } from './before-image.ts'
import type { StoreDisk, StoreFile } from './disk.ts'
import { imageView } from './image-view.ts'
import { SnapshotGuard } from './snapshot-guard.ts'

const BLOCK = SNAPSHOT_BLOCK_BYTES
const SIZE = 5 * BLOCK + 1024
const SECTOR = 512
const PATHS = { data: 'data', map: 'map' }

/** A sequence of 32-bit numbers from a seed. */
function chance(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

type Event =
  | {
      readonly kind: 'write'
      readonly file: string
      readonly offset: number
      readonly bytes: Buffer
    }
  | { readonly kind: 'truncate'; readonly file: string; readonly size: number }
  /** Everything of the file before event `upTo` is durable. */
  | { readonly kind: 'sync'; readonly file: string; readonly upTo: number }

interface World {
  readonly events: Event[]
  readonly cache: Map<string, Buffer>
  readonly random: (below: number) => number
  /** A file whose syncs are answered and not done. */
  lying: string | undefined
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

function change(world: World, event: Event): void {
  world.events.push(event)
  if (event.kind !== 'sync') apply(world.cache, event)
}

function apply(files: Map<string, Buffer>, event: Exclude<Event, { kind: 'sync' }>): void {
  const old = files.get(event.file) ?? Buffer.alloc(0)
  const size = event.kind === 'truncate' ? event.size : event.offset + event.bytes.length
  const length = event.kind === 'truncate' ? size : Math.max(old.length, size)
  const next = length === old.length ? old : Buffer.alloc(length)
  if (next !== old) old.copy(next)
  if (event.kind === 'write') event.bytes.copy(next, event.offset)
  files.set(event.file, next)
}

async function sync(world: World, file: string): Promise<void> {
  const upTo = world.events.length
  for (let turns = world.random(3); turns >= 0; turns--) await turn()
  if (world.lying !== file) change(world, { kind: 'sync', file, upTo })
}

function memoryDisk(world: World): StoreDisk {
  return {
    open(path, create) {
      if (create === 'create') world.cache.set(path, Buffer.alloc(0))
      const content = () => world.cache.get(path) ?? Buffer.alloc(0)
      const file: StoreFile = {
        async write(buf, offset) {
          // A big write reaches the cache in parts, and others get their turn between them.
          for (let at = 0; at < buf.length; at += BLOCK) {
            await turn()
            const bytes = Buffer.from(buf.subarray(at, at + BLOCK))
            change(world, { kind: 'write', file: path, offset: offset + at, bytes })
          }
        },
        async read(buf, offset) {
          await turn()
          return offset >= content().length ? 0 : content().copy(buf, 0, offset)
        },
        datasync: () => sync(world, path),
        size: () => Promise.resolve(content().length),
        truncate(size) {
          change(world, { kind: 'truncate', file: path, size })
          return Promise.resolve()
        },
        punch: () => Promise.resolve(),
        close: () => Promise.resolve(),
      }
      return Promise.resolve(file)
    },
  }
}

/** A volume whose bytes are the file `live` of the world. */
function memoryVolume(world: World): Volume {
  let guard: VolumeGuard | null = null
  const content = () => world.cache.get('live') as Buffer
  const write = (bytes: Buffer, offset: number) =>
    change(world, { kind: 'write', file: 'live', offset, bytes })
  const volume: Volume = {
    id: 'live',
    sizeBytes: SIZE,
    failed: undefined,
    dirtyBytes: 0,
    writeBehind: () => undefined,
    prepareFlush: () => undefined,
    guard: (offset, length) => guard?.before(offset, length) ?? null,
    attachGuard: (next) => (guard = next),
    changesEnded: () => null,
    stamp: async () => '',
    writeSync: (buf, bufOffset, length, offset) =>
      write(Buffer.from(buf.subarray(bufOffset, bufOffset + length)), offset),
    zeroSync: (offset, length) => write(Buffer.alloc(length), offset),
    readCached: () => false,
    async read(buf, bufOffset, length, offset) {
      for (let turns = world.random(3); turns >= 0; turns--) await turn()
      buf.set(content().subarray(offset, offset + length), bufOffset)
    },
    readThen: (buf, bufOffset, length, offset, done) =>
      void volume.read(buf, bufOffset, length, offset).finally(() => done(null)),
    readSync: () => assert.fail('nobody reads synchronously'),
    zero: () => Promise.reject(new Fault(VOLUME_READ_ERROR, 'not part of this test')),
    flush: () => sync(world, 'live'),
    extents: (offset, length): Promise<readonly Extent[]> =>
      Promise.resolve([{ offset, length, hole: false }]),
    allocatedBytes: () => Promise.resolve(SIZE),
    cloneTo: () => assert.fail('nobody clones'),
    cloneFrom: () => assert.fail('nobody clones'),
    close: () => Promise.resolve(),
  }
  return volume
}

/** What the disk has when the power goes after `cut` events: what was synced, and of the rest what chance lets through, sector by sector. */
function afterPowerLoss(
  events: readonly Event[],
  cut: number,
  random: World['random'],
): Map<string, Buffer> {
  const durable = new Map<string, number>()
  for (const event of events.slice(0, cut)) {
    if (event.kind === 'sync') durable.set(event.file, event.upTo)
  }
  const files = new Map<string, Buffer>()
  events.slice(0, cut).forEach((event, i) => {
    if (event.kind === 'sync') return
    if (i < (durable.get(event.file) ?? 0) || event.kind === 'truncate') return apply(files, event)
    // Some writes are lost as a whole, some arrive as a whole, some are torn.
    const fate = random(4)
    if (fate === 0) return
    for (let at = 0; at < event.bytes.length; at += SECTOR) {
      if (fate === 1 && random(2) === 0) continue
      const bytes = event.bytes.subarray(at, at + SECTOR)
      apply(files, { ...event, offset: event.offset + at, bytes })
    }
  })
  return files
}

interface Outcome {
  readonly cuts: number
  /** Cuts after which the snapshot was not what it should be. */
  readonly wrong: number
}

/** Writers change a volume under a snapshot; then the power is cut at points of that history. */
async function rehearse(seed: number, lying: string | undefined): Promise<Outcome> {
  const random = chance(seed)
  const world: World = { events: [], cache: new Map(), random, lying: undefined }
  world.cache.set('live', Buffer.alloc(0))
  const volume = memoryVolume(world)
  const guard = new SnapshotGuard(
    volume,
    () => 0,
    () => Promise.resolve(Number.MAX_SAFE_INTEGER),
  )
  volume.attachGuard(guard)
  change(world, { kind: 'truncate', file: 'live', size: SIZE })
  for (let at = 0; at < SIZE; at += BLOCK) {
    if (random(4) === 0) continue
    const bytes = Buffer.alloc(Math.min(BLOCK, SIZE - at), 1 + random(255))
    volume.writeSync(bytes, 0, bytes.length, at)
  }
  const image = await BeforeImage.create(memoryDisk(world), PATHS, SIZE)
  guard.follow({ image, reserveBytes: 0, ahead: true, lost: (error) => Promise.resolve(error) })
  const wanted = Buffer.from(world.cache.get('live') as Buffer)
  await volume.flush()
  world.lying = lying
  const from = world.events.length
  const writer = async () => {
    for (let i = 0; i < 4; i++) {
      const offset = random(SIZE - 4096)
      const length = Math.min(1 + random(2 * BLOCK), SIZE - offset)
      if (random(4) === 0) await guardedZero(volume, offset, length, true)
      else await guardedWrite(volume, offset, Buffer.alloc(length, 1 + random(255)))
      if (random(3) === 0) await volume.flush()
    }
  }
  await Promise.all([writer(), writer(), writer()])
  let wrong = 0
  let cuts = 0
  for (let cut = from; cut <= world.events.length; cut++, cuts++) {
    const cache = afterPowerLoss(world.events, cut, random)
    const after: World = { events: [], cache, random, lying: undefined }
    const found = await BeforeImage.open(memoryDisk(after), PATHS, 'following')
    if (!(found instanceof BeforeImage)) {
      // A batch that is vouched for and not there: only a sync that was not done leaves that.
      wrong++
      continue
    }
    const view = imageView({ image: found, live: memoryVolume(after), refusal: () => undefined })
    try {
      if (!(await contentOf(view)).equals(wanted)) wrong++
    } catch {
      // A block that was relied on and is not what its checksum says.
      wrong++
    }
  }
  return { cuts, wrong }
}

async function rehearseMany(seeds: number, lying?: string): Promise<Outcome> {
  let [cuts, wrong] = [0, 0]
  for (let seed = 1; seed <= seeds; seed++) {
    const outcome = await rehearse(seed, lying)
    cuts += outcome.cuts
    wrong += outcome.wrong
    if (lying === undefined) assert.equal(outcome.wrong, 0, `seed ${seed}`)
  }
  return { cuts, wrong }
}

test('whenever the power goes, the snapshot is what it was', async (t) => {
  const { cuts } = await rehearseMany(25)
  t.diagnostic(`${cuts} cuts`)
  assert.ok(cuts > 500)
})

test('a batch that a process wrote and did not live to make durable is durable before anybody relies on it', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = chance(seed)
    const world: World = { events: [], cache: new Map(), random, lying: undefined }
    const image = await BeforeImage.create(memoryDisk(world), PATHS, SIZE)
    await image.preserve([{ block: 0, bytes: Buffer.alloc(BLOCK, 1) }])
    const before = world.events.length
    await image.preserve([{ block: 2, bytes: Buffer.alloc(BLOCK, 2) }])
    // It died between the writes and the syncs: the page cache has it all, the disk what chance let through.
    const events = world.events.filter((event, i) => i < before || event.kind !== 'sync')
    const next: World = { ...world, events }
    const found = await BeforeImage.open(memoryDisk(next), PATHS, 'following')
    assert.ok(found instanceof BeforeImage && found.table.has(2))
    const cache = afterPowerLoss(next.events, next.events.length, random)
    const after: World = { events: [], cache, random, lying: undefined }
    const again = await BeforeImage.open(memoryDisk(after), PATHS, 'following')
    assert.ok(again instanceof BeforeImage)
    assert.ok(again.table.has(2), `seed ${seed}`)
  }
})

for (const file of ['data', 'map']) {
  test(`a sync of the ${file} that is left out is found by this test`, async () => {
    const { wrong } = await rehearseMany(6, file)
    assert.ok(wrong > 0)
  })
}
