import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { createLog, type Log } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { ACK, DISCOVER, OFFER } from './dhcp.ts'
import { MAC_BROADCAST } from './ethernet.ts'
import { NIC_UNUSABLE } from './faults.ts'
import {
  arpFrame,
  definitionOf,
  dhcpAnswer,
  dhcpFrame,
  pingFrame,
  requestFrame,
  SocketNic,
  testNic,
  udpFrame,
} from './nic.test-kit.ts'
import type { Pace } from './pace.ts'
import type { Netdev } from '../driver.ts'
import { type LocalSwitchboard, openSwitchboard } from './switchboard.ts'

/* Real sockets and the real thread; only the guests are played. */

interface Lab {
  readonly directory: string
  readonly switchboard: LocalSwitchboard
  readonly plug: (domain: number, network: number, host: number) => Promise<SocketNic>
}

async function lab(
  t: TestContext,
  more: { readonly pace?: Pace; readonly thread?: URL; readonly log?: Log } = {},
): Promise<Lab> {
  const directory = await temporary(t)
  const log = createLog('test', 'silent')
  const options = { directory, clock: systemClock, log, ...more }
  const switchboard = await openSwitchboard(options)
  t.after(() => switchboard.close())
  const plug: Lab['plug'] = async (...place) => {
    const about = { name: `server ${place.join('.')}`, held: undefined }
    const netdev = await switchboard.plug(place.join('.'), definitionOf(...place), about)
    const nic = new SocketNic(testNic(...place), netdev)
    t.after(() => nic.close())
    return nic
  }
  return { directory, switchboard, plug }
}

async function temporary(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-switch-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  return directory
}

const to = (from: SocketNic, other: SocketNic) => ({
  from: from.ends,
  toMac: other.nic.mac,
  to: other.nic.address,
})
const viaGateway = (from: SocketNic, other: SocketNic) => ({
  ...to(from, other),
  toMac: from.nic.gatewayMac,
})

test('a guest gets its address, and reaches its network and its domain', async (t) => {
  const { plug } = await lab(t)
  const a = await plug(1, 0, 10)
  const b = await plug(1, 0, 11)
  const far = await plug(1, 1, 10)

  await a.send(dhcpFrame(a.ends, DISCOVER))
  const offer = dhcpAnswer(await a.receive((frame) => dhcpAnswer(frame)?.type === OFFER))
  await a.send(requestFrame(a.ends, offer?.yourAddress ?? 0))
  const ack = dhcpAnswer(await a.receive((frame) => dhcpAnswer(frame)?.type === ACK))
  assert.equal(ack?.yourAddress, a.nic.address)

  await a.send(udpFrame(to(a, b), [1, 2], 'to a neighbour'))
  await b.receive((frame) => frame.includes('to a neighbour'))
  await a.send(udpFrame(viaGateway(a, far), [1, 2], 'through the gateway'))
  await far.receive((frame) => frame.includes('through the gateway'))
  await far.send(udpFrame(viaGateway(far, a), [2, 1], 'and back'))
  await a.receive((frame) => frame.includes('and back'))
})

test('nothing that a guest sends arrives in another domain', async (t) => {
  const { plug, switchboard } = await lab(t)
  const a = await plug(1, 0, 10)
  const stranger = await plug(2, 0, 10)
  const toAll = { ...to(a, stranger), toMac: MAC_BROADCAST }
  const asStranger = { ...to(a, stranger), from: stranger.ends }
  for (const frame of [
    arpFrame(a.ends, stranger.nic.address),
    arpFrame(stranger.ends, a.nic.address),
    udpFrame(to(a, stranger), [1, 2], 'unicast'),
    udpFrame(toAll, [1, 2], 'broadcast'),
    udpFrame(viaGateway(a, stranger), [1, 2], 'own gateway'),
    udpFrame({ ...to(a, stranger), toMac: stranger.nic.gatewayMac }, [1, 2], 'its gateway'),
    udpFrame(asStranger, [1, 2], 'all spoofed'),
    udpFrame({ ...asStranger, toMac: stranger.nic.gatewayMac }, [1, 2], 'spoofed, its gateway'),
    pingFrame({ ...viaGateway(a, stranger), from: { ...a.ends, mac: stranger.nic.mac } }, 'x'),
  ]) {
    await a.send(frame)
  }
  await a.settled('all of a was dealt with')
  await stranger.settled('so what would have come has come')
  assert.equal(stranger.take(), undefined)
  const [counters] = (await switchboard.counters()).filter(({ server }) => server === '1.0.10')
  assert.equal(counters?.frames, 10)
  assert.deepEqual(counters.dropped, { nobody: 2, source_mac: 4 })
})

test('guests go on when the agent is killed and started again', async (t) => {
  const directory = await temporary(t)
  const script = join(import.meta.dirname, 'switchboard.test-child.ts')
  const places: [number, number, number][] = [
    [1, 0, 10],
    [1, 0, 11],
    [2, 0, 10],
  ]
  const startAgent = async (): Promise<{ agent: ChildProcess; netdevs: Netdev[] }> => {
    const nics = places.map((place) => definitionOf(...place))
    const args = [script, directory, JSON.stringify(nics)]
    const agent = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    t.after(() => agent.kill('SIGKILL'))
    const [line] = (await once(agent.stdout, 'data')) as [Buffer]
    return { agent, netdevs: JSON.parse(line.toString()) as Netdev[] }
  }
  const first = await startAgent()
  const nics = first.netdevs.map((netdev, index) => {
    const nic = new SocketNic(testNic(...(places[index] ?? assert.fail())), netdev)
    t.after(() => nic.close())
    return nic
  })
  const [a, b, stranger] = nics as [SocketNic, SocketNic, SocketNic]
  await a.send(udpFrame(to(a, b), [1, 2], 'before'))
  await b.receive((frame) => frame.includes('before'))

  first.agent.kill('SIGKILL')
  await once(first.agent, 'exit')
  assert.equal(await a.send(udpFrame(to(a, b), [1, 2], 'lost')), false)
  const second = await startAgent()
  assert.deepEqual(second.netdevs, first.netdevs)
  await a.send(udpFrame(to(a, stranger), [1, 2], 'never'))
  await a.send(udpFrame(to(a, b), [1, 2], 'after'))
  await b.receive((frame) => frame.includes('after'))
  await stranger.settled('still apart')
  assert.equal(stranger.take(), undefined)
})

test('a switch that breaks is started again with all that was plugged', async (t) => {
  const thread = new URL('./breaking.test-thread.ts', import.meta.url)
  let broke: () => void = () => undefined
  const broken = new Promise<void>((resolve) => (broke = resolve))
  const log = createLog('test', 'error', { write: () => broke() })
  const { plug, switchboard } = await lab(t, { thread, log })
  const a = await plug(1, 0, 10)
  const b = await plug(1, 0, 11)
  // Asked just so: what it answers before it breaks is of no interest, nor whether it does.
  await Promise.allSettled([switchboard.counters()])
  await broken
  const endMs = performance.now() + 10_000
  const frame = udpFrame(to(a, b), [1, 2], 'after the break')
  for (;;) {
    await a.send(frame)
    const arrived = await b.receive((one) => one.equals(frame), 100).catch(() => undefined)
    if (arrived !== undefined) break
    assert.ok(performance.now() < endMs, 'the network is back')
  }
})

test('a NIC that floods is slowed, and others go on meanwhile', async (t) => {
  const { plug, switchboard } = await lab(t, { pace: { perSecond: 2_000, burst: 50 } })
  const flooder = await plug(1, 0, 10)
  const a = await plug(1, 0, 11)
  const b = await plug(1, 0, 12)
  let flooding = true
  const started = performance.now()
  const flood = (async () => {
    const frame = udpFrame({ ...to(flooder, a), toMac: MAC_BROADCAST }, [1, 2], 'noise')
    while (flooding && (await flooder.send(frame)));
  })()
  t.after(() => (flooding = false))
  // Noise that nobody reads for a moment may fill a receiver's queue, so a frame may be lost, as on any network: it is sent again.
  const arrives = async (from: SocketNic, other: SocketNic, text: string) => {
    const endMs = performance.now() + 20_000
    for (;;) {
      await from.send(udpFrame(to(from, other), [1, 2], text))
      const arrived = await other.receive((frame) => frame.includes(text), 500).catch(() => null)
      if (arrived !== null) return
      assert.ok(performance.now() < endMs, `${text} arrives`)
    }
  }
  for (let round = 0; round < 20; round++) {
    await arrives(a, b, `round ${round}.`)
    await arrives(b, a, `answer ${round}.`)
  }
  const counters = await switchboard.counters()
  const seconds = (performance.now() - started) / 1000
  flooding = false
  // The flood waits for room in the switch's queue: closing the switch ends that.
  await switchboard.close()
  await flood
  const frames = counters.find(({ server }) => server === '1.0.10')?.frames ?? 0
  // Each frame goes to two receivers, and one share may be taken on credit.
  assert.ok(frames <= 25 + 32 + seconds * 1_000, `${frames} frames in ${seconds} s`)
})

test('a receiver that takes nothing fills its queue and costs nobody else anything', async (t) => {
  const { plug, switchboard } = await lab(t)
  const a = await plug(1, 0, 10)
  const stuck = await plug(1, 0, 11)
  const b = await plug(1, 0, 12)
  for (let count = 0; count < 1_000; count++) {
    await a.send(udpFrame(to(a, stuck), [1, 2], `frame ${count}.`))
  }
  await a.send(udpFrame(to(a, b), [1, 2], 'to one that listens'))
  await b.receive((frame) => frame.includes('to one that listens'))
  await a.settled('all sent')
  const counters = await switchboard.counters()
  const dropped = counters.find(({ server }) => server === '1.0.10')?.dropped.receiver ?? 0
  assert.ok(dropped > 0 && dropped < 1_000 - 256, `${dropped} dropped`)
  // What was queued comes in order once it reads again.
  for (let count = 0; count < 1_000 - dropped; count++) {
    const frame = await stuck.receive(() => true)
    assert.ok(frame.includes(`frame ${count}.`))
  }
  assert.equal(stuck.take(), undefined)
})

test('an unplugged NIC is gone with its sockets, and a changed one follows its definition', async (t) => {
  const { directory, plug, switchboard } = await lab(t)
  const a = await plug(1, 0, 10)
  await plug(1, 0, 11)
  assert.equal((await stat(directory)).mode & 0o777, 0o700)

  const moved = { ...definitionOf(1, 0, 10), address: '10.1.0.77' }
  await switchboard.plug('1.0.10', moved, { name: 'renamed', held: undefined })
  await a.send(dhcpFrame(a.ends, DISCOVER))
  const offer = dhcpAnswer(await a.receive((frame) => dhcpAnswer(frame)?.type === OFFER))
  assert.equal(offer?.yourAddress, testNic(1, 0, 77).address)

  await switchboard.unplug('1.0.10', 'port-1-0-10')
  await switchboard.unplug('1.0.10', 'port-1-0-10')
  assert.equal(await a.send(dhcpFrame(a.ends, DISCOVER)), false)
  await switchboard.unplug('1.0.11', 'port-1-0-11')
  assert.deepEqual(await readdir(directory), [])
})

test('a guest that runs keeps the sockets that it was given', async (t) => {
  const { switchboard } = await lab(t)
  const elsewhere = await temporary(t)
  const held = {
    type: 'dgram',
    local: { type: 'unix', path: join(elsewhere, 'guest') },
    remote: { type: 'unix', path: join(elsewhere, 'switch') },
  }
  const about = { name: 'adopted', held }
  assert.deepEqual(await switchboard.plug('1', definitionOf(1, 0, 10), about), held)
  const nic = new SocketNic(testNic(1, 0, 10), held)
  t.after(() => nic.close())
  await nic.settled('the old sockets work')
})

test('what cannot be plugged is refused with the reason', async (t) => {
  const { switchboard } = await lab(t)
  const about = { name: 'x', held: undefined }
  const wrong = { ...definitionOf(1, 0, 10), address: '10.0.0.256' }
  const refused = (error: unknown) => isFault(error, NIC_UNUSABLE)
  await assert.rejects(switchboard.plug('x', wrong, about), refused)
  const long = await openSwitchboard({
    directory: join(await temporary(t), 'x'.repeat(90)),
    clock: systemClock,
    log: createLog('test', 'silent'),
  })
  t.after(() => long.close())
  await assert.rejects(long.plug('x', definitionOf(1, 0, 10), about), refused)
})
