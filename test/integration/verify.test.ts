/** Online verification between two real site processes: under load, with planted damage, across kills. */
import assert from 'node:assert/strict'
import { closeSync, fdatasyncSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import type { VerifyRun, VerifyStatus } from '#wire/site/verify.ts'
import { Lab, type Site } from './replication-lab/lab.ts'
import { until } from '../support/until.ts'
import { Load } from './replication-lab/load.ts'

const MIB = 1024 * 1024
const BLOCK = 64 * 1024
const SIZE = 64 * MIB

let lab: Lab
beforeEach(async () => {
  lab = await Lab.make()
})
afterEach(async () => {
  await lab.end()
})

const members = (count: number) =>
  Array.from({ length: count }, (_, at) => ({ index: at + 1, sizeBytes: SIZE, blank: true }))

async function begin(
  run: string,
  options: { repair?: boolean; rate?: number } = {},
  site: Site = lab.a,
): Promise<VerifyStatus> {
  return (await site.command('session.verify', {
    session: lab.session,
    epoch: lab.record.epoch,
    run,
    rate_bytes: options.rate ?? 0,
    repair: options.repair ?? false,
  })) as VerifyStatus
}

const show = async (site: Site = lab.a): Promise<VerifyStatus> =>
  (await site.command('session.verify_show', { session: lab.session })) as VerifyStatus

async function ended(run: string, ms = 60_000): Promise<VerifyRun> {
  let last: VerifyRun | null = null
  await until(
    'the verification ends',
    async () => {
      last = (await show()).run
      assert.equal(last?.run, run)
      return last !== null && last.ended_at !== null
    },
    ms,
  )
  assert.ok(last !== null)
  return last
}

/** Changes bytes of a site's file behind its agent's back, as a failing disk or a stray tool would. */
function damage(site: Site, volume: string, offset: number, data: Buffer): void {
  const fd = openSync(join(site.directory, 'volumes', volume, 'data'), 'r+')
  try {
    writeSync(fd, data, 0, data.length, offset)
    fdatasyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

async function fill(member: number, at: number, blocks: number): Promise<void> {
  const client = await lab.a.connect(`pair-${member}`)
  for (let block = 0; block < blocks; block++) {
    await client.write(at + block * BLOCK, Buffer.alloc(BLOCK, 1 + ((at / BLOCK + block) % 250)))
  }
  await client.disconnect()
}

test('equal sides are found equal, holes without being read, and the time is on record', async () => {
  await lab.start(members(2))
  await lab.protect()
  await fill(1, 0, 64)
  const before = Date.now()
  await begin('run-equal')
  const run = await ended('run-equal')
  assert.equal(run.state, 'done')
  assert.equal(run.total_bytes, 2 * SIZE)
  assert.equal(run.compared_bytes, 2 * SIZE)
  assert.deepEqual([run.mismatched_bytes, run.ranges], [0, []])
  const { members: known } = await show()
  assert.deepEqual(
    known.map(({ pair }) => pair),
    ['pair-1', 'pair-2'],
  )
  for (const { last_verified_at: at } of known) assert.ok(at !== null && at >= before)
  assert.deepEqual((await lab.a.status()).verify?.run?.state, 'done')
  // The same request again is the same run.
  assert.equal((await begin('run-equal')).run?.ended_at, run.ended_at)
})

test('a block that was changed behind the agent is reported, exactly, and repaired on request', async () => {
  await lab.start(members(2))
  await lab.protect()
  await fill(1, 0, 256)
  await fill(2, 8 * MIB, 32)
  await lab.a.command('session.hold', { session: lab.session, epoch: lab.record.epoch, hold_ms: 1 })
  await until('following again', async () => (await lab.a.status()).phase === 'following')
  damage(lab.b, 'b-1', 5 * BLOCK + 17, Buffer.from('x'))
  damage(lab.b, 'b-1', 6 * BLOCK + 100, Buffer.alloc(4096, 0xee))
  damage(lab.b, 'b-1', 200 * BLOCK, Buffer.alloc(BLOCK))
  // Where the writer has a hole.
  damage(lab.b, 'b-2', 40 * MIB, Buffer.from('stray'))
  await begin('run-find')
  const found = await ended('run-find')
  const ranges = found.ranges.map(({ pair, offset, length, kind, repaired }) => ({
    pair,
    offset,
    length,
    kind,
    repaired,
  }))
  const differs = { kind: 'differs' as const, repaired: false }
  assert.deepEqual(ranges, [
    { pair: 'pair-1', offset: 5 * BLOCK, length: 2 * BLOCK, ...differs },
    { pair: 'pair-1', offset: 200 * BLOCK, length: BLOCK, ...differs },
    { pair: 'pair-2', offset: 40 * MIB, length: BLOCK, ...differs },
  ])
  assert.deepEqual([found.mismatched_bytes, found.repaired_bytes], [4 * BLOCK, 0])
  assert.deepEqual(
    (await show()).members.map(({ mismatched_bytes }) => mismatched_bytes),
    [3 * BLOCK, BLOCK],
  )
  assert.equal(await lab.same(), false)

  await begin('run-repair', { repair: true })
  const repaired = await ended('run-repair')
  assert.deepEqual([repaired.mismatched_bytes, repaired.repaired_bytes], [4 * BLOCK, 4 * BLOCK])
  assert.ok(repaired.ranges.length === 3 && repaired.ranges.every((range) => range.repaired))
  assert.deepEqual(
    (await show()).members.map(({ mismatched_bytes }) => mismatched_bytes),
    [0, 0],
  )
  assert.equal(await lab.same(), true)
  await begin('run-again')
  assert.equal((await ended('run-again')).mismatched_bytes, 0)
})

test('under load nothing is reported that does not differ, and what differs is found and repaired', async () => {
  await lab.start(members(1))
  await lab.protect()
  await fill(1, 0, 512)
  const clients = [await lab.a.connect('pair-1'), await lab.a.connect('pair-1')]
  // All of it on few blocks, so that nearly every comparison is disturbed.
  const loads = clients.map((client, at) => new Load(client, 512, 8, 1 + at * 1_000_000))
  for (const load of loads) load.start()
  for (let pass = 0; pass < 4; pass++) {
    await begin(`run-load-${pass}`)
    const run = await ended(`run-load-${pass}`)
    assert.deepEqual([run.state, run.mismatched_bytes, run.ranges], ['done', 0, []])
  }
  const { totals } = await show()
  assert.ok(totals.rechecked_blocks > 0, 'some comparison was disturbed')
  damage(lab.b, 'b-1', 300 * BLOCK, Buffer.alloc(512, 0xdd))
  await begin('run-damage', { repair: true })
  const run = await ended('run-damage')
  assert.deepEqual(
    run.ranges.map(({ offset, length, repaired }) => [offset, length, repaired]),
    [[300 * BLOCK, BLOCK, true]],
  )
  for (const load of loads) assert.ok((await load.stop()).count > 100)
  for (const client of clients) await client.disconnect()
  await until('both sides are equal', () => lab.same())
})

test('a verification goes on after the death of either agent, with what it had found', async () => {
  // Regions that were written lately are fetched from the replica when the writer comes back: the late fault lies outside of them.
  const size = 3 * SIZE
  await lab.start([{ index: 1, sizeBytes: size, blank: true }])
  await lab.protect()
  await fill(1, 0, 64)
  damage(lab.b, 'b-1', 3 * BLOCK, Buffer.from('early'))
  damage(lab.b, 'b-1', 180 * MIB, Buffer.from('late'))
  await begin('run-killed', { rate: 72 * MIB })
  await until('it has begun', async () => ((await show()).run?.compared_bytes ?? 0) > 24 * MIB)
  await lab.b.kill()
  await lab.b.start()
  await lab.inSync()
  await until('it goes on', async () => ((await show()).run?.compared_bytes ?? 0) > 72 * MIB)
  await until('it runs', async () => (await show()).run?.state === 'running')
  await lab.a.kill()
  await lab.a.start()
  const after = await show()
  assert.equal(after.run?.run, 'run-killed')
  assert.ok(after.run.compared_bytes > 0, 'its place was kept')
  assert.equal(after.run.mismatched_bytes, BLOCK)
  const run = await ended('run-killed')
  assert.deepEqual([run.state, run.compared_bytes], ['done', size])
  assert.deepEqual(
    run.ranges.map(({ offset, length }) => [offset, length]),
    [
      [3 * BLOCK, BLOCK],
      [180 * MIB, BLOCK],
    ],
  )
})

test('it is refused at the replica, under an old epoch and while another one runs, and can be cancelled', async () => {
  await lab.start(members(1))
  await lab.protect()
  const codeOf = async (attempt: Promise<unknown>) =>
    await attempt.then(
      () => 'none',
      (error: unknown) => (error as { code: string }).code,
    )
  assert.equal(await codeOf(begin('run-there', {}, lab.b)), 'NOT_WRITER')
  const old = { session: lab.session, epoch: 1, run: 'run-old', rate_bytes: 0, repair: false }
  assert.equal(await codeOf(lab.a.command('session.verify', old)), 'STALE_EPOCH')
  await begin('run-slow', { rate: MIB })
  assert.equal(await codeOf(begin('run-second')), 'VERIFY_RUNNING')
  await lab.a.command('session.verify_cancel', { session: lab.session, run: 'run-other' })
  assert.equal((await show()).run?.ended_at, null)
  await lab.a.command('session.verify_cancel', { session: lab.session, run: 'run-slow' })
  assert.equal((await show()).run?.state, 'cancelled')
  assert.deepEqual(
    (await show()).members.map(({ last_verified_at }) => last_verified_at),
    [null],
  )
  await begin('run-second')
  assert.equal((await ended('run-second')).state, 'done')
})
