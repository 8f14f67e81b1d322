/** What a session does when a site is alive and does not move, and when it does not live: two site processes. */
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import type { NbdClient } from '#client/nbd/client.ts'
import { Lab } from './replication-lab/lab.ts'
import { until } from '../support/until.ts'
import { Load } from './replication-lab/load.ts'

const SIZE = 8 * 1024 * 1024

let lab: Lab | undefined
let client: NbdClient | undefined
afterEach(async () => {
  client?.destroy()
  client = undefined
  await lab?.end()
  lab = undefined
})

/** In sync, with a client that writes all the time. */
async function underLoad(settings: Lab['settings'] = {}): Promise<{ lab: Lab; load: Load }> {
  lab = await Lab.make()
  lab.settings = settings
  await lab.start([{ index: 1, sizeBytes: SIZE, blank: true }])
  await lab.protect()
  client = await lab.a.connect('pair-1')
  const load = new Load(client, SIZE / 4096, 4)
  load.start()
  await until('the load runs', () => load.result.count > 20)
  return { lab, load }
}

test('a replica that stands still for 6 s with its heartbeats going is busy: the link stays, and the writer holds', async () => {
  const { lab, load } = await underLoad()
  const { epoch } = lab.record
  lab.asked.length = 0
  await lab.b.block(6_000)
  await until('seen to be busy', async () => (await lab.a.status()).peer_busy === true)
  const held = await lab.a.status()
  assert.deepEqual([held.phase, held.link], ['held', 'up'])
  const before = load.result.count
  await until('held for longer', async () => ((await lab.a.status()).held_ms ?? 0) > 4_000)
  assert.equal(load.result.count, before, 'nothing is answered meanwhile')
  assert.equal((await lab.a.status()).link, 'up')
  await until('it goes on', () => load.result.count > before + 20)
  await until('no longer busy', async () => (await lab.a.status()).peer_busy === false)
  await load.stop()
  await until('both sides are equal', () => lab.same())
  assert.equal(lab.record.epoch, epoch)
  assert.deepEqual(
    lab.asked.filter((ask) => !ask.endsWith('confirm')),
    [],
    'the witness was asked for no change',
  )
})

test('a writer that stands still keeps its link, and answers under the same epoch when it moves again', async () => {
  const { lab, load } = await underLoad()
  const { epoch } = lab.record
  await lab.a.block(4_000)
  await until('seen by the replica', async () => (await lab.b.status()).peer_busy === true)
  assert.equal((await lab.b.status()).link, 'up')
  const before = load.result.count
  await until('it goes on', () => load.result.count > before + 20)
  assert.equal((await lab.b.status()).link, 'up')
  await load.stop()
  await until('both sides are equal', () => lab.same())
  assert.equal(lab.record.epoch, epoch)
})

test('a replica that stands still for longer than busyMaxMs is given up', async () => {
  const { lab, load } = await underLoad({ busyMaxMs: 2_000 })
  await lab.b.block(5_000)
  await until('seen to be busy', async () => (await lab.a.status()).peer_busy === true)
  await until('given up', async () => (await lab.a.status()).link === 'down', 3_000)
  await lab.inSync()
  const before = load.result.count
  await until('it goes on', () => load.result.count > before)
  await load.stop()
  await until('both sides are equal', () => lab.same())
})

test('a replica process that is stopped has no heartbeats: its link is given up after the silence', async () => {
  const { lab, load } = await underLoad()
  lab.b.signal('SIGSTOP')
  const began = performance.now()
  await until('given up', async () => (await lab.a.status()).link === 'down')
  assert.ok(performance.now() - began < 2_500, 'after one silence and little more')
  lab.b.signal('SIGCONT')
  await lab.inSync()
  const before = load.result.count
  await until('it goes on', () => load.result.count > before)
  await load.stop()
  await until('both sides are equal', () => lab.same())
})
