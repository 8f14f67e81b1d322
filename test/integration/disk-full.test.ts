/** Full disks under a running session: ext4 on loop devices, two site processes. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import type { NbdClient } from '#client/nbd/client.ts'
import { Disk, type DiskOptions, noDisks } from './replication-lab/disk.ts'
import { Lab, type Site } from './replication-lab/lab.ts'
import { until } from '../support/until.ts'
import { Load, LOAD_BLOCK, lost, stamp } from './replication-lab/load.ts'

const MIB = 1024 * 1024
const SIZE = 64 * MIB
const BLOCKS = SIZE / LOAD_BLOCK
const reason = noDisks()
if (reason !== null) console.log(`skipped: ${reason}`)
const options = { skip: reason ?? false }

let lab: Lab | undefined
let client: NbdClient | undefined
let disk: Disk | undefined
afterEach(async () => {
  client?.destroy()
  client = undefined
  disk?.thaw()
  await Promise.all([lab?.a.kill(), lab?.b.kill()])
  disk?.end()
  disk = undefined
  await lab?.end()
  lab = undefined
})

/** In sync, the disk of `site` being a small one of its own. */
async function withDisk(
  which: 'a' | 'b',
  size: DiskOptions,
): Promise<{ lab: Lab; disk: Disk; client: NbdClient; site: Site }> {
  lab = await Lab.make()
  lab.settings = { soloDelayMs: 100 }
  const site = lab[which]
  disk = new Disk(site.directory, join(lab.directory, 'backing'), size)
  await lab.start([{ index: 1, sizeBytes: SIZE, blank: true }])
  await lab.protect()
  client = await lab.a.connect('pair-1')
  return { lab, disk, client, site }
}

test(
  'a replica without space: the writer goes on alone and both sides say why; the copy is brought up when there is space',
  options,
  async () => {
    const { lab, disk, client } = await withDisk('b', { mib: 256 })
    disk.fill(4 * MIB)
    const load = new Load(client, BLOCKS, 8)
    load.start()
    await until('the replica says why', async () => (await lab.b.status()).unfit === 'no_space')
    await until('the writer knows why', async () => (await lab.a.status()).unfit === 'no_space')
    await until('the witness knows', () => lab.record.state === 'solo')
    const alone = load.result.count
    await until('the writer goes on alone', () => load.result.count > alone + 50)

    // The same again after a restart: the disk is still full.
    await lab.b.kill()
    await lab.b.start()
    const again = load.result.count
    await until('the writer goes on', () => load.result.count > again + 50)
    assert.notEqual(lab.record.state, 'in_sync')

    disk.clear()
    await lab.inSync()
    const before = load.result.count
    await until('the load goes on', () => load.result.count > before + 20)
    await until('fit again', async () => (await lab.a.status()).unfit === null)
    const result = await load.stop()
    await until('both sides are equal', () => lab.same())
    assert.deepEqual(lost(lab.a.data('a-1'), result), [])
    assert.deepEqual(lost(lab.b.data('b-1'), result), [])
  },
)

test(
  'a writer without space: the client gets ENOSPC for what does not fit, the rest goes on, and both sides stay equal',
  options,
  async () => {
    const { lab, disk, client } = await withDisk('a', { mib: 256 })
    const { epoch } = lab.record
    await client.write(0, stamp(0, 1))
    await client.flush()
    disk.fill(0)
    const refused: number[] = []
    const acknowledged = new Map<number, number>([[0, 1]])
    for (let block = 16; block < BLOCKS && refused.length < 20; block += 16) {
      try {
        await client.write(block * LOAD_BLOCK, stamp(block, 2))
        acknowledged.set(block, 2)
      } catch (error) {
        assert.match(String(error), /ENOSPC|no space|28/i)
        refused.push(block)
      }
    }
    assert.equal(refused.length, 20, 'the disk is full')
    // What has its place already can still be written and flushed.
    await client.write(0, stamp(0, 3))
    acknowledged.set(0, 3)
    await client.flush()
    const status = await lab.a.status()
    assert.deepEqual([status.phase, status.epoch], ['following', epoch])
    for (const block of refused) {
      const data = await client.read(block * LOAD_BLOCK, LOAD_BLOCK)
      assert.ok(
        data.every((byte) => byte === 0),
        'a refused write left nothing',
      )
    }
    disk.clear()
    for (const block of refused) {
      await client.write(block * LOAD_BLOCK, stamp(block, 4))
      acknowledged.set(block, 4)
    }
    await client.flush()
    await until('both sides are equal', () => lab.same())
    const result = { acknowledged, started: acknowledged, count: acknowledged.size }
    assert.deepEqual(lost(lab.b.data('b-1'), result), [])
  },
)

test(
  'a writer without space that is killed comes back with all that it acknowledged',
  options,
  async () => {
    const { lab, disk, client } = await withDisk('a', { mib: 256 })
    const load = new Load(client, BLOCKS, 8)
    disk.fill(2 * MIB)
    load.start()
    // The first refusal ends the load: it takes every error for the end.
    const result = await Promise.race([
      load.ended(),
      until('the disk is full', () => false).then(() => assert.fail('unreachable')),
    ])
    await lab.a.kill()
    await lab.a.start()
    disk.clear()
    await lab.inSync()
    await until('both sides are equal', () => lab.same())
    assert.deepEqual(lost(lab.a.data('a-1'), result), [])
  },
)

test(
  'a replica whose file system is frozen for longer than the silence is busy, and nothing is decided',
  options,
  async () => {
    const { lab, disk, client } = await withDisk('b', { mib: 128 })
    const { epoch } = lab.record
    const load = new Load(client, BLOCKS, 4)
    load.start()
    await until('the load runs', () => load.result.count > 20)
    disk.freeze()
    await until('busy', async () => (await lab.a.status()).peer_busy === true)
    await until('held', async () => ((await lab.a.status()).held_ms ?? 0) > 2_500)
    assert.equal((await lab.a.status()).link, 'up')
    disk.thaw()
    const before = load.result.count
    await until('it goes on', () => load.result.count > before + 20)
    await load.stop()
    await until('both sides are equal', () => lab.same())
    assert.equal(lab.record.epoch, epoch)
  },
)
