/** Failing disks under a running session: thin disks whose backing store is full, so that the kernel loses written pages; two site processes. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import type { NbdClient } from '#client/nbd/client.ts'
import { Disk, noDisks } from './replication-lab/disk.ts'
import { Lab } from './replication-lab/lab.ts'
import { until } from '../support/until.ts'
import { LOAD_BLOCK, lost, stamp } from './replication-lab/load.ts'

const MIB = 1024 * 1024
const SIZE = 48 * MIB
const BLOCKS = SIZE / LOAD_BLOCK
/** The disk says 160 MiB and can keep this much. */
const THIN_MIB = 20
const reason = noDisks()
if (reason !== null) console.log(`skipped: ${reason}`)
const options = { skip: reason ?? false }

let lab: Lab | undefined
let client: NbdClient | undefined
let disk: Disk | undefined
afterEach(async () => {
  client?.destroy()
  client = undefined
  await Promise.all([lab?.a.kill(), lab?.b.kill()])
  disk?.end()
  disk = undefined
  await lab?.end()
  lab = undefined
})

async function withThinDisk(
  which: 'a' | 'b',
): Promise<{ lab: Lab; disk: Disk; client: NbdClient }> {
  lab = await Lab.make()
  lab.settings = { soloDelayMs: 100 }
  const size = { mib: 160, thinMib: THIN_MIB }
  disk = new Disk(lab[which].directory, join(lab.directory, 'backing'), size)
  await lab.start([{ index: 1, sizeBytes: SIZE, blank: true }])
  await lab.protect()
  client = await lab.a.connect('pair-1')
  return { lab, disk, client }
}

interface Written {
  readonly acknowledged: Map<number, number>
}

/** Writes and flushes until the disk fails: the flush, or a write, is refused, or takes longer than `waitMs`. */
async function writeUntilFailure(
  client: NbdClient,
  waitMs: number,
): Promise<Written & { error: string }> {
  const acknowledged = new Map<number, number>()
  const timeout = new Promise<never>((_, reject) =>
    setTimeout(() => reject(new Error('held')), waitMs).unref(),
  )
  try {
    for (let block = 0; block < BLOCKS; block += 256) {
      for (let at = block; at < block + 256; at++) {
        await Promise.race([client.write(at * LOAD_BLOCK, stamp(at, at + 1)), timeout])
        acknowledged.set(at, at + 1)
      }
      await Promise.race([client.flush(), timeout])
    }
  } catch (error) {
    return { acknowledged, error: String(error) }
  }
  return { acknowledged, error: 'none' }
}

const resultOf = (blocks: Map<number, number>) => ({
  acknowledged: blocks,
  started: blocks,
  count: blocks.size,
})

test(
  'a writer whose disk fails answers EIO from then on, and a failover loses nothing that was acknowledged',
  options,
  async () => {
    const { lab, client } = await withThinDisk('a')
    const { acknowledged, error } = await writeUntilFailure(client, 10_000)
    assert.match(error, /EIO|5/, 'the client hears of it')
    // Sticky: it does not come back by being asked again.
    await assert.rejects(client.write(0, stamp(0, 9)))
    await assert.rejects(client.flush())

    await lab.a.kill()
    await lab.change({ kind: 'failover', force: false, consent: false })
    await lab.open(lab.b)
    client.destroy()
    const other = await lab.b.connect('pair-1')
    await other.write(0, stamp(0, 1))
    other.destroy()
    assert.deepEqual(lost(lab.b.data('b-1'), resultOf(acknowledged)), [])
  },
)

test(
  'a replica whose disk fails is no copy any more: both sides say so, clients see no error, nothing acknowledged is lost, and after its repair it is still failed until it is rebuilt',
  options,
  async () => {
    const { lab, disk, client } = await withThinDisk('b')
    const { acknowledged, error } = await writeUntilFailure(client, 25_000)
    // Whether the replica noticed when it applied a write or in its flush: the writer's own disk is good.
    assert.equal(error, 'none')
    assert.equal(acknowledged.size, BLOCKS)
    await client.write(0, stamp(0, 1))
    await client.flush()
    // With the whole file system gone the session there stops altogether, because it cannot note what it decides.
    let seen: unknown
    const isSeen = async () => {
      const [mine, theirs] = await Promise.all([lab.a.status(), lab.b.status()])
      seen = [mine, theirs]
      return theirs.phase === 'failed' || (mine.unfit === 'failed' && theirs.unfit === 'failed')
    }
    await until('the failure is seen', isSeen).catch((error: unknown) => {
      throw new Error(JSON.stringify(seen), { cause: error })
    })
    assert.notEqual((await lab.a.status()).phase, 'following')
    assert.deepEqual(lost(lab.a.data('a-1'), resultOf(acknowledged)), [])

    // The operator mends the disk. Its pages are gone, so the copy must not count as one.
    await lab.b.kill()
    disk.growBacking(200)
    disk.repair()
    await lab.b.start()
    // The mark of the failure did not get to the disk that failed, and holds all the same.
    await until('linked, and still failed', async () => {
      const [mine, theirs] = await Promise.all([lab.a.status(), lab.b.status()])
      return mine.link === 'up' && mine.unfit === 'failed' && theirs.unfit === 'failed'
    })
    assert.notEqual((await lab.a.status()).phase, 'following')

    await lab.b.command('volume.rebuild', {
      volume: 'b-1',
      session: lab.session,
      epoch: lab.record.epoch,
      rebuild: 'after the repair',
      force: false,
    })
    await lab.inSync()
    await until('in step means equal', () => lab.same())
    assert.equal((await lab.a.status()).unfit, null)
    assert.deepEqual(lost(lab.a.data('a-1'), resultOf(acknowledged)), [])
  },
)

test('a writer that starts again with one failed volume goes on with the others, and its replica has all of that one', async () => {
  lab = await Lab.make()
  await lab.start([
    { index: 1, sizeBytes: SIZE, blank: true },
    { index: 2, sizeBytes: SIZE, blank: true },
  ])
  await lab.protect()
  for (const name of ['pair-1', 'pair-2']) {
    const one = await lab.a.connect(name)
    await one.write(0, stamp(0, 7))
    one.destroy()
  }
  await lab.a.kill()
  // Its last flush failed, and the kernel threw away what it could not write.
  writeFileSync(join(lab.a.directory, 'volumes', 'a-1', 'failed'), 'fdatasync failed\n')
  lab.a.damage('a-1', 0, LOAD_BLOCK)
  lab.a.damage('a-2', 0, LOAD_BLOCK)
  await lab.a.start()
  await until('in step', async () => (await lab?.a.status())?.phase === 'following')
  assert.deepEqual(lab.b.data('b-1').subarray(0, LOAD_BLOCK), stamp(0, 7))
  const failed = await lab.a.connect('pair-1')
  await assert.rejects(failed.write(0, stamp(0, 8)))
  failed.destroy()
  client = await lab.a.connect('pair-2')
  assert.deepEqual(await client.read(0, LOAD_BLOCK), stamp(0, 7), 'fetched from the replica')
  await client.write(LOAD_BLOCK, stamp(1, 9))
  assert.deepEqual(lab.b.data('b-2').subarray(LOAD_BLOCK, 2 * LOAD_BLOCK), stamp(1, 9))
})
