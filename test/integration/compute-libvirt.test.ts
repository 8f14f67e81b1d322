/** The libvirt driver with a real libvirtd and real guests. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { driverContract } from '#agent/compute/driver.contract.ts'
import { libvirtDriver } from '#agent/compute/libvirt/libvirt-driver.ts'
import { systemClock } from '#base/system/clock.ts'
import { processesWithArgumentPrefix, signalProcess } from '#base/system/process.ts'
import { type GuestLab, labLog, openGuestLab } from '../support/guest-lab.ts'
import { until } from '../support/until.ts'
import { startLibvirt } from '../support/libvirt.ts'

const directory = await mkdtemp(join(tmpdir(), 'holdfast-libvirt-'))
const libvirt = await startLibvirt(join(directory, 'libvirt'))

const driverOf = (lab: GuestLab, uri: string) =>
  libvirtDriver({
    prefix: 'lab',
    runDir: join(directory, 'run'),
    folder: (server) => lab.folder(server),
    directory: join(directory, 'compute'),
    nbdSocket: join(directory, 'nbd.sock'),
    clock: systemClock,
    log: labLog,
    program: 'virsh',
    uri,
    network: undefined,
    accelerator: async () => 'tcg',
  })

if ('skip' in libvirt) {
  test('the libvirt driver runs guests', (t) => t.skip(libvirt.skip))
  await rm(directory, { recursive: true, force: true })
} else {
  driverContract('libvirt', async () => {
    const lab = await openGuestLab(directory)
    const make = () => driverOf(lab, libvirt.uri)
    let driver = make()
    const processesOf = async (server: string) =>
      await processesWithArgumentPrefix(`guest=lab-guest-${server},`)
    return {
      driver,
      disk: async (volume, obeys) =>
        await lab.disk(volume, obeys ? { obeys: true, releases: true } : {}),
      folder: (server) => lab.folder(server),
      restart: async () => {
        await driver.close()
        driver = make()
        return driver
      },
      traces: async (server) => {
        const { stdout } = spawnSync('virsh', ['-c', libvirt.uri, 'list', '--all', '--name'])
        const domains = stdout.toString().split('\n')
        return [
          ...(await processesOf(server)).map(({ facts }) => `process ${facts.pid}`),
          ...domains.filter((domain) => domain === `lab-guest-${server}`),
        ]
      },
      crash: async (server) => {
        for (const { facts } of await processesOf(server)) signalProcess(facts.pid, 'SIGKILL')
      },
      until: async (what, look) => await until(what, look),
      clean: async () => {
        try {
          await driver.endStrays(new Set())
        } finally {
          await driver.close()
          await lab.close()
        }
      },
    }
  })

  test('a guest waits while the agent with its disks is away, and goes on with what it wrote', async () => {
    let lab = await openGuestLab(directory)
    let driver = driverOf(lab, libvirt.uri)
    try {
      const disks = [await lab.disk('counted', { counts: true })]
      const count = async () => {
        const bytes = Buffer.alloc(4)
        await (await lab.volumes.open('counted')).read(bytes, 0, 4, 512)
        return bytes.readUInt32LE(0)
      }
      await mkdir(lab.folder('counts'), { recursive: true })
      const plain = { generation: 1, name: 'counts', vcpus: 1, memory_mb: 96, nics: [] }
      await driver.start({ ...plain, server: 'counts', disks })
      await until('it counts', async () => (await count()) > 3)
      await driver.close()
      await lab.close()
      driver = driverOf(lab, libvirt.uri)
      await until('it is paused', async () => (await driver.state('counts')).power === 'paused')
      lab = await openGuestLab(directory)
      const before = await count()
      await until('it runs', async () => (await driver.state('counts')).power === 'running')
      await until('it counts on', async () => (await count()) > before + 3)
      assert.doesNotMatch(await driver.console('counts'), /DISK ERROR/)
    } finally {
      await driver.endStrays(new Set())
      await driver.close()
      await lab.close()
    }
  })

  after(async () => {
    await libvirt.close()
    await rm(directory, { recursive: true, force: true })
  })
}
