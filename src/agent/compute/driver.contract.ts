/** What drivers promise, whatever they drive. Each driver calls `driverContract` from a test of its own. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { after, afterEach, before, suite, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import type { ServerDefinition, ServerDisk, ServerNic } from '#wire/site/servers.ts'
import { type ComputeDriver, GUEST_OFF } from './driver.ts'
import { GUEST_FAILED } from './faults.ts'

/** Guests of this world say TINY UP on their console when they run. */
export interface DriverWorld {
  readonly driver: ComputeDriver
  /** A disk that is served, with a guest on it. `obeys`: it powers off and releases devices when asked to. */
  disk(volume: string, obeys: boolean): Promise<ServerDisk>
  /** The folder of a server, which exists while a driver is called for it. */
  folder(server: string): string
  /** Another driver over the same guests, as after kill -9 of the agent: the first one is let go of. */
  restart(): Promise<ComputeDriver>
  /** Whether anything of the guest is left outside of its folder: a process, a pid file, an entry in the hypervisor. */
  traces(server: string): Promise<readonly string[]>
  /** Ends the guest as a crash of the hypervisor would. Undefined: cannot be done. */
  readonly crash: ((server: string) => Promise<void>) | undefined
  until<T>(what: string, look: () => Promise<T | undefined | false>): Promise<T>
  clean(): Promise<void>
}

const never = new AbortController().signal

/** `skip`: why the driver cannot be tested here, or false. */
export function driverContract(
  name: string,
  make: () => Promise<DriverWorld>,
  skip: string | false = false,
): void {
  suite(`driver ${name}`, { skip }, () => {
    let world: DriverWorld
    let driver: ComputeDriver
    const used: string[] = []

    before(async () => {
      world = await make()
      driver = world.driver
    })
    afterEach(async () => {
      for (const server of used.splice(0)) await driver.remove(server)
    })
    after(async () => {
      await world.clean()
    })

    async function definition(
      server: string,
      obeys: boolean,
      nics: ServerNic[] = [],
    ): Promise<ServerDefinition> {
      used.push(server)
      await mkdir(world.folder(server), { recursive: true })
      const disks = [await world.disk(`disk-of-${server}`, obeys)]
      return { server, generation: 1, name: server, vcpus: 1, memory_mb: 96, disks, nics }
    }
    async function started(
      server: string,
      obeys: boolean,
      nics: ServerNic[] = [],
    ): Promise<ServerDefinition> {
      const defined = await definition(server, obeys, nics)
      assert.deepEqual(await driver.adopt(defined), GUEST_OFF)
      await driver.define(defined)
      await driver.start(defined)
      return defined
    }
    const up = async (server: string) =>
      await world.until('the guest is up', async () =>
        (await driver.console(server)).includes('TINY UP'),
      )
    const power = async (server: string) => (await driver.state(server)).power

    test('a guest that was never started is off and has nothing', async () => {
      const defined = await definition('never', true)
      await driver.define(defined)
      assert.deepEqual(await driver.state('never'), GUEST_OFF)
      assert.deepEqual(await driver.state('unheard-of'), GUEST_OFF)
      await driver.stop('never')
      await driver.powerDown('never', 1_000, never)
    })

    test('a started guest runs from its disk, has its devices, and is not started twice', async () => {
      const nic = { ...NIC, port: 'port-1' }
      const defined = await started('runs', true, [nic])
      await up('runs')
      await driver.start(defined)
      const state = await driver.state('runs')
      assert.equal(state.power, 'running')
      assert.deepEqual(state.disks, ['disk-of-runs'])
      assert.deepEqual(state.nics, [{ port: 'port-1', mac: nic.mac }])
      assert.deepEqual(state.releasing, [])
      const ups = (await driver.console('runs')).split('TINY UP').length - 1
      assert.equal(ups, 1)
    })

    test('a guest that obeys powers down by itself, one that does not is stopped after its time', async () => {
      await Promise.all([started('obeys', true), started('stubborn', false)])
      await Promise.all([up('obeys'), up('stubborn')])
      await Promise.all([
        driver.powerDown('obeys', 60_000, never),
        driver.powerDown('stubborn', 300, never),
      ])
      assert.equal(await power('obeys'), 'off')
      assert.equal(await power('stubborn'), 'off')
      assert.match(await driver.console('obeys'), /TINY OFF/)
      assert.doesNotMatch(await driver.console('stubborn'), /TINY OFF/)
    })

    test('a soft power-down becomes a hard one when it is hurried', async () => {
      await started('hurried', false)
      await up('hurried')
      const hurry = new AbortController()
      const down = driver.powerDown('hurried', 600_000, hurry.signal)
      hurry.abort()
      await down
      assert.equal(await power('hurried'), 'off')
    })

    test('a disk and a NIC are plugged into a running guest, again without effect, and released', async () => {
      await started('plugged', true)
      await up('plugged')
      const disk = { ...(await world.disk('second', true)), device: '/dev/vdb', boot_index: null }
      const nic = { ...NIC, port: 'port-2', mac: 'fa:16:3e:00:00:02' }
      for (let times = 0; times < 2; times++) {
        await driver.attach('plugged', { kind: 'disk', disk })
        await driver.attach('plugged', { kind: 'nic', nic })
      }
      const has = await driver.state('plugged')
      assert.deepEqual([...has.disks].sort(), ['disk-of-plugged', 'second'])
      assert.deepEqual(has.nics, [{ port: 'port-2', mac: nic.mac }])
      for (let times = 0; times < 2; times++) {
        await driver.detach('plugged', { kind: 'disk', volume: 'second' }, never)
        await driver.detach('plugged', { kind: 'nic', port: 'port-2' }, never)
      }
      const left = await world.until('both are released', async () => {
        const state = await driver.state('plugged')
        return state.disks.length === 1 && state.nics.length === 0 ? state : undefined
      })
      assert.deepEqual(left.disks, ['disk-of-plugged'])
      assert.deepEqual(left.releasing, [])
      assert.equal(left.power, 'running')
    })

    test('a guest that does not release a disk still has it, and the state says so', async () => {
      await started('clings', false)
      await up('clings')
      const disk = { ...(await world.disk('kept', false)), device: '/dev/vdb', boot_index: null }
      await driver.attach('clings', { kind: 'disk', disk })
      await driver.detach('clings', { kind: 'disk', volume: 'kept' }, AbortSignal.timeout(200))
      const state = await driver.state('clings')
      assert.ok(state.disks.includes('kept'))
      assert.deepEqual(state.releasing, ['kept'])
    })

    test('a disk that is not served is not attached, and a guest with one is not started', async () => {
      const defined = await started('without', true)
      const missing = { volume: 'no-such', device: '/dev/vdb', boot_index: null }
      await assert.rejects(driver.attach('without', { kind: 'disk', disk: missing }), (error) =>
        isFault(error, GUEST_FAILED),
      )
      assert.deepEqual((await driver.state('without')).disks, ['disk-of-without'])
      await driver.stop('without')
      await assert.rejects(driver.start({ ...defined, disks: [missing] }), (error) =>
        isFault(error, GUEST_FAILED),
      )
      assert.deepEqual(await world.traces('without'), [])
      assert.equal(await power('without'), 'off')
    })

    test('a guest survives its agent, is adopted with what it has, and powers down afterwards', async () => {
      const defined = await started('survivor', true)
      await up('survivor')
      const disk = { ...(await world.disk('third', true)), device: '/dev/vdb', boot_index: null }
      await driver.attach('survivor', { kind: 'disk', disk })
      driver = await world.restart()
      await driver.endStrays(new Set(used))
      const state = await driver.adopt(defined)
      assert.equal(state.power, 'running')
      assert.deepEqual([...state.disks].sort(), ['disk-of-survivor', 'third'])
      await driver.detach('survivor', { kind: 'disk', volume: 'third' }, never)
      await world.until('the disk is released', async () => {
        const { disks } = await driver.state('survivor')
        return disks.length === 1
      })
      await driver.powerDown('survivor', 60_000, never)
      assert.equal(await power('survivor'), 'off')
    })

    test('a guest whose server is known no more is ended', async () => {
      await started('stray', false)
      driver = await world.restart()
      await driver.endStrays(new Set(used.filter((server) => server !== 'stray')))
      assert.deepEqual(await world.traces('stray'), [])
    })

    test('a guest that crashes is off and died, and can be started again', async (t) => {
      if (world.crash === undefined) return t.skip('this driver cannot make a guest crash')
      const defined = await started('crashes', true)
      await up('crashes')
      const told = new Promise<void>((resolve) =>
        driver.watch((server) => {
          if (server === 'crashes') resolve()
        }),
      )
      await world.crash('crashes')
      await told
      const state = await world.until('it is off', async () => {
        const seen = await driver.state('crashes')
        return seen.power === 'off' ? seen : undefined
      })
      assert.equal(state.end, 'died')
      assert.notEqual(state.reason, null)
      await driver.start(defined)
      assert.equal(await power('crashes'), 'running')
    })

    test('nothing is left of a removed guest', async () => {
      await started('removed', false)
      await driver.remove('removed')
      await driver.remove('removed')
      assert.deepEqual(await world.traces('removed'), [])
      assert.deepEqual(await driver.state('removed'), GUEST_OFF)
      assert.ok(existsSync(world.folder('removed')), 'the folder is the caller’s')
    })
  })
}

const NIC: ServerNic = {
  port: 'port',
  mac: 'fa:16:3e:00:00:01',
  address: '10.9.0.9',
  prefix_length: 24,
  gateway: null,
  dns: [],
  network: 'network',
  domain: 'domain',
}
