import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, rmSync, statfsSync } from 'node:fs'
import { join } from 'node:path'

/* A small real disk for one site of the lab: ext4 on a loop device, so that full and failing disks are the kernel's and not a mock's.
 *
 *     thin: the backing file lies on a tmpfs that is smaller than the disk. When that is full, the kernel cannot write pages back that the file system
 *     had accepted: fdatasync fails (once with ENOSPC, then EIO), pages are lost, and ext4 aborts its journal. That is a disk that fails, with
 *     nothing simulated.
 */

const MIB = 1024 * 1024

export interface DiskOptions {
  readonly mib: number
  /** The backing store has only so much room. */
  readonly thinMib?: number
}

/** Why no disk can be made here; null: it can. */
export function noDisks(): string | null {
  if (process.getuid?.() !== 0) return 'mounting needs root'
  if (!existsSync('/dev/loop-control')) return 'there are no loop devices'
  for (const program of ['mkfs.ext4', 'losetup', 'fsfreeze']) {
    if (spawnSync(program, ['-V']).error !== undefined) return `${program} is not installed`
  }
  return null
}

const run = (program: string, ...args: string[]): string =>
  execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim()

export class Disk {
  /** Where it is mounted. */
  readonly directory: string
  readonly #backing: string
  readonly #image: string
  readonly #options: DiskOptions
  #device = ''
  #frozen = false

  /** `backing`: a directory of its own for the image. */
  constructor(directory: string, backing: string, options: DiskOptions) {
    this.directory = directory
    this.#backing = backing
    this.#image = join(backing, 'image')
    this.#options = options
    mkdirSync(directory, { recursive: true })
    mkdirSync(backing, { recursive: true })
    const { mib, thinMib } = options
    if (thinMib !== undefined)
      run('mount', '-t', 'tmpfs', '-o', `size=${thinMib}m`, 'none', backing)
    run('truncate', '-s', `${mib}M`, this.#image)
    run(
      'mkfs.ext4',
      '-q',
      '-F',
      '-m',
      '0',
      '-E',
      'lazy_itable_init=1,lazy_journal_init=1',
      this.#image,
    )
    this.#mount()
  }

  #mount(): void {
    this.#device = run('losetup', '-f', '--show', this.#image)
    run('mount', this.#device, this.directory)
  }

  get freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.directory)
    return bavail * bsize
  }

  /** Takes all room but `leaveBytes`. */
  fill(leaveBytes: number): void {
    const ballast = join(this.directory, 'ballast')
    run('sync', '-f', this.directory)
    const bytes = this.freeBytes - Math.max(leaveBytes, MIB)
    if (bytes > 0) run('fallocate', '-l', String(bytes), ballast)
    // The last of it by writing, because an allocation needs room for its own records.
    if (leaveBytes < MIB)
      spawnSync('dd', [
        'if=/dev/zero',
        `of=${ballast}`,
        'oflag=append',
        'conv=notrunc,fsync',
        'bs=4k',
      ])
  }

  /** Gives the room back. */
  clear(): void {
    rmSync(join(this.directory, 'ballast'), { force: true })
    run('sync', '-f', this.directory)
  }

  /** The thin backing store gets more room. */
  growBacking(mib: number): void {
    run('mount', '-o', `remount,size=${mib}m`, this.#backing)
  }

  /** Writers wait in the kernel from now on. */
  freeze(): void {
    run('fsfreeze', '-f', this.directory)
    this.#frozen = true
  }

  thaw(): void {
    if (this.#frozen) run('fsfreeze', '-u', this.directory)
    this.#frozen = false
  }

  /** What an operator does after a failure: unmount, check, mount. Nobody may use it meanwhile; the page cache is gone afterwards. */
  repair(): void {
    run('umount', this.directory)
    spawnSync('fsck.ext4', ['-f', '-y', this.#device])
    run('losetup', '-d', this.#device)
    this.#mount()
  }

  end(): void {
    this.thaw()
    spawnSync('umount', [this.directory])
    spawnSync('losetup', ['-d', this.#device])
    // The loop device lets go of its file a moment after it was told to.
    if (this.#options.thinMib !== undefined) spawnSync('umount', ['-l', this.#backing])
    rmSync(this.#backing, { recursive: true, force: true })
  }
}
