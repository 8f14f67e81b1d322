import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export interface LoopMount {
  readonly directory: string
  unmount(): Promise<void>
}

/**
 * A file system of its own in a file, mounted; or the reason why that cannot be done here. Needs root. `disk`: it is to behave like one, and past the page
 * cache of the file. Without it what the file system has written back lies in memory once more, and the flush that comes last writes all of it.
 */
export async function loopMount(
  type: 'xfs' | 'btrfs',
  sizeMib: number,
  like: 'disk' | 'file' = 'file',
): Promise<LoopMount | string> {
  if (process.getuid?.() !== 0) return 'mounting needs root'
  const parent = await mkdtemp(join(tmpdir(), `holdfast-${type}-`))
  const image = join(parent, 'image')
  const directory = join(parent, 'mnt')
  try {
    await mkdir(directory)
    await writeFile(image, '')
    await truncate(image, sizeMib * 1024 * 1024)
    await run(`mkfs.${type}`, ['-q', '-f', image])
    const directIo = like === 'disk' ? 'on' : 'off'
    const losetup = ['--find', '--show', `--direct-io=${directIo}`, image]
    const { stdout } = await run('losetup', losetup)
    const device = stdout.trim()
    try {
      await run('mount', [device, directory])
    } finally {
      // While it is mounted this says that it goes with the mount.
      await run('losetup', ['--detach', device])
    }
  } catch (error) {
    await rm(parent, { recursive: true, force: true })
    return `no ${type} can be mounted here: ${String(error)}`
  }
  return {
    directory,
    async unmount() {
      await run('umount', [directory])
      await rm(parent, { recursive: true, force: true })
    },
  }
}
