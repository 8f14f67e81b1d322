/** The qemu driver against real guests: boot sectors that say what they do. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { driverContract } from '#agent/compute/driver.contract.ts'
import { bootsUnder } from '#agent/compute/qemu/accelerator.ts'
import type { QemuOptions } from '#agent/compute/qemu/qemu-driver.ts'
import { IO_ERRORS } from '#agent/nbd/device.ts'
import { localDevice } from '#agent/nbd/local-device.ts'
import { systemClock } from '#base/system/clock.ts'
import { processesWithArgumentPrefix, signalProcess } from '#base/system/process.ts'
import { definitionOf, type GuestLab, NO_QEMU, openGuestLab, QEMU } from '../support/guest-lab.ts'
import { until } from '../support/until.ts'

async function inLab(
  work: (lab: GuestLab) => Promise<void>,
  options: Partial<QemuOptions> = {},
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-guests-'))
  const lab = await openGuestLab(directory, options)
  try {
    await work(lab)
  } finally {
    await lab.driver.endStrays(new Set())
    await lab.close()
    await rm(directory, { recursive: true, force: true })
  }
}

driverContract(
  'qemu',
  async () => {
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-guests-'))
    let lab = await openGuestLab(directory)
    const pidOf = async (server: string) => Number(await readFile(lab.pidFile(server), 'utf8'))
    return {
      driver: lab.driver,
      disk: async (volume, obeys) =>
        await lab.disk(volume, obeys ? { obeys: true, releases: true } : {}),
      folder: (server) => lab.folder(server),
      restart: async () => {
        await lab.close()
        lab = await openGuestLab(directory)
        return lab.driver
      },
      traces: async (server) => {
        const found = await processesWithArgumentPrefix(lab.pidFile(server))
        const socket = join(lab.folder(server), 'qmp.sock')
        return [
          ...found.map(({ facts }) => `process ${facts.pid}`),
          ...[lab.pidFile(server), socket].filter((path) => existsSync(path)),
        ]
      },
      crash: async (server) => {
        signalProcess(await pidOf(server), 'SIGKILL')
      },
      until: (what, look) => until(what, look),
      clean: async () => {
        await lab.close()
        await rm(directory, { recursive: true, force: true })
      },
    }
  },
  NO_QEMU,
)

test('the console keeps its newest part and stays bounded while a guest floods it', {
  skip: NO_QEMU,
}, async () => {
  const keep = 32 * 1024
  await inLab(
    async (lab) => {
      const definition = definitionOf('flood', [await lab.disk('flood-disk', { floods: true })])
      await mkdir(lab.folder('flood'))
      await lab.driver.start(definition)
      const older = join(lab.folder('flood'), 'console.old')
      const newer = join(lab.folder('flood'), 'console.log')
      let begun = 0
      let last = 0
      await until('the newer part was begun again and again', async () => {
        const size = (await stat(newer).catch(() => undefined))?.size ?? 0
        if (size < last) begun++
        last = size
        return begun >= 3
      })
      // Whatever the guest was ahead by is cut off right after the parts were changed.
      await until('the older part is cut', async () => (await stat(older)).size <= keep / 2)
      const output = await lab.driver.console('flood')
      assert.ok(output.length <= keep)
      assert.ok(output.length > 0)
      const lines = output.split('\n').slice(1, -1)
      assert.ok(
        lines.every((line) => line === lines[0] && /^(flood ?){11}$/.test(line)),
        'no line is torn',
      )
      await lab.driver.stop('flood')
    },
    { consoleBytes: keep },
  )
})

test('a guest goes on where it was when its disk comes back after a while', {
  skip: NO_QEMU,
}, async () => {
  await inLab(async (lab) => {
    const definition = definitionOf('waits', [
      await lab.disk('waits-disk', { counts: true, obeys: true }),
    ])
    await mkdir(lab.folder('waits'))
    await lab.driver.start(definition)
    const volume = await lab.volumes.open('waits-disk')
    const count = async () => {
      const sector = Buffer.alloc(512)
      await volume.read(sector, 0, 512, 512)
      return sector.readUInt32LE(0)
    }
    await until('it counts', async () => (await count()) > 0)
    lab.exports.refuse('waits-disk', 'the replication is frozen')
    const frozen = await count()
    assert.equal((await lab.driver.state('waits')).power, 'running')
    await lab.disk('waits-disk')
    await until('it counts on', async () => (await count()) > frozen + 1)
    assert.doesNotMatch(await lab.driver.console('waits'), /DISK ERROR/)
    await lab.driver.stop('waits')
  })
})

test('a guest whose site has no space is paused with the reason, and goes on when there is space', {
  skip: NO_QEMU,
}, async () => {
  await inLab(async (lab) => {
    const definition = definitionOf('full', [await lab.disk('full-disk', { counts: true })])
    const served = localDevice(await lab.volumes.open('full-disk'))
    let full = true
    await lab.exports.hold('full-disk')
    lab.exports.serve('full-disk', {
      sizeBytes: served.sizeBytes,
      submit: (batch, count) => {
        for (const io of batch.slice(0, count)) {
          if (full && io.kind === 'write') io.complete(IO_ERRORS.ENOSPC)
          else served.submit([io], 1)
        }
      },
    })
    lab.exports.release('full-disk')
    await mkdir(lab.folder('full'))
    await lab.driver.start(definition)
    const state = await until('it is paused', async () => {
      const seen = await lab.driver.state('full')
      return seen.power === 'paused' && seen.reason !== null ? seen : undefined
    })
    assert.match(state.reason ?? '', /a disk has no space left/)
    full = false
    await until('it runs again', async () => {
      const { power, reason } = await lab.driver.state('full')
      return power === 'running' && reason === null
    })
    assert.doesNotMatch(await lab.driver.console('full'), /DISK ERROR/)
    await lab.driver.stop('full')
  })
})

test('an accelerator counts as working when a guest boots under it in time', {
  skip: NO_QEMU,
}, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-probe-'))
  try {
    const probe = { program: QEMU, directory, clock: systemClock }
    assert.equal(await bootsUnder('tcg', probe), true)
    assert.equal(await bootsUnder('tcg', { ...probe, program: '/bin/false' }), false)
    assert.equal(await bootsUnder('tcg', { ...probe, program: '/no/such/program' }), false)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
})
