/** The built-in images: made of real packages, copied into real volumes, and booted from them over NBD by a bare QEMU. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, test, type TestContext } from 'node:test'
import { type Images, openImages } from '#agent/images/images.ts'
import { openLibrary } from '#agent/images/library.ts'
import { ExportTable } from '#agent/nbd/exports.ts'
import { localDevice } from '#agent/nbd/local-device.ts'
import { NbdServer } from '#agent/nbd/server.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { testImages } from '../support/images.ts'

const MIB = 1024 * 1024
const log = createLog('test', 'silent')
/** The machine may be busy: a boot takes 3 s when it is not. */
const LINE_MS = 120_000

let directory: string
let imageDir = ''
let skip = ''
let volumes: VolumeStore
let exports: ExportTable
let server: NbdServer
let images: Images
const guests = new Set<Guest>()

before(async () => {
  const cached = await testImages()
  if ('skip' in cached) skip = cached.skip
  else imageDir = cached.directory
  if (spawnSync('qemu-system-x86_64', ['--version']).error !== undefined) {
    skip = 'qemu-system-x86_64 is not installed'
  }
  directory = await mkdtemp(join(tmpdir(), 'holdfast-images-'))
  volumes = await openFileVolumeStore({
    directory: join(directory, 'volumes'),
    log,
    wallMs: () => systemClock.wallMs(),
  })
  exports = new ExportTable()
  server = new NbdServer({ exports, log, clock: systemClock })
  await server.listenUnix(join(directory, 'nbd.sock'))
  images = await openImages({
    directory: imageDir === '' ? join(directory, 'images') : imageDir,
    fillDirectory: join(directory, 'fills'),
    volumes,
    exports,
    hasSnapshots: () => false,
    log,
  })
})

after(async () => {
  for (const guest of guests) await guest.kill()
  await images.close()
  await server.close()
  await volumes.close()
  await rm(directory, { recursive: true })
})

class Guest {
  readonly lines: string[] = []
  readonly process: ChildProcess
  readonly #qmp: string
  #wake: () => void = () => undefined

  constructor(disks: readonly string[], more: readonly string[] = []) {
    this.#qmp = join(directory, `qmp-${guests.size}.sock`)
    const drives = disks.flatMap((volume, index) => [
      '-blockdev',
      `driver=nbd,node-name=n${index},server.type=unix,server.path=${join(directory, 'nbd.sock')},export=${volume},reconnect-delay=30`,
      '-device',
      `virtio-blk-pci,drive=n${index},serial=${volume}${index === 0 ? ',bootindex=0' : ''}`,
    ])
    const args =
      '-machine q35 -accel tcg -cpu max -m 128 -nodefaults -no-user-config -display none -no-reboot -serial stdio'
    const qmp = ['-qmp', `unix:${this.#qmp},server=on,wait=off`]
    this.process = spawn('qemu-system-x86_64', [...args.split(' '), ...qmp, ...drives, ...more], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    guests.add(this)
    const { stdout } = this.process
    assert.ok(stdout !== null)
    createInterface({ input: stdout }).on('line', (line) => {
      this.lines.push(line.trim())
      this.#wake()
    })
    this.process.once('exit', () => this.#wake())
  }

  /** The first line that fits, also one that came before. */
  async line(pattern: RegExp): Promise<RegExpExecArray> {
    const limit = systemClock.bootMs() + LINE_MS
    for (;;) {
      for (const line of this.lines) {
        const found = pattern.exec(line)
        if (found !== null) return found
      }
      const over = this.process.exitCode !== null || systemClock.bootMs() > limit
      assert.ok(!over, `no line like ${String(pattern)} in: ${this.lines.slice(-20).join(' | ')}`)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        setTimeout(resolve, 1_000)
      })
    }
  }

  async kill(): Promise<void> {
    guests.delete(this)
    if (this.process.exitCode !== null || this.process.signalCode !== null) return
    this.process.kill('SIGKILL')
    // What it said last has been read, too.
    await once(this.process, 'close')
  }

  async pressPower(): Promise<void> {
    const socket = connect(this.#qmp)
    socket.on('data', () => undefined)
    for (const execute of ['qmp_capabilities', 'system_powerdown']) {
      socket.write(`${JSON.stringify({ execute })}\n`)
    }
    if (this.process.exitCode === null) await once(this.process, 'close')
    socket.destroy()
  }

  highest(word: string): number {
    const numbers = this.lines.map((line) => new RegExp(`^${word} ([0-9]+)$`).exec(line)?.[1])
    return Math.max(...numbers.map((found) => Number(found ?? -1)))
  }
}

async function filledVolume(volume: string, image: string): Promise<void> {
  await volumes.create(volume, 128 * MIB, { mode: 'standalone' })
  for (;;) {
    const { state } = await images.commands.fillVolume({ volume, image, fill: `fill-${volume}` })
    if (state === 'filled') return
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const skipped = (t: TestContext): boolean => {
  if (skip !== '') t.skip(skip)
  return skip !== ''
}

test('a guest boots from a filled volume, counts on it, is killed, and goes on from its last acknowledgement', async (t) => {
  if (skipped(t)) return
  await filledVolume('disk-counter', 'holdfast-counter')
  const first = new Guest(['disk-counter'])
  await first.line(/^DISK vda 134217728 disk-counter$/)
  await first.line(/^READY \S+ 1$/)
  await first.line(/^COUNTER 0$/)
  await first.line(/^ACK 20$/)
  await first.kill()
  const acknowledged = first.highest('ACK')
  const second = new Guest(['disk-counter'])
  const found = Number((await second.line(/^COUNTER ([0-9]+)$/))[1])
  assert.ok(found >= acknowledged, `found ${found}, acknowledged ${acknowledged}`)
  assert.ok(found <= acknowledged + 1, 'nothing was made up')
  await second.line(/^READY \S+ 2$/)
  await second.line(new RegExp(`^ACK ${found + 1}$`))
  await second.pressPower()
  assert.equal(second.process.exitCode, 0)
  await second.line(/^STOPPING$/)
})

test('a guest takes its name and address by DHCP, tells its disks, and runs the script that a disk holds', async (t) => {
  if (skipped(t)) return
  await filledVolume('disk-tiny', 'holdfast-tiny')
  await volumes.create('disk-script', 8 * MIB, { mode: 'standalone' })
  const volume = await volumes.open('disk-script')
  const script = Buffer.from(
    '#!holdfast\necho "I am $(hostname)"\nwget -q -O - http://127.0.0.1/\n',
  )
  volume.writeSync(script, 0, script.length, 0)
  exports.serve('disk-script', localDevice(volume))
  const net = 'user,id=net0,restrict=on,hostname=guest-one'
  const guest = new Guest(
    ['disk-tiny', 'disk-script'],
    ['-netdev', net, '-device', 'virtio-net-pci,netdev=net0'],
  )
  await guest.line(/^NET eth0 10\.0\.2\.[0-9]+\/24$/)
  await guest.line(/^READY guest-one 1$/)
  await guest.line(/^DISK vdb 8388608 disk-script$/)
  await guest.line(/^I am guest-one$/)
  await guest.line(/^SCRIPT vdb ENDED 0$/)
  await guest.pressPower()
  assert.equal(guest.process.exitCode, 0)
})

test('an image is made once by several agents at a time, the same bytes again, after a maker was killed', async (t) => {
  if (skipped(t)) return
  const shared = join(directory, 'shared')
  await mkdir(join(shared, '.new-rest'), { recursive: true })
  await symlink(join(imageDir, 'packages'), join(shared, 'packages'))
  await writeFile(join(shared, '.new-holdfast-tiny.raw'), 'half an image of a process that died')
  const makers = [0, 1].map(() => openLibrary({ directory: shared, log }))
  const made = await Promise.all(makers.map((maker) => maker.provide('holdfast-tiny')))
  assert.deepEqual(made[0], made[1])
  const cached = JSON.parse(await readFile(join(imageDir, 'holdfast-tiny.json'), 'utf8')) as {
    sha256: string
  }
  assert.equal(made[0]?.record.sha256, cached.sha256)
  assert.deepEqual((await readdir(shared)).toSorted(), [
    'holdfast-tiny.json',
    'holdfast-tiny.raw',
    'lock',
    'packages',
  ])
  const { mtimeNs } = await stat(join(shared, 'holdfast-tiny.raw'), { bigint: true })
  for (const maker of makers) {
    assert.equal((await maker.prepare('holdfast-tiny')).state, 'ready')
    await maker.close()
  }
  assert.equal(
    (await stat(join(shared, 'holdfast-tiny.raw'), { bigint: true })).mtimeNs,
    mtimeNs,
    'it was not made again',
  )
  // A damaged one is seen by its record and made anew.
  await cp(join(shared, 'lock'), join(shared, 'holdfast-tiny.raw'))
  const again = openLibrary({ directory: shared, log })
  assert.equal((await again.provide('holdfast-tiny')).record.sha256, cached.sha256)
  await again.close()
})
