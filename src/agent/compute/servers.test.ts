/** The store of definitions over a driver that is nothing but memory: what is persisted, what follows from what the guest does. */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { Fault, type FaultKind, isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import type { ServerDefinition } from '#wire/site/servers.ts'
import { START_AGAIN_MS } from './crash-loop.ts'
import type { ServerRecord } from './definition-file.ts'
import { type ComputeDriver, type DiskStanding, GUEST_OFF, type GuestState } from './driver.ts'
import { GUEST_FAILED, NO_MEMORY, NOT_SERVED, SERVER_UNKNOWN, STALE_GENERATION } from './faults.ts'
import { openServers, type Servers } from './servers.ts'

/** Guests in memory. They outlive a store that is closed and opened again, as real ones do. */
class MemoryDriver implements ComputeDriver {
  readonly name = 'memory'
  readonly pollMs = 5
  readonly guests = new Map<string, GuestState>()
  readonly log: string[] = []
  starts = 0
  failStarts = 0
  clinging = false
  #changed: (server: string) => void = () => undefined

  accelerator = () => 'none'
  watch = (changed: (server: string) => void) => {
    this.#changed = changed
  }
  endStrays = async (servers: ReadonlySet<string>) => {
    for (const id of this.guests.keys()) if (!servers.has(id)) this.guests.delete(id)
  }
  adopt = async ({ server }: ServerDefinition) => await this.state(server)
  define = async () => {}
  start = async ({ server, disks, nics }: ServerDefinition) => {
    if (this.failStarts > 0) {
      this.failStarts--
      throw new Fault(GUEST_FAILED, `starting ${server}: no luck`)
    }
    this.starts++
    this.guests.set(server, {
      ...GUEST_OFF,
      power: 'running',
      disks: disks.map(({ volume }) => volume),
      nics: nics.map(({ port, mac }) => ({ port, mac })),
    })
  }
  powerDown = async (server: string, graceMs: number, hurry: AbortSignal) => {
    this.log.push(`power down ${graceMs}`)
    if (this.clinging && graceMs > 0 && !hurry.aborted) {
      await new Promise<void>((resolve) => hurry.addEventListener('abort', () => resolve()))
    }
    this.guests.set(server, { ...GUEST_OFF, end: 'itself' })
  }
  stop = async (server: string) => {
    this.log.push('stop')
    if (this.guests.has(server)) this.guests.set(server, GUEST_OFF)
  }
  remove = async (server: string) => void this.guests.delete(server)
  attach: ComputeDriver['attach'] = async (server, device) => {
    const { disks, nics, ...rest } = await this.state(server)
    this.log.push(`attach ${device.kind === 'disk' ? device.disk.volume : device.nic.port}`)
    this.guests.set(server, {
      ...rest,
      disks: device.kind === 'disk' ? [...disks, device.disk.volume] : disks,
      nics: device.kind === 'nic' ? [...nics, device.nic] : nics,
    })
  }
  detach: ComputeDriver['detach'] = async (server, device) => {
    const state = await this.state(server)
    if (device.kind === 'disk' && this.clinging) {
      this.guests.set(server, { ...state, releasing: [device.volume] })
      return
    }
    this.log.push(`detach ${device.kind === 'disk' ? device.volume : device.port}`)
    this.guests.set(server, {
      ...state,
      releasing: [],
      disks: state.disks.filter((one) => device.kind !== 'disk' || one !== device.volume),
      nics: state.nics.filter((one) => device.kind !== 'nic' || one.port !== device.port),
    })
  }
  state = async (server: string) => this.guests.get(server) ?? GUEST_OFF
  console = async () => 'one\ntwo\nthree\n'
  network = null
  guestAgent = async () => undefined
  close = async () => {}

  /** The guest comes to its end by itself. */
  end(server: string, end: GuestState['end']): void {
    this.guests.set(server, { ...GUEST_OFF, end, reason: end === 'died' ? 'it blew up' : null })
    this.#changed(server)
  }
}

let directory: string
let driver: MemoryDriver
let servers: Servers
let standings: Map<string, DiskStanding>
let tell: (volume: string) => void
/** Added to what the clock says, so that waits of minutes are over. */
let aheadMs = 0
const clock: Clock = {
  wallMs: () => systemClock.wallMs() + aheadMs,
  bootMs: () => systemClock.bootMs() + aheadMs,
  after: (ms, fire) => systemClock.after(ms, fire),
}

async function open(): Promise<void> {
  servers = await openServers({
    directory: join(directory, 'servers'),
    driver,
    disks: {
      of: (volume) => standings.get(volume) ?? { kind: 'served' },
      watch: (changed) => {
        tell = changed
      },
    },
    memoryMb: 400,
    clock,
    log: createLog('test', 'silent'),
  })
}
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-servers-'))
  driver = new MemoryDriver()
  standings = new Map()
  aheadMs = 0
  await open()
})
afterEach(async () => {
  await servers.close()
  await rm(directory, { recursive: true, force: true })
})

const is = (kind: FaultKind) => (error: unknown) => isFault(error, kind)
const definition = (
  server: string,
  generation = 1,
  volumes = ['v1'],
  more: Partial<ServerDefinition> = {},
): ServerDefinition => ({
  server,
  generation,
  name: server,
  vcpus: 1,
  memory_mb: 128,
  disks: volumes.map((volume, index) => ({
    volume,
    device: `/dev/vd${'abc'[index]}`,
    boot_index: index === 0 ? 0 : null,
  })),
  nics: [],
  ...more,
})
const define = async (...args: Parameters<typeof definition>) =>
  await servers.define({ definition: definition(...args) })
const record = async (server: string) =>
  JSON.parse(
    await readFile(join(directory, 'servers', server, 'definition.json'), 'utf8'),
  ) as ServerRecord

async function until(look: () => Promise<boolean> | boolean): Promise<void> {
  const endMs = systemClock.bootMs() + 10_000
  while (!(await look())) {
    assert.ok(systemClock.bootMs() < endMs, 'it did not happen')
    await new Promise((resolve) => setImmediate(resolve))
  }
}
const briefOf = (server: string) => servers.briefs().find((one) => one.server === server)

test('a definition is kept with its generation; an older one is refused, the same one changes nothing', async () => {
  await define('a', 5)
  assert.equal((await record('a')).definition.generation, 5)
  await assert.rejects(define('a', 4), is(STALE_GENERATION))
  const again = await define('a', 5, ['other'])
  assert.deepEqual(again.disks, [{ volume: 'v1', device: '/dev/vda' }])
  await servers.close()
  await open()
  assert.equal((await servers.show({ server: 'a' })).generation, 5)
})

test('a definition with a volume that the site does not know is refused and leaves nothing', async () => {
  standings.set('v1', { kind: 'unknown' })
  await assert.rejects(define('a'), is(VOLUME_UNKNOWN))
  await assert.rejects(servers.show({ server: 'a' }), is(SERVER_UNKNOWN))
  assert.deepEqual(servers.briefs(), [])
})

test('commands for a server that is not known', async () => {
  await assert.rejects(servers.start({ server: 'x' }), is(SERVER_UNKNOWN))
  await assert.rejects(servers.show({ server: 'x' }), is(SERVER_UNKNOWN))
  const off = await servers.stop({ server: 'x', hard: true, grace_ms: 0 })
  assert.deepEqual([off.power, off.generation], ['off', 1])
  assert.deepEqual(await servers.remove({ server: 'x' }), {})
})

test('what is wanted is on disk before the guest is started or stopped, and lasts', async () => {
  await define('a')
  assert.equal((await servers.start({ server: 'a' })).power, 'running')
  assert.equal((await record('a')).wanted, 'running')
  driver.guests.clear()
  await servers.close()
  await open()
  await until(() => briefOf('a')?.power === 'running')
  await servers.stop({ server: 'a', hard: true, grace_ms: 0 })
  assert.equal((await record('a')).wanted, 'off')
  await servers.close()
  await open()
  assert.equal((await servers.show({ server: 'a' })).power, 'off')
})

test('a start is refused while a disk is denied, and while memory lacks; nothing is wanted then', async () => {
  await define('a')
  standings.set('v1', { kind: 'denied', reason: 'written at az2' })
  await assert.rejects(servers.start({ server: 'a' }), is(NOT_SERVED))
  assert.equal((await record('a')).wanted, 'off')
  standings.clear()
  await define('big', 1, ['v2'], { memory_mb: 300 })
  await servers.start({ server: 'big' })
  assert.equal(servers.status().memory_used_mb, 300)
  await assert.rejects(servers.start({ server: 'a' }), is(NO_MEMORY))
  await servers.stop({ server: 'big', hard: true, grace_ms: 0 })
  assert.equal((await servers.start({ server: 'a' })).power, 'running')
})

test('a start waits for a disk that is about to be served', async () => {
  await define('a')
  standings.set('v1', { kind: 'waiting', reason: 'it takes over' })
  const started = servers.start({ server: 'a' })
  await new Promise((resolve) => setImmediate(resolve))
  standings.clear()
  assert.equal((await started).power, 'running')
})

test('a hypervisor that fails to start a guest that somebody waits for: the reason is told and it is not tried again', async () => {
  await define('a')
  driver.failStarts = 1
  await assert.rejects(servers.start({ server: 'a' }), is(GUEST_FAILED))
  const { wanted, reason } = await record('a')
  assert.equal(wanted, 'off')
  assert.match(reason ?? '', /no luck/)
  assert.match(briefOf('a')?.reason ?? '', /no luck/)
})

test('a guest that powers itself off is wanted no more', async () => {
  await define('a')
  await servers.start({ server: 'a' })
  driver.end('a', 'itself')
  await until(() => briefOf('a')?.reason === 'it powered itself off')
  assert.equal((await record('a')).wanted, 'off')
  assert.equal(driver.starts, 1)
})

test('a guest that dies is started again, later each time, and stays off in the end with the reason', async () => {
  await define('a')
  await servers.start({ server: 'a' })
  for (const [index, delayMs] of START_AGAIN_MS.entries()) {
    driver.end('a', 'died')
    await until(() => briefOf('a')?.reason === 'it blew up')
    aheadMs += delayMs
    await until(() => briefOf('a')?.power === 'running')
    assert.equal(driver.starts, index + 2)
  }
  driver.end('a', 'died')
  await until(() => briefOf('a')?.reason?.includes('not started again') === true)
  aheadMs += 3_600_000
  await servers.show({ server: 'a' })
  assert.equal(driver.starts, START_AGAIN_MS.length + 1)
  assert.equal((await servers.start({ server: 'a' })).power, 'running')
})

test('a guest whose disk another site may write is stopped at once and not started again', async () => {
  await define('a')
  await servers.start({ server: 'a' })
  driver.log.length = 0
  standings.set('v1', { kind: 'denied', reason: 'written at az2' })
  tell('v1')
  await until(() => briefOf('a')?.power === 'off')
  await until(async () => (await record('a')).wanted === 'off')
  assert.deepEqual(driver.log, ['stop'])
  assert.match(briefOf('a')?.reason ?? '', /disk v1 .*written at az2/)
  standings.clear()
  tell('v1')
  await servers.show({ server: 'a' })
  assert.equal(driver.starts, 1)
})

test('a guest found running under a new agent is fenced when its disk is denied, without an event', async () => {
  await define('a')
  await servers.start({ server: 'a' })
  await servers.close()
  standings.set('v1', { kind: 'denied', reason: 'written at az2' })
  await open()
  await until(() => briefOf('a')?.power === 'off')
})

test('fencing does not wait for a soft power-down', async () => {
  await define('a')
  await servers.start({ server: 'a' })
  driver.clinging = true
  const down = servers.stop({ server: 'a', hard: false, grace_ms: 600_000 })
  await until(() => driver.log.includes('power down 600000'))
  standings.set('v1', { kind: 'denied', reason: 'written at az2' })
  tell('v1')
  assert.equal((await down).power, 'off')
})

test('a hard stop ends a soft one that waits', async () => {
  await define('a')
  await servers.start({ server: 'a' })
  driver.clinging = true
  const soft = servers.stop({ server: 'a', hard: false, grace_ms: 600_000 })
  await until(() => driver.log.includes('power down 600000'))
  const hard = await servers.stop({ server: 'a', hard: true, grace_ms: 0 })
  assert.equal(hard.power, 'off')
  assert.equal((await soft).power, 'off')
})

test('a disk that waits does not stop its guest, and a wanted guest is started when its disk is served', async () => {
  await define('a')
  await servers.start({ server: 'a' })
  standings.set('v1', { kind: 'waiting', reason: 'frozen' })
  tell('v1')
  assert.equal((await servers.show({ server: 'a' })).power, 'running')
  driver.guests.clear()
  await servers.close()
  await open()
  await until(() => briefOf('a')?.reason?.includes('frozen') === true)
  assert.equal((await record('a')).wanted, 'running')
  standings.clear()
  tell('v1')
  await until(() => briefOf('a')?.power === 'running')
})

test('a wanted guest whose disk is denied at the start of the agent is wanted no more', async () => {
  await define('a')
  await servers.start({ server: 'a' })
  driver.guests.clear()
  await servers.close()
  standings.set('v1', { kind: 'denied', reason: 'written at az2' })
  await open()
  await until(async () => (await record('a')).wanted === 'off')
  assert.match(briefOf('a')?.reason ?? '', /written at az2/)
})

test('a running guest gets and gives back what its definition gains and loses', async () => {
  await define('a')
  await servers.start({ server: 'a' })
  driver.log.length = 0
  const more = await define('a', 2, ['v1', 'v2'])
  assert.deepEqual(
    more.disks.map(({ device }) => device),
    ['/dev/vda', '/dev/vdb'],
  )
  const less = await define('a', 3, ['v1'])
  assert.deepEqual(less.disks, [{ volume: 'v1', device: '/dev/vda' }])
  assert.deepEqual(driver.log, ['attach v2', 'detach v2'])
})

test('a disk that the guest does not release is shown as releasing until it does', async () => {
  await define('a', 1, ['v1', 'v2'])
  await servers.start({ server: 'a' })
  driver.clinging = true
  const clings = await define('a', 2, ['v1'])
  assert.deepEqual(clings.releasing, ['v2'])
  assert.deepEqual(
    clings.disks.map(({ volume, device }) => `${volume} ${device}`),
    ['v1 /dev/vda', 'v2 /dev/vdb'],
  )
  driver.clinging = false
  aheadMs += 5_000
  await until(async () => (await servers.show({ server: 'a' })).releasing.length === 0)
})

test('a disk that is not served here is not attached, and is when it is served', async () => {
  await define('a')
  await servers.start({ server: 'a' })
  standings.set('v2', { kind: 'waiting', reason: 'it takes over' })
  await assert.rejects(define('a', 2, ['v1', 'v2']), is(NOT_SERVED))
  assert.equal((await record('a')).definition.generation, 2)
  standings.clear()
  aheadMs += 5_000
  await until(async () => (await servers.show({ server: 'a' })).disks.length === 2)
})

test('a NIC with another MAC is another NIC', async () => {
  const nic = {
    port: 'p1',
    mac: 'fa:16:3e:00:00:01',
    address: '10.0.0.2',
    prefix_length: 24,
    gateway: null,
    dns: [],
    network: 'n',
    domain: 'd',
  }
  await define('a', 1, ['v1'], { nics: [nic] })
  await servers.start({ server: 'a' })
  driver.log.length = 0
  await define('a', 2, ['v1'], { nics: [{ ...nic, address: '10.0.0.3' }] })
  assert.deepEqual(driver.log, [])
  const { nics } = await define('a', 3, ['v1'], { nics: [{ ...nic, mac: 'fa:16:3e:00:00:02' }] })
  assert.deepEqual(driver.log, ['detach p1', 'attach p1'])
  assert.equal(nics[0]?.mac, 'fa:16:3e:00:00:02')
})

test('a reboot is one start more, once per request; a soft one of a guest that is off changes nothing', async () => {
  await define('a')
  const request = { server: 'a', reboot: 'r1', hard: false, grace_ms: 1_000 }
  assert.equal((await servers.reboot(request)).power, 'off')
  await servers.start({ server: 'a' })
  await servers.reboot(request)
  await servers.reboot(request)
  assert.equal(driver.starts, 2)
  await servers.reboot({ ...request, reboot: 'r2' })
  assert.equal(driver.starts, 3)
  await servers.stop({ server: 'a', hard: true, grace_ms: 0 })
  await servers.reboot({ ...request, reboot: 'r3', hard: true })
  assert.equal(driver.starts, 4)
})

test('a removed server is gone with its folder, and so is what a crash left of one', async () => {
  await define('a')
  await servers.start({ server: 'a' })
  await servers.remove({ server: 'a' })
  await assert.rejects(readFile(join(directory, 'servers', 'a', 'definition.json')))
  assert.equal(driver.guests.size, 0)
  await assert.rejects(servers.show({ server: 'a' }), is(SERVER_UNKNOWN))
  await define('a', 1)
  assert.equal((await servers.show({ server: 'a' })).power, 'off')
})

test('guests rest with their agent and are started with the next one', async () => {
  await define('a')
  await servers.start({ server: 'a' })
  await servers.rest(1_000)
  assert.equal(driver.guests.get('a')?.power, 'off')
  assert.equal((await record('a')).wanted, 'running')
  await servers.close()
  driver.guests.clear()
  await open()
  await until(() => briefOf('a')?.power === 'running')
})

test('a stop that a crash of the agent cut off is ended by the next one', async () => {
  await define('a')
  await servers.start({ server: 'a' })
  await servers.close()
  const path = join(directory, 'servers', 'a', 'definition.json')
  await writeFile(path, JSON.stringify({ ...(await record('a')), wanted: 'off' }))
  await open()
  await until(() => briefOf('a')?.power === 'off')
})

test('a definition that cannot be read keeps no other server from being served, and its guest is left alone', async () => {
  await define('a')
  await define('b')
  await servers.start({ server: 'b' })
  await servers.close()
  await writeFile(join(directory, 'servers', 'b', 'definition.json'), '{"version":2}')
  await open()
  assert.equal((await servers.show({ server: 'a' })).power, 'off')
  await assert.rejects(servers.show({ server: 'b' }), is(SERVER_UNKNOWN))
  assert.equal(driver.guests.get('b')?.power, 'running')
})

test('the console is given by lines from its end', async () => {
  await define('a')
  const output = async (lines: number) => (await servers.console({ server: 'a', lines })).output
  assert.equal(await output(0), 'one\ntwo\nthree\n')
  assert.equal(await output(2), 'two\nthree\n')
  assert.equal(await output(9), 'one\ntwo\nthree\n')
})
