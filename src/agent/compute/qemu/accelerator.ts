import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { access, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import { readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import type { Accelerator } from './arguments.ts'

/* Whether KVM works here. That /dev/kvm opens says little: inside another virtual machine it may open and then stop at an instruction, or
 * interpret the guest's kernel so slowly that it never gets anywhere. So a guest is booted and must say one word in time.
 *
 * The guest is one sector, loaded by the firmware from a virtio disk: it enters 64-bit mode, executes `lock cmpxchg16b` (where such a
 * KVM is known to stop), runs twenty million rounds of a loop (seconds when interpreted, milliseconds when not) and writes the word to the debug
 * port. The answer is remembered for this boot of the host and this QEMU.
 */

const WORD = 'HOLDFAST'
const LIMIT_MS = 5_000
const LOOK_MS = 20
const DISK_BYTES = 1024 * 1024

/** Last two bytes of a sector that the firmware boots. */
const BOOTABLE = 0xaa55

/** GNU as, .code16 from 0x7c00: page tables at 0x1000, long mode, cmpxchg16b at 0x5000, the loop, `out` to 0xe9, hlt. */
const PROBE_CODE = [
  '+jHAjtiOwI7QvAB8Zr8AEAAAZjHAZrkADAAAZvOrZscGABADIAAAZscGACADMAAAZscGADCDAAAA',
  'ZrgAEAAADyLYDyDgZg0gAgAADyLgZrmAAADADzJmDQABAAAPMA8BFuB8DyDAZg0BAACADyLA6nR8',
  'CABmuBAAjtiOwI7QvwBQAAAxwDHSMdsxyUjHBwAAAABIx0cIAAAAAPBID8cPuQAtMQH/yXX8vrl8',
  'AACshMB0BObp6/f06/1IT0xERkFTVAoADx9EAAAAAAAAAAAAAAAAAAAAmiAAAAAAAACSAAAXAMh8',
].join('')

export interface ProbeOptions {
  readonly program: string
  /** For the probe's files and the answer. */
  readonly directory: string
  readonly bootId: string
  readonly clock: Clock
  readonly log: Log
}

/** Settles within seconds; never rejects for a KVM that does not work. */
export async function findAccelerator(options: ProbeOptions): Promise<Accelerator> {
  const { directory, bootId, program, clock, log } = options
  if (!(await usable('/dev/kvm'))) return 'tcg'
  const file = join(directory, 'accelerator.json')
  const known = parse(await readTextIfPresent(file))
  if (known?.boot_id === bootId && known.program === program) return known.accelerator
  const startMs = clock.bootMs()
  const accelerator = (await bootsUnder('kvm', options)) ? 'kvm' : 'tcg'
  log.info({ accelerator, ms: Math.round(clock.bootMs() - startMs) }, 'tried KVM by booting')
  await writeFileWhole(file, `${JSON.stringify({ boot_id: bootId, program, accelerator })}\n`)
  return accelerator
}

async function usable(path: string): Promise<boolean> {
  return await access(path, constants.R_OK | constants.W_OK).then(
    () => true,
    () => false, // none there, or not for this user
  )
}

function parse(
  text: string | undefined,
): { boot_id: string; program: string; accelerator: Accelerator } | undefined {
  if (text === undefined) return undefined
  try {
    return JSON.parse(text) as { boot_id: string; program: string; accelerator: Accelerator }
  } catch {
    return undefined // whatever it was, it is tried again
  }
}

/** True when the probe's word came in time. */
export async function bootsUnder(
  accelerator: Accelerator,
  { program, directory, clock }: Pick<ProbeOptions, 'program' | 'directory' | 'clock'>,
): Promise<boolean> {
  const folder = await mkdtemp(join(directory, 'probe-'))
  const [disk, word] = [join(folder, 'disk'), join(folder, 'word')]
  const sector = Buffer.alloc(512)
  Buffer.from(PROBE_CODE, 'base64').copy(sector)
  sector.writeUInt16LE(BOOTABLE, 510)
  await writeFile(disk, sector)
  await truncate(disk, DISK_BYTES)
  const child = spawn(
    program,
    [
      ['-machine', 'q35', '-accel', accelerator, '-cpu', accelerator === 'kvm' ? 'host' : 'max'],
      ['-m', '64', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
      ['-blockdev', `driver=file,filename=disk,node-name=d,read-only=on,locking=off`],
      ['-device', 'virtio-blk-pci,drive=d,bootindex=0'],
      ['-chardev', `file,id=w,path=word`, '-device', 'isa-debugcon,iobase=0xe9,chardev=w'],
    ].flat(),
    { cwd: folder, stdio: 'ignore' },
  )
  let ended = false
  const gone = new Promise<void>((resolve) => {
    child.once('error', () => resolve())
    child.once('exit', () => resolve())
  }).then(() => {
    ended = true
  })
  try {
    const endMs = clock.bootMs() + LIMIT_MS
    while (!ended && clock.bootMs() < endMs) {
      const said = await readFile(word, 'latin1').catch(() => '')
      if (said.startsWith(WORD)) return true
      let cancel = () => {}
      const later = new Promise<void>((resolve) => {
        cancel = clock.after(LOOK_MS, resolve)
      })
      await Promise.race([gone, later])
      cancel()
    }
    return false
  } finally {
    child.kill('SIGKILL')
    await gone
    await rm(folder, { recursive: true, force: true })
  }
}
