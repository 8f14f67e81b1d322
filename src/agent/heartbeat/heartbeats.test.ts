import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import { sleep } from '#base/clock.ts'
import { newHexId } from '#base/ids.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { createAuthority, issueCertificate } from '#base/system/pki.ts'
import { encodeBeatPreface } from '#wire/link/beat.ts'
import type { BeatSecurity } from './exchange.ts'
import { type Heartbeats, startHeartbeats, type Watch } from './heartbeats.ts'

const HEARTBEAT_MS = 50
const SILENCE_MS = 400
const log = createLog('test', 'fatal')
const keyed = (secret: string): BeatSecurity => ({ kind: 'keyed', secret: Buffer.from(secret) })

interface Agent {
  readonly run: string
  readonly beats: Heartbeats
}

const running = new Set<Heartbeats>()
afterEach(async () => {
  await Promise.all([...running].map((beats) => beats.close()))
  running.clear()
})

async function agent(site: string, security: BeatSecurity, port = 0): Promise<Agent> {
  const run = newHexId()
  const beats = await startHeartbeats({
    listen: { host: '127.0.0.1', port },
    security,
    self: { site, agent: `${site}-agent`, run_id: run, boot_id: 'boot' },
    heartbeatMs: HEARTBEAT_MS,
    silenceMs: SILENCE_MS,
    clock: systemClock,
    log,
  })
  running.add(beats)
  return { run, beats }
}

const at = ({ beats }: Agent) => ({ host: '127.0.0.1', port: beats.port })

async function until(condition: () => boolean, what: string, ms = 5_000): Promise<void> {
  const end = performance.now() + ms
  while (!condition()) {
    assert.ok(performance.now() < end, `not reached: ${what}`)
    await sleep(systemClock, 5)
  }
}

const alive = (watch: Watch): boolean =>
  (watch.life()?.heardMs ?? Number.POSITIVE_INFINITY) < SILENCE_MS

for (const kind of ['keyed', 'tls'] as const) {
  test(`${kind}: both ends hear each other, and how long the other's data plane has not moved`, async () => {
    const security = await securities(kind)
    const [a, b] = await Promise.all([agent('az1', security('az1')), agent('az2', security('az2'))])
    const [ofB, ofA] = [a.beats.watch(b.run, at(b)), b.beats.watch(a.run, null)]
    assert.equal(ofB.life(), null)
    await until(() => alive(ofB) && alive(ofA), 'both hear')
    let moves = true
    const moving = (async () => {
      while (moves && running.has(b.beats)) {
        b.beats.moved()
        await sleep(systemClock, HEARTBEAT_MS)
      }
    })()
    const stuck = (watch: Watch) => watch.life()?.stuckMs ?? Number.POSITIVE_INFINITY
    await until(
      () => stuck(ofA) > 12 * HEARTBEAT_MS && stuck(ofB) < 6 * HEARTBEAT_MS,
      'a does not move, b does',
    )
    assert.ok(alive(ofA) && alive(ofB))
    moves = false
    await moving
    a.beats.moved()
    await until(() => (ofA.life()?.stuckMs ?? 1e9) < 3 * HEARTBEAT_MS, 'a moves again')
  })
}

test('a process that is gone falls silent, and its successor at the same address is another one', async () => {
  const a = await agent('az1', keyed('secret'))
  const b = await agent('az2', keyed('secret'))
  const first = a.beats.watch(b.run, at(b))
  await until(() => alive(first), 'the first run is heard')
  const { port } = b.beats
  await b.beats.close()
  await until(() => !alive(first), 'the first run is silent')
  const next = await agent('az2', keyed('secret'), port)
  const second = a.beats.watch(next.run, { host: '127.0.0.1', port })
  await until(() => alive(second), 'the second run is heard')
  assert.ok(!alive(first))
})

test('an address that nobody listens on is dialled until somebody does', async () => {
  const a = await agent('az1', keyed('secret'))
  const probe = await agent('az2', keyed('secret'))
  const { port } = probe.beats
  await probe.beats.close()
  const unknown = a.beats.watch('nobody yet', { host: 'localhost', port })
  await sleep(systemClock, 3 * HEARTBEAT_MS)
  assert.equal(unknown.life(), null)
  const b = await agent('az2', keyed('secret'), port)
  const watch = a.beats.watch(b.run, null)
  await until(() => alive(watch), 'heard by name')
})

test('who does not know the key, or shows a certificate of another agent, is not heard', async () => {
  const security = await securities('tls')
  for (const [mine, theirs] of [
    [keyed('secret'), keyed('another')],
    [security('az1'), keyed('secret')],
    // Its certificate is of az1, it says that it is az2.
    [security('az1'), security('az1')],
  ] as const) {
    const [a, b] = await Promise.all([agent('az1', mine), agent('az2', theirs)])
    const [ofB, ofA] = [a.beats.watch(b.run, at(b)), b.beats.watch(a.run, at(a))]
    await sleep(systemClock, 8 * HEARTBEAT_MS)
    assert.deepEqual([ofB.life(), ofA.life()], [null, null])
  }
})

test('another version, garbage and too much of it end the connection and nothing else', async () => {
  const a = await agent('az1', keyed('secret'))
  const nonce = Buffer.alloc(32)
  for (const bytes of [
    encodeBeatPreface({ version: 2, keyed: true, nonce }),
    encodeBeatPreface({ version: 1, keyed: false, nonce }),
    Buffer.alloc(4096, 0xff),
  ]) {
    const socket = connect(a.beats.port, '127.0.0.1')
    socket.on('error', () => undefined)
    socket.resume()
    socket.write(bytes)
    await once(socket, 'close')
  }
  const b = await agent('az2', keyed('secret'))
  const watch = b.beats.watch(a.run, at(a))
  await until(() => alive(watch), 'others are still heard')
})

test('an address that cannot be listened on is an error of the start', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const address = taken.address()
  assert.ok(typeof address === 'object' && address !== null)
  await assert.rejects(agent('az1', keyed('secret'), address.port), { code: 'EADDRINUSE' })
  taken.close()
})

test('beats go on while the main thread is blocked, and the thread keeps no process alive', async () => {
  const a = await agent('az1', keyed('secret'))
  const module = JSON.stringify(join(import.meta.dirname, 'heartbeats.test-child.ts'))
  const child = spawn(process.execPath, ['-e', `import(${module})`], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, BEATS_PORT: String(a.beats.port), BEATS_BLOCK_MS: '1500' },
  })
  const watch = a.beats.watch('child', null)
  await once(child.stdout, 'data') // it is about to block
  let beats = 0
  await until(() => {
    if (alive(watch)) beats++
    return (watch.life()?.stuckMs ?? 0) > 1000
  }, 'its main thread is seen to be stuck')
  assert.ok(beats > 0)
  assert.ok(alive(watch), 'heard all the same')
  const [code] = (await once(child, 'exit')) as [number]
  assert.equal(code, 0)
  await until(() => !alive(watch), 'gone')
})

test('a stopped process is silent: it is dead until it goes on', async () => {
  const a = await agent('az1', keyed('secret'))
  const module = JSON.stringify(join(import.meta.dirname, 'heartbeats.test-child.ts'))
  const child = spawn(process.execPath, ['-e', `import(${module})`], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, BEATS_PORT: String(a.beats.port), BEATS_BLOCK_MS: '60000' },
  })
  const watch = a.beats.watch('child', null)
  await until(() => alive(watch), 'heard')
  child.kill('SIGSTOP')
  await until(() => !alive(watch), 'silent')
  child.kill('SIGCONT')
  await until(() => alive(watch), 'heard again')
  child.kill('SIGKILL')
  await until(() => !alive(watch), 'silent for good')
})

async function securities(kind: 'keyed' | 'tls'): Promise<(site: string) => BeatSecurity> {
  if (kind === 'keyed') return () => keyed('secret')
  const authority = await createAuthority('beats', Date.now())
  const made = new Map<string, BeatSecurity>()
  for (const site of ['az1', 'az2']) {
    const identity = { kind: 'agent', site, agent: `${site}-agent` } as const
    const leaf = { identity, hosts: ['127.0.0.1'], lifetimeDays: 1 }
    const { cert, key } = await issueCertificate(authority, leaf, Date.now())
    made.set(site, { kind: 'tls', tls: { ca: authority.cert, cert, key } })
  }
  return (site) => made.get(site) as BeatSecurity
}
