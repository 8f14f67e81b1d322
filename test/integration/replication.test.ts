import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { describe, test, type TestContext } from 'node:test'
import { certificates, Lab, SilentProxy } from './replication-lab/lab.ts'
import { until } from '../support/until.ts'
import { Load, LOAD_BLOCK, lost } from './replication-lab/load.ts'

const MIB = 1024 * 1024
const MEMBER = { index: 1, sizeBytes: 16 * MIB, blank: true }
const BLOCKS = MEMBER.sizeBytes / LOAD_BLOCK

async function lab(t: TestContext): Promise<Lab> {
  const made = await Lab.make()
  t.after(() => made.end())
  return made
}

/** A site process that is killed and started again on the same host keeps the boot id; `reboot` gives it another one. */
describe('replication of a session between two site processes', () => {
  test('an acknowledged write is on both sides, and a flush makes it durable on both', async (t) => {
    const made = await lab(t)
    await made.start([MEMBER])
    await made.protect()
    const client = await made.a.connect('pair-1')
    const data = randomBytes(8192)
    await client.write(12288, data)
    assert.deepEqual(made.b.data('b-1').subarray(12288, 12288 + 8192), data)
    const before = [await made.a.syncs(), await made.b.syncs()]
    await client.flush()
    await client.write(65536, data, { fua: true })
    const after = [await made.a.syncs(), await made.b.syncs()]
    assert.ok((after[0]?.['a-1'] ?? 0) >= (before[0]?.['a-1'] ?? 0) + 2)
    assert.ok((after[1]?.['b-1'] ?? 0) >= (before[1]?.['b-1'] ?? 0) + 2)
    // A write of several frames, a trim, and zeroes longer than a frame.
    await client.write(MIB + 512, randomBytes(5 * MIB))
    await client.trim(2 * MIB, 65536)
    await client.zero(3 * MIB, 2 * MIB + 4096, { mayUnmap: false })
    assert.deepEqual(await client.read(3 * MIB, 4096), Buffer.alloc(4096))
    client.destroy()
    assert.equal(
      made.b
        .data('b-1')
        .subarray(3 * MIB, 5 * MIB)
        .every((byte) => byte === 0),
      true,
    )
    await until('both sides equal', () => made.same())
    await assert.rejects(made.b.connect('pair-1'), /written at az1/)
  })

  test('the initial copy runs under load, without dropping the clients of the plain volume', async (t) => {
    const made = await lab(t)
    const big = { index: 1, sizeBytes: 96 * MIB, blank: true }
    await made.start([big])
    const client = await made.a.connect('a-1')
    for (let at = 0; at < 64; at += 2) await client.write(at * MIB, randomBytes(MIB))
    const load = new Load(client, 64 * 256, 8)
    load.start()
    await until('load before the session', () => load.result.count > 200)
    await made.protect()
    const atRise = load.result.count
    await until('load in sync', () => load.result.count > atRise + 500)
    const result = await load.stop()
    assert.deepEqual(lost(made.b.data('b-1'), result), [])
    await until('both sides equal', () => made.same())
    const blocks = Number(
      execFileSync('stat', ['-c', '%b', `${made.b.directory}/volumes/b-1/data`]),
    )
    assert.ok(blocks * 512 < 80 * MIB, 'holes stay holes at the replica')
    client.destroy()
  })

  test('a replica process killed under load goes on as a prefix, and no acknowledgement is lost', async (t) => {
    const made = await lab(t)
    await made.start([MEMBER, { index: 2, sizeBytes: 16 * MIB, blank: true }])
    await made.protect()
    const clients = [await made.a.connect('pair-1'), await made.a.connect('pair-2')]
    const loads = clients.map((client) => new Load(client, BLOCKS, 8))
    for (const load of loads) load.start()
    for (let round = 0; round < 3; round++) {
      const before = loads[0]?.result.count ?? 0
      await until('load goes on', () => (loads[0]?.result.count ?? 0) > before + 300)
      await made.b.kill()
      const held = loads.map((load) => load.result.count)
      await new Promise((resolve) => setTimeout(resolve, 100))
      assert.deepEqual(
        loads.map((load) => load.result.count),
        held,
        'nothing is acknowledged alone',
      )
      await made.b.start()
      await made.inSync()
    }
    for (const [at, load] of loads.entries()) {
      const result = await load.stop()
      assert.deepEqual(lost(made.b.data(`b-${at + 1}`), result), [])
    }
    assert.equal(made.record.epoch, 2, 'no epoch was needed')
    await until('both sides equal', () => made.same())
    for (const client of clients) client.destroy()
  })

  test('a writer process killed under load reconciles from the replica before it serves', async (t) => {
    const made = await lab(t)
    await made.start([MEMBER])
    await made.protect()
    for (let round = 0; round < 2; round++) {
      const client = await made.a.connect('pair-1')
      const load = new Load(client, BLOCKS, 16, 1 + round * 1_000_000)
      load.start()
      await until('load', () => load.result.count > 500)
      await made.a.kill()
      const result = await load.stop()
      await made.a.start()
      await made.inSync()
      assert.ok(await made.same(), 'both sides equal')
      assert.deepEqual(lost(made.a.data('a-1'), result), [])
    }
    assert.equal(made.record.epoch, 2)
  })

  test('a replica that lost power is brought up again by its dirty regions, witnessed by a drop and a rise', async (t) => {
    const made = await lab(t)
    await made.start([MEMBER])
    await made.protect()
    const client = await made.a.connect('pair-1')
    const load = new Load(client, BLOCKS, 8)
    load.start()
    await until('load', () => load.result.count > 200)
    await made.b.kill()
    made.b.bootId = randomUUID()
    await made.b.start()
    await until(
      'dropped and risen',
      () => made.record.epoch === 4 && made.record.state === 'in_sync',
    )
    await made.inSync()
    const before = load.result.count
    await until('load goes on', () => load.result.count > before + 100)
    const result = await load.stop()
    assert.deepEqual(lost(made.b.data('b-1'), result), [])
    await until('both sides equal', () => made.same())
    assert.ok(made.asked.includes('az1 drop'))
    client.destroy()
  })

  test('a clean stop and start of both sites needs neither reconcile nor copy', async (t) => {
    const made = await lab(t)
    await made.start([MEMBER])
    await made.protect()
    const client = await made.a.connect('pair-1')
    await client.write(0, randomBytes(MIB))
    client.destroy()
    await made.a.stop()
    await made.b.stop()
    made.a.bootId = randomUUID()
    made.b.bootId = randomUUID()
    await Promise.all([made.a.start(), made.b.start()])
    await made.inSync()
    assert.equal(made.record.epoch, 2, 'neither dropped nor risen')
    assert.ok(await made.same())
  })

  test('a planned switch drains, swaps the roles and goes on in sync', async (t) => {
    const made = await lab(t)
    await made.start([MEMBER])
    await made.protect()
    const client = await made.a.connect('pair-1')
    const load = new Load(client, BLOCKS, 8)
    load.start()
    await until('load', () => load.result.count > 300)
    const request = { session: made.session, epoch: made.record.epoch, hold_ms: 5_000 }
    const held = (await made.a.command('session.hold', request)) as { drained: boolean }
    assert.equal(held.drained, true)
    await made.change({ kind: 'reverse' })
    await Promise.all([made.open(made.a), made.open(made.b)])
    const result = await load.stop()
    await made.inSync(made.b, made.a)
    assert.deepEqual(lost(made.b.data('b-1'), result), [])
    await assert.rejects(made.a.connect('pair-1'), /written at az2/)
    const other = await made.b.connect('pair-1')
    await other.write(0, randomBytes(65536))
    assert.ok(await made.same())
    assert.equal(made.record.epoch, 3, 'no resync was needed')
    other.destroy()
  })

  test('a hold without a switch ends by itself', async (t) => {
    const made = await lab(t)
    await made.start([MEMBER])
    await made.protect()
    const client = await made.a.connect('pair-1')
    const request = { session: made.session, epoch: made.record.epoch, hold_ms: 300 }
    const held = (await made.a.command('session.hold', request)) as { drained: boolean }
    assert.equal(held.drained, true)
    const start = performance.now()
    await client.write(0, randomBytes(4096))
    assert.ok(performance.now() - start > 100, 'the write waited')
    client.destroy()
  })

  test('a forced failover loses nothing acknowledged, waits out the contact, and fences the old writer on its return', async (t) => {
    const made = await lab(t)
    await made.start([MEMBER])
    await made.protect()
    const client = await made.a.connect('pair-1')
    const load = new Load(client, BLOCKS, 8)
    load.start()
    await until('load', () => load.result.count > 300)
    // The old writer stands still instead of dying: the worst case, for it may wake up and answer.
    made.a.signal('SIGSTOP')
    const stopped = performance.now()
    await made.change({ kind: 'failover', force: false, consent: false })
    await made.open(made.b)
    assert.ok(
      performance.now() - stopped > 800,
      'the old writer could answer until its contact ran out',
    )
    const count = load.result.count
    const other = await made.b.connect('pair-1')
    await other.write(0, randomBytes(4096))
    made.a.signal('SIGCONT')
    await until('the old writer is fenced', async () => (await made.a.status()).role === 'fenced')
    const result = await load.stop()
    assert.ok(result.count - count < 9, 'nothing was taken after the failover')
    result.acknowledged.delete(0)
    assert.deepEqual(lost(made.b.data('b-1'), result), [])
    await assert.rejects(made.a.connect('pair-1'), /written at az2/)

    await t.test('and reprotect copies back and rises', async () => {
      await made.change({ kind: 'reprotect' })
      await made.open(made.a)
      await made.open(made.b)
      await made.inSync(made.b, made.a)
      await other.write(8192, randomBytes(4096))
      assert.ok(await made.same())
    })

    await t.test('and close leaves the writer with plain volumes and its clients', async () => {
      const before = made.record
      await made.change({ kind: 'close' })
      const record = made.wire(made.record)
      await made.b.command('session.close', { record })
      await made.a.command('session.close', { record })
      assert.deepEqual(await made.a.sessions(), [])
      await other.write(0, randomBytes(4096))
      await assert.rejects(made.a.connect('a-1'))
      await assert.rejects(made.open(made.b, false, before), /STALE_EPOCH/)
      // Somebody has the right to write outside of any session since: what is left of it keeps that.
      const { writer, replica } = record
      const later = { ...record, epoch: record.epoch + 3, writer: replica, replica: writer }
      await made.b.command('session.close', { record: later })
      await made.b.kill()
      await made.b.start()
      const between = { ...before, epoch: record.epoch + 1 }
      await assert.rejects(made.open(made.b, false, between), /STALE_EPOCH/)
      const plain = await made.b.connect('b-1')
      await plain.write(0, randomBytes(4096))
      // Told which volumes are the session's, it serves them no longer, also after a start.
      const told = { ...later, epoch: record.epoch + 4 }
      await made.b.command('session.close', { record: told, volumes: ['b-1', 'unknown'] })
      await assert.rejects(plain.write(0, randomBytes(4096)))
      await assert.rejects(made.b.connect('b-1'), /written at az1/)
      await made.b.kill()
      await made.b.start()
      await assert.rejects(made.b.connect('b-1'), /NBD_REFUSED/)
      // And a failover to the other site fences it, without force.
      const over = { ...told, epoch: record.epoch + 5, state: 'failed_over' } as const
      made.record = { ...before, ...over }
      await made.open(made.b)
      assert.equal((await made.b.status()).role, 'fenced')
      await made.change({ kind: 'reprotect' })
      await made.open(made.b)
      await made.open(made.a)
      await made.inSync(made.a, made.b)
      await until('what it wrote plainly is a divergence record', async () =>
        (await made.b.kept()).divergences.some(
          ({ state, ranges }) => state === 'kept' && ranges[0]?.[0]?.offset === 0,
        ),
      )
      plain.destroy()
      other.destroy()
    })
  })

  test('a site in the middle of a copy refuses to become the writer without force', async (t) => {
    const made = await lab(t)
    made.settings = { syncRateBytes: MIB }
    await made.start([{ index: 1, sizeBytes: 32 * MIB, blank: true }])
    const client = await made.a.connect('a-1')
    await client.write(0, randomBytes(16 * MIB))
    await made.change({ kind: 'open', writer: 'az1', replica: 'az2' })
    await made.open(made.b)
    await made.open(made.a)
    await until('copy under way', async () => (await made.b.status()).phase === 'receiving')
    const status = await made.a.status()
    assert.equal(status.phase, 'copying')
    await made.a.kill()
    await made.change({ kind: 'failover', force: true, consent: false })
    await assert.rejects(made.open(made.b), { code: 'NOT_CONSISTENT' })
    await made.open(made.b, true)
    const other = await made.b.connect('pair-1')
    other.destroy()
    client.destroy()
  })

  test('a link that goes silent holds acknowledgements, and nothing is lost when it comes back', async (t) => {
    const made = await lab(t)
    await made.start([MEMBER])
    const proxy = await SilentProxy.listen(() => made.a.port)
    t.after(() => proxy.close())
    made.linkPort['az1'] = proxy.port
    await made.protect()
    const client = await made.a.connect('pair-1')
    const load = new Load(client, BLOCKS, 8)
    load.start()
    await until('load', () => load.result.count > 200)
    proxy.goSilent()
    await until('held', async () => (await made.a.status()).phase === 'held')
    const held = load.result.count
    const status = await made.a.status()
    assert.ok(status.sequence > status.acknowledged)
    await new Promise((resolve) => setTimeout(resolve, 300))
    assert.equal(load.result.count, held)
    assert.ok(made.asked.includes('az1 confirm'), 'the witness was asked')
    proxy.heal()
    await made.inSync()
    await until('load goes on', () => load.result.count > held + 100)
    const result = await load.stop()
    assert.deepEqual(lost(made.b.data('b-1'), result), [])
    await until('both sides equal', () => made.same())
    assert.equal(made.record.epoch, 2)
    client.destroy()
  })

  test('a pair that joins a session in sync is copied while the others stay in sync', async (t) => {
    const made = await lab(t)
    await made.start([MEMBER])
    await made.protect()
    await made.a.create('a-2', 16 * MIB, false)
    await made.b.create('b-2', 16 * MIB, true)
    const plain = await made.a.connect('a-2')
    await plain.write(MIB, randomBytes(4 * MIB))
    made.members = [...made.members, { index: 2, sizeBytes: 16 * MIB, blank: true }]
    await made.open(made.b)
    await made.open(made.a)
    await plain.write(0, randomBytes(4096))
    await until('joined', async () => {
      const both = await Promise.all([made.a.status(), made.b.status()])
      return both.every(
        ({ members, phase }) => phase === 'following' && members.every((m) => m.joined),
      )
    })
    assert.equal(made.record.epoch, 2)
    await until('both sides equal', () => made.same())
    // Growing: the replica first, as the operation does it.
    made.members = made.members.map((member) => ({ ...member, sizeBytes: 20 * MIB }))
    await made.open(made.b)
    await made.open(made.a)
    const grown = await made.a.connect('pair-2')
    await grown.write(18 * MIB, randomBytes(MIB))
    assert.ok(await made.same())

    const remove = { session: made.session, epoch: made.record.epoch, pairs: ['pair-2'] }
    await made.a.command('session.remove', { ...remove, serving: 'standalone', reason: 'removed' })
    await made.b.command('session.remove', { ...remove, serving: 'standby', reason: 'removed' })
    await plain.write(0, randomBytes(4096))
    assert.deepEqual(
      (await made.a.status()).members.map(({ pair }) => pair),
      ['pair-1'],
    )
    plain.destroy()
    grown.destroy()
  })

  test('a plaintext link refuses a peer with another key', async (t) => {
    const made = await lab(t)
    made.security = (site) => ({ kind: 'keyed', secret: site === 'az1' ? 'one' : 'another' })
    await made.start([MEMBER])
    await made.change({ kind: 'open', writer: 'az1', replica: 'az2' })
    await made.open(made.b)
    await made.open(made.a)
    await until('alone', async () => (await made.a.status()).phase === 'alone')
    await new Promise((resolve) => setTimeout(resolve, 500))
    assert.equal((await made.a.status()).link, 'down')
    assert.equal((await made.b.status()).phase, 'waiting')
  })

  test('a link over mutual TLS replicates, and is refused to a certificate of another site', async (t) => {
    const made = await lab(t)
    const certificateOf = await certificates()
    made.security = certificateOf
    await made.start([MEMBER])
    await made.protect()
    const client = await made.a.connect('pair-1')
    const load = new Load(client, BLOCKS, 8)
    load.start()
    await until('load', () => load.result.count > 500)
    await client.write(4 * MIB, randomBytes(8 * MIB))
    const result = await load.stop()
    assert.ok(result.count > 500)
    await until('both sides equal', () => made.same())
    client.destroy()
    await made.b.kill()
    await made.b.start({ security: certificateOf('az2', 'az1') })
    await new Promise((resolve) => setTimeout(resolve, 300))
    assert.equal((await made.a.status()).link, 'down')
  })

  test('nothing is answered without a lease, and the answers come when the witness is back', async (t) => {
    const made = await lab(t)
    await made.start([MEMBER])
    await made.b.kill()
    await made.change({ kind: 'open', writer: 'az1', replica: 'az2' })
    await made.open(made.a)
    await until('alone', async () => (await made.a.status()).phase === 'alone')
    const client = await made.a.connect('pair-1')
    await client.write(0, randomBytes(4096))
    made.witnessDown = true
    await until('lease run out', async () => (await made.a.status()).phase === 'held')
    let answered = false
    const write = client.write(4096, randomBytes(4096)).then(() => {
      answered = true
    })
    const read = client.read(0, 4096)
    await new Promise((resolve) => setTimeout(resolve, 200))
    assert.equal(answered, false)
    made.witnessDown = false
    await Promise.all([write, read])
    client.destroy()
  })
})
