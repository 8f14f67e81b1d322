import { open, rename, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { hasCode } from '#base/system/files.ts'
import { bytesBeforeStart } from '../console-start.ts'
import { CONSOLE_LOG, CONSOLE_OLD } from './arguments.ts'

/* What a guest wrote to its serial console: `console.log`, to which QEMU appends, and before it `console.old`.
 *
 * When the newer one reaches half of what is kept, it becomes the older one and QEMU is told to open a new one. It goes on writing to
 * the renamed file until then, so nothing is lost between; whoever dies between leaves no `console.log`, which is how the
 * next one knows. A guest that floods its console may be ahead of this by what it writes in a second; the part that became the older
 * one is cut to its newest half then.
 */

/** Makes room if it is time. `reopen` makes QEMU open `console.log` anew. */
export async function rotateConsole(
  folder: string,
  keepBytes: number,
  reopen: () => Promise<void>,
): Promise<void> {
  const half = keepBytes / 2
  const [newer, older] = [join(folder, CONSOLE_LOG), join(folder, CONSOLE_OLD)]
  const size = await sizeOf(newer)
  if (size === undefined) await reopen()
  else if (size < half) return
  else {
    await rename(newer, older)
    await reopen()
  }
  if (((await sizeOf(older)) ?? 0) > half) await keepEnd(older, half)
}

/** The newest `bytes`, as text. */
export async function readConsole(folder: string, bytes: number): Promise<string> {
  const newer = await readEnd(join(folder, CONSOLE_LOG), bytes)
  const room = bytes - newer.length
  const older = room > 0 ? await readEnd(join(folder, CONSOLE_OLD), room) : Buffer.alloc(0)
  return Buffer.concat([older, newer]).toString()
}

/** As `readConsole`, only what came since the last start of the guest. */
export async function readConsoleSinceStart(folder: string, bytes: number): Promise<string> {
  const all = await readConsole(folder, bytes)
  const length = Buffer.byteLength(all)
  const [newer, older] = [join(folder, CONSOLE_LOG), join(folder, CONSOLE_OLD)]
  const newerBytes = (await sizeOf(newer)) ?? 0
  const inNewer = await bytesBeforeStart(folder, newer)
  if (inNewer !== undefined) return lastBytes(all, Math.min(length, newerBytes - inNewer))
  const inOlder = await bytesBeforeStart(folder, older)
  // Neither: the start is longer ago than what is kept.
  if (inOlder === undefined) return all
  return lastBytes(all, Math.min(length, newerBytes + ((await sizeOf(older)) ?? 0) - inOlder))
}

const lastBytes = (text: string, bytes: number): string =>
  bytes <= 0 ? '' : Buffer.from(text).subarray(-bytes).toString()

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}

async function readEnd(path: string, bytes: number): Promise<Buffer> {
  const size = await sizeOf(path)
  if (size === undefined) return Buffer.alloc(0)
  const file = await open(path, 'r')
  try {
    const buffer = Buffer.alloc(Math.min(size, bytes))
    const { bytesRead } = await file.read(buffer, 0, buffer.length, size - buffer.length)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

async function keepEnd(path: string, bytes: number): Promise<void> {
  const end = await readEnd(path, bytes)
  const shorter = `${path}.new`
  const file = await open(shorter, 'w', 0o600)
  try {
    await file.writeFile(end)
  } finally {
    await file.close()
  }
  await rename(shorter, path)
}
