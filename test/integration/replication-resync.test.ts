import assert from 'node:assert/strict'
import { randomBytes, randomInt, randomUUID } from 'node:crypto'
import { describe, test, type TestContext } from 'node:test'
import type { NbdClient } from '#client/nbd/client.ts'
import { certificates, Lab, SilentProxy } from './replication-lab/lab.ts'
import { until } from '../support/until.ts'
import { Load, LOAD_BLOCK, lost } from './replication-lab/load.ts'

/* What happens between the loss of the link and the next time in sync, with real processes: catching up in order, and resyncs of the
 * changed blocks only. Bytes are counted by the writer itself and are those of the copy; what clients write meanwhile is not in them. */

const MIB = 1024 * 1024
const BLOCK = 65536
const MEMBER = { index: 1, sizeBytes: 64 * MIB, blank: true }

interface Cuttable {
  readonly lab: Lab
  readonly proxy: SilentProxy
  readonly client: NbdClient
}

/** A session in sync, with random data in it, over a link that can be cut. */
async function prepared(
  t: TestContext,
  settings: Lab['settings'] = {},
  security?: Lab['security'],
): Promise<Cuttable> {
  const lab = await Lab.make()
  t.after(() => lab.end())
  lab.security = security
  lab.settings = { soloDelayMs: 100, ...settings }
  await lab.start([MEMBER])
  const proxy = await SilentProxy.listen(() => lab.a.port)
  t.after(() => proxy.close())
  lab.linkPort['az1'] = proxy.port
  await lab.protect()
  const client = await lab.a.connect('pair-1')
  t.after(() => client.destroy())
  for (let at = 0; at < 32 * MIB; at += 4 * MIB) await client.write(at, randomBytes(4 * MIB))
  return { lab, proxy, client }
}

async function solo({ lab, proxy }: Cuttable): Promise<void> {
  proxy.cut()
  await until('alone', async () => (await lab.a.status()).phase === 'alone')
  assert.equal(lab.record.state, 'solo')
}

/** Scattered writes of 4 KiB into the part that holds data at both sides; the blocks that they change. */
async function scatter(client: NbdClient, count: number): Promise<Set<number>> {
  const changed = new Set<number>()
  for (let n = 0; n < count; n++) {
    const at = randomInt((32 * MIB) / 4096) * 4096
    await client.write(at, randomBytes(4096))
    changed.add(Math.floor(at / BLOCK))
  }
  return changed
}

/** Waits until in sync; the kinds of copy that were seen on the way there. */
async function kindsUntilInSync(lab: Lab, writer = lab.a, replica = lab.b): Promise<Set<string>> {
  const kinds = new Set<string>()
  await until('in sync', async () => {
    const [mine, theirs] = await Promise.all([writer.status(), replica.status()])
    if (mine.copy_kind !== 'none') kinds.add(mine.copy_kind)
    return mine.phase === 'following' && theirs.phase === 'following'
  })
  return kinds
}

function isAbout(sentBytes: number, blocks: number): void {
  assert.ok(sentBytes <= 1.05 * blocks * BLOCK, `${sentBytes} bytes for ${blocks} blocks`)
  assert.ok(sentBytes >= blocks * BLOCK, `${sentBytes} bytes are fewer than ${blocks} blocks`)
}

describe('from the loss of the link back into sync', () => {
  test('a short loss is caught up in order, and not one block is copied', async (t) => {
    // However fast this machine writes while the link is away, the log holds it.
    const made = await prepared(t, { frameLogBytes: 2048 * MIB })
    const { lab, proxy, client } = made
    const load = new Load(client, 4096, 8)
    load.start()
    await solo(made)
    const before = load.result.count
    await until('the writer goes on alone', () => load.result.count > before + 300)
    proxy.heal()
    await lab.inSync()
    const inSync = load.result.count
    await until('load goes on', () => load.result.count > inSync + 100)
    const result = await load.stop()
    const status = await lab.a.status()
    assert.equal(status.copy_sent_bytes, 0)
    assert.equal(status.copy_kind, 'none')
    assert.ok(!lab.asked.includes('az1 resync'), 'no resync was asked for')
    assert.deepEqual(lost(lab.b.data('b-1'), result), [])
    await until('both sides equal', () => lab.same())
    assert.deepEqual((await lab.b.kept()).snapshots, [], 'nothing had to be kept')
  })

  test('a loss that is too long for the frame log ends in a resync of the changed blocks alone', async (t) => {
    const made = await prepared(t, { frameLogBytes: MIB, syncRateBytes: 48 * MIB })
    const { lab, proxy, client } = made
    await solo(made)
    const changed = await scatter(client, 400)
    // A trim, and zeroes longer than a frame, are changes as well.
    await client.trim(48 * MIB, 2 * BLOCK)
    await client.zero(50 * MIB, 3 * MIB, { mayUnmap: true })
    for (let at = 48 * MIB; at < 48 * MIB + 2 * BLOCK; at += BLOCK) changed.delete(at / BLOCK)
    for (let at = 50 * MIB; at < 53 * MIB; at += BLOCK) changed.delete(at / BLOCK)
    proxy.heal()
    assert.deepEqual([...(await kindsUntilInSync(lab))], ['delta'])
    const status = await lab.a.status()
    isAbout(status.copy_sent_bytes, changed.size)
    assert.ok(lab.asked.includes('az1 resync'))
    assert.ok(await lab.same(), 'both sides equal')
    await until(
      'the kept copy is released',
      async () => (await lab.b.kept()).snapshots.length === 0,
    )
    assert.deepEqual((await lab.b.kept()).divergences, [])
  })

  test('a resync that is interrupted goes on where it was, with writes going on', async (t) => {
    const made = await prepared(t, { frameLogBytes: MIB, syncRateBytes: 8 * MIB })
    const { lab, proxy, client } = made
    await solo(made)
    const changed = await scatter(client, 500)
    proxy.heal()
    const half = (changed.size * BLOCK) / 2
    await until('half way', async () => (await lab.a.status()).copy_sent_bytes > half)
    assert.equal((await lab.a.status()).phase, 'copying')
    proxy.cut()
    await until('alone again', async () => (await lab.a.status()).phase === 'alone')
    for (const block of await scatter(client, 20)) changed.add(block)
    proxy.heal()
    await lab.inSync()
    // In flight when the link was lost: up to the pace's window, sent again; and the twenty, some of which had been copied before.
    const { copy_sent_bytes: sent } = await lab.a.status()
    assert.ok(sent < (changed.size + 20) * BLOCK + 4 * MIB, `${sent} of ${changed.size * BLOCK}`)
    assert.ok(await lab.same(), 'both sides equal')
  })

  test('the writer that went on alone is killed, and what it changed is still known to the block', async (t) => {
    const made = await prepared(t, { frameLogBytes: MIB })
    const { lab, proxy, client } = made
    await solo(made)
    const changed = await scatter(client, 300)
    await lab.a.kill()
    await lab.a.start()
    await until('alone again', async () => (await lab.a.status()).phase === 'alone')
    const again = await lab.a.connect('pair-1')
    for (const block of await scatter(again, 50)) changed.add(block)
    proxy.heal()
    await lab.inSync()
    const status = await lab.a.status()
    isAbout(status.copy_sent_bytes, changed.size)
    assert.ok(await lab.same(), 'both sides equal')
    again.destroy()
  })

  test('after a forced failover the delta is what both sides changed, and what the loser had alone is kept', async (t) => {
    const made = await prepared(t)
    const { lab, proxy, client } = made
    await solo(made)
    const alone = await scatter(client, 60)
    await lab.a.kill()
    await lab.change({ kind: 'freeze' })
    await lab.change({ kind: 'failover', force: true, consent: false })
    await lab.open(lab.b)
    const other = await lab.b.connect('pair-1')
    const there = await scatter(other, 60)
    proxy.heal()
    await lab.a.start()
    await lab.change({ kind: 'reprotect' })
    await lab.open(lab.a)
    await lab.open(lab.b)
    await lab.inSync(lab.b, lab.a)
    const both = new Set([...alone, ...there])
    const status = await lab.b.status()
    isAbout(status.copy_sent_bytes, both.size)
    assert.ok(await lab.same(), 'both sides equal')
    await until('the kept copy is a divergence record', async () =>
      (await lab.a.kept()).divergences.some(({ state }) => state === 'kept'),
    )
    const { divergences } = await lab.a.kept()
    assert.equal(divergences.length, 1)
    const kept = new Set<number>()
    for (const { offset, length } of divergences[0]?.ranges[0] ?? []) {
      for (let at = offset; at < offset + length; at += BLOCK) kept.add(at / BLOCK)
    }
    assert.deepEqual(
      [...kept].sort((a, b) => a - b),
      [...alone].sort((a, b) => a - b),
    )
    other.destroy()
  })

  test('a frozen writer answers nothing; thawed, it goes on with what it had, and the other side catches up in order', async (t) => {
    const made = await prepared(t)
    const { lab, proxy, client } = made
    await solo(made)
    await scatter(client, 30)
    await lab.change({ kind: 'freeze' })
    await lab.open(lab.a)
    assert.equal((await lab.a.status()).phase, 'frozen')
    await assert.rejects(client.read(0, 4096))
    await assert.rejects(lab.a.connect('pair-1'), /frozen/)
    await lab.change({ kind: 'thaw' })
    await lab.open(lab.a)
    const again = await lab.a.connect('pair-1')
    t.after(() => again.destroy())
    await scatter(again, 30)
    proxy.heal()
    await lab.inSync()
    assert.ok(!lab.asked.includes('az1 resync'), 'no resync was asked for')
    await until('both sides equal', () => lab.same())
  })

  test('a replica that lost power in step is brought up again by the regions in use, sent only where they differ', async (t) => {
    const made = await prepared(t)
    const { lab, client } = made
    await scatter(client, 20)
    await lab.b.kill()
    // What it had not made durable is gone.
    lab.b.bootId = randomUUID()
    lab.b.damage('b-1', 5 * BLOCK, 3 * BLOCK)
    await lab.b.start()
    await until('risen', () => lab.record.state === 'in_sync' && lab.record.epoch > 3, 30_000)
    await lab.inSync()
    assert.ok(await lab.same(), 'both sides equal')
    assert.equal((await lab.a.status()).copy_sent_bytes, 3 * BLOCK)
  })

  test('random load over losses of an encrypted link of any length leaves both sides equal', async (t) => {
    const made = await prepared(t, { frameLogBytes: 2 * MIB }, await certificates())
    const { lab, proxy, client } = made
    const load = new Load(client, MEMBER.sizeBytes / LOAD_BLOCK, 16)
    load.start()
    for (const ms of [20, 400, 900, 50, 600]) {
      proxy.cut()
      await new Promise((resolve) => setTimeout(resolve, ms))
      proxy.heal()
      const before = load.result.count
      await until('load goes on', () => load.result.count > before + 200, 30_000)
    }
    await until('in sync', async () => (await lab.a.status()).phase === 'following', 60_000)
    const result = await load.stop()
    await until('both sides equal', () => lab.same())
    assert.deepEqual(lost(lab.b.data('b-1'), result), [])
  })
})
