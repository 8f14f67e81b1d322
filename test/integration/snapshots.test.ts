/** Snapshots on file systems that can clone, in processes that are killed, and read by NBD clients that other people wrote. */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { on, once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, suite, test } from 'node:test'
import { promisify } from 'node:util'
import { endSnapshotExports, offerSnapshots } from '#agent/snapshot-exports.ts'
import { ExportTable } from '#agent/nbd/exports.ts'
import { localDevice } from '#agent/nbd/local-device.ts'
import { NbdServer } from '#agent/nbd/server.ts'
import {
  assertSame,
  contentOf,
  guardedWrite,
  snapshotsContract,
} from '#agent/snapshots/snapshots.contract.ts'
import { openBoth, worldIn } from '#agent/snapshots/store/snapshot-store.contract.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { loopMount } from '../support/loop-mount.ts'
import { digestOf, type Said, VOLUMES } from './snapshot-lab/changer.ts'

const run = promisify(execFile)
const MIB = 1024 * 1024

const xfs = await loopMount('xfs', 400)
const btrfs = await loopMount('btrfs', 400)
after(async () => {
  for (const mount of [xfs, btrfs]) if (typeof mount !== 'string') await mount.unmount()
})

for (const [name, mount] of [
  ['XFS', xfs],
  ['Btrfs', btrfs],
] as const) {
  if (typeof mount === 'string') test(`snapshots on ${name}`, (t) => t.skip(mount))
  else snapshotsContract(`reflink on ${name}`, 'reflink', () => worldIn(mount.directory))
}

// -- killed processes -------------------------------------------------------------------------------------------------

const CHANGER = join(import.meta.dirname, 'snapshot-lab', 'changer.ts')

/** Runs a changer until it has begun so many things, kills it some milliseconds into the last of them, and returns what it had said. */
async function changeAndKill(directory: string, seed: number, things: number): Promise<Said[]> {
  const child = spawn(process.execPath, [CHANGER, directory, String(seed)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const said: Said[] = []
  let begun = 0
  for await (const [line] of on(createInterface({ input: child.stdout }), 'line')) {
    const one = JSON.parse(line) as Said
    said.push(one)
    if (one.kind === 'begin' && ++begun === things) break
  }
  await new Promise((resolve) => setTimeout(resolve, (seed % 4) * 5))
  child.kill('SIGKILL')
  await once(child, 'close')
  return said
}

interface Known {
  /** Digests of the snapshots that must be there. */
  readonly whole: Map<string, readonly string[]>
  /** What was begun and may or may not have been done. */
  open: Said | undefined
}

function learn(known: Known, said: readonly Said[]): void {
  known.open = undefined
  for (const one of said) {
    known.open = one.kind === 'begin' ? one : undefined
    if (one.kind !== 'done') continue
    if (one.what === 'take') known.whole.set(one.id, one.digests ?? [])
    if (one.what === 'delete' || one.what === 'seal') known.whole.delete(one.id)
  }
}

async function check(directory: string, known: Known): Promise<void> {
  const { volumes, snapshots } = await openBoth(directory)
  try {
    const { open } = known
    for (const [id, digests] of known.whole) {
      const there = snapshots.show(id)
      if (open?.id === id && open.what !== 'rollback' && there?.state !== 'ready') {
        known.whole.delete(id)
        continue
      }
      assert.equal(there?.state, 'ready', `${id} is whole`)
      for (const [i, volume] of VOLUMES.entries()) {
        const view = await snapshots.open(id, volume)
        const digest = createHash('sha256')
          .update(await contentOf(view))
          .digest('hex')
        await view.close()
        assert.equal(digest, digests[i], `${volume} in ${id}`)
      }
    }
    for (const { id, state } of snapshots.list()) {
      const expected = known.whole.has(id) || state === 'sealed' || open?.id === id
      assert.ok(expected, `${id} (${state}) was never finished`)
    }
    for (const volume of VOLUMES) digestOf(await volumes.open(volume))
    for (const { id } of volumes.list()) {
      if (id.startsWith('c')) await volumes.delete(id)
    }
    // Those that were taken but not reported: their digests are not known.
    if (open?.what === 'take' && !known.whole.has(open.id)) await snapshots.delete(open.id)
  } finally {
    await snapshots.close()
    await volumes.close()
  }
}

for (const [name, where, kills, most] of [
  ['before-images', tmpdir(), 6, 20],
  // Each take waits for the disk of the file system in a file.
  ['reflinks', xfs, 4, 8],
] as const) {
  test(`${name}: whenever the process is killed, every snapshot is what it was`, async (t) => {
    const parent = typeof where === 'string' ? where : where.directory
    if (where === xfs && typeof where === 'string') return t.skip(where)
    const directory = await mkdtemp(join(parent, 'holdfast-killed-'))
    const known: Known = { whole: new Map(), open: undefined }
    let checked = 0
    for (let seed = 1; seed <= kills; seed++) {
      learn(known, await changeAndKill(directory, seed, Math.ceil((most * seed) / kills)))
      await check(directory, known)
      checked += known.whole.size
    }
    t.diagnostic(`${kills} kills, ${checked} snapshots compared`)
    assert.ok(checked > 0)
    await rm(directory, { recursive: true })
  })
}

// -- over NBD ---------------------------------------------------------------------------------------------------------

suite('a snapshot over NBD', async () => {
  const log = createLog('test', 'silent')
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-snapshot-nbd-'))
  const exports = new ExportTable()
  const { volumes, snapshots } = await openBoth(directory, {
    onEnded: (id) => endSnapshotExports(exports, id),
  })
  offerSnapshots(exports, snapshots)
  const server = new NbdServer({ exports, log, clock: systemClock })
  const socket = join(directory, 'nbd.sock')
  await server.listenUnix(socket)
  after(async () => {
    await server.close()
    await snapshots.close()
    await volumes.close()
    await rm(directory, { recursive: true })
  })
  const uri = (name: string) => `nbd+unix:///${name}?socket=${socket}`
  await volumes.create('v1', 64 * MIB, { mode: 'standalone' })
  const volume = await volumes.open('v1')
  exports.serve('v1', localDevice(volume))
  for (let at = 0; at < 16; at++)
    await guardedWrite(volume, at * 3 * MIB, Buffer.alloc(MIB, at + 1))
  const wanted = await contentOf(volume)
  await snapshots.take({ id: 's1', purpose: 'user', volumes: ['v1'] })

  test('is copied whole by nbdcopy while fio writes to the volume', async () => {
    const fio = run('fio', [
      '--name=w',
      '--ioengine=nbd',
      `--uri=${uri('v1')}`,
      '--rw=randwrite',
      '--bs=4k',
      '--iodepth=16',
      '--size=64m',
      '--number_ios=3000',
    ])
    const target = join(directory, 'copy')
    await run('nbdcopy', [uri('snapshot/s1/v1'), target])
    assertSame(await readFile(target), wanted, 'copy')
    await fio
    await run('nbdcopy', [uri('snapshot/s1/v1'), target])
    assertSame(await readFile(target), wanted, 'copy afterwards')
    assert.ok(!(await contentOf(volume)).equals(wanted), 'fio wrote something')
  })

  test('says that it is read-only, tells its holes, and refuses writes', async () => {
    const { stdout } = await run('nbdinfo', ['--json', uri('snapshot/s1/v1')])
    assert.match(stdout, /"is_read_only": true/)
    const { stdout: map } = await run('nbdinfo', ['--map', '--json', uri('snapshot/s1/v1')])
    assert.ok((JSON.parse(map) as { type: number }[]).some(({ type }) => type === 3))
    await assert.rejects(run('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', uri('snapshot/s1/v1')]))
  })

  test('is unknown when there is none, and its clients are dropped when it is deleted', async () => {
    await assert.rejects(
      run('nbdinfo', [uri('snapshot/s2/v1')]),
      /No such file or directory for export/,
    )
    const found = exports.open('snapshot/s1/v1')
    assert.ok('device' in found)
    await snapshots.delete('s1')
    await assert.rejects(
      run('nbdinfo', [uri('snapshot/s1/v1')]),
      /No such file or directory for export/,
    )
    assert.deepEqual(exports.names(), ['v1'])
  })
})
