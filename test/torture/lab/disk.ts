import { open, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { run, tryRun } from './run.ts'

/* A machine's own disk: a small file system in a file. Small, so that it can be filled within a second. */

export type FileSystem = 'xfs' | 'ext4'

const DISK_BYTES = 512 * 1024 * 1024
const MIB = 1024 * 1024

export class Disk {
  readonly path: string

  private constructor(path: string) {
    this.path = path
  }

  /** `path`: an existing, empty directory. */
  static async create(path: string, kind: FileSystem): Promise<Disk> {
    const image = `${path}.img`
    const file = await open(image, 'w')
    await file.truncate(DISK_BYTES)
    await file.close()
    if (kind === 'xfs') await run('mkfs.xfs', '-q', image)
    else await run('mke2fs', '-q', '-t', 'ext4', '-m', '0', '-E', 'lazy_itable_init=1', image)
    await run('mount', '-o', 'loop', image, path)
    return new Disk(path)
  }

  get #ballast(): string {
    return join(this.path, 'ballast')
  }

  /** Takes all space but a rest that is too small for anything. Returns the bytes taken. */
  async fill(): Promise<number> {
    let taken = 0
    for (let step = 256 * MIB; step >= 4096; ) {
      const { bavail, bsize } = await statfs(this.path)
      const bytes = Math.min(step, bavail * bsize)
      const fits = bytes > 0 && (await this.#extend(taken, bytes))
      if (fits) taken += bytes
      else step = Math.floor(step / 4)
    }
    return taken
  }

  async #extend(at: number, bytes: number): Promise<boolean> {
    const { code } = await tryRun('fallocate', [
      '-o',
      String(at),
      '-l',
      String(bytes),
      this.#ballast,
    ])
    return code === 0
  }

  async free(): Promise<void> {
    await rm(this.#ballast, { force: true })
  }
}
