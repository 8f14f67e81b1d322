import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { hasCode, readTextIfPresent, writeFileWhole } from '#base/system/files.ts'

/* Where a guest's last start lies in its console: the file that took its output then, and how long it was. A console file that is another one
 * by now, or was cut since, says less than that: then all of it counts. */

const FILE = 'console.start'

export interface ConsoleStart {
  readonly inode: number
  readonly bytes: number
}

/** Before the guest is started. `log` is the file that its console goes to. */
export async function noteConsoleStart(folder: string, log: string): Promise<void> {
  const start = await fileOf(join(folder, log))
  await writeFileWhole(join(folder, FILE), `${JSON.stringify(start)}\n`, 0o600)
}

/** Of `bytes` at the beginning of this file, how many are from before the last start; undefined: the start lies in another file. */
export async function bytesBeforeStart(folder: string, path: string): Promise<number | undefined> {
  const text = await readTextIfPresent(join(folder, FILE))
  if (text === undefined) return undefined
  const start = JSON.parse(text) as ConsoleStart
  const { inode, bytes } = await fileOf(path)
  // A console that did not exist at the start began with it.
  if (start.inode === 0) return 0
  return inode === start.inode && bytes >= start.bytes ? start.bytes : undefined
}

async function fileOf(path: string): Promise<ConsoleStart> {
  try {
    const { ino, size } = await stat(path)
    return { inode: ino, bytes: size }
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return { inode: 0, bytes: 0 }
    throw error
  }
}
