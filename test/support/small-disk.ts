import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export interface SmallDisk {
  readonly directory: string
  end(): Promise<void>
}

/** A file system in memory that holds `kib`, or the reason why there can be none here. Milliseconds; needs root. */
export async function smallDisk(kib: number): Promise<SmallDisk | string> {
  if (process.getuid?.() !== 0) return 'mounting needs root'
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-small-'))
  try {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${kib}k`, 'holdfast-test', directory])
  } catch (error) {
    await rm(directory, { recursive: true, force: true })
    return `nothing can be mounted here: ${String(error)}`
  }
  return {
    directory,
    async end() {
      await run('umount', [directory])
      await rm(directory, { recursive: true, force: true })
    },
  }
}
