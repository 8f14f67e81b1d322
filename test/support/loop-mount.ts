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

/** A file system of its own in a file, mounted; or the reason why that cannot be done here. Needs root. */
export async function loopMount(
  type: 'xfs' | 'btrfs',
  sizeMib: number,
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
    await run('mount', ['-o', 'loop', image, directory])
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
