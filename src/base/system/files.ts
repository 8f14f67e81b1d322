import { closeSync, openSync } from 'node:fs'
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { threadId } from 'node:worker_threads'
import koffi from 'koffi'
import { Fault, fault } from '../fault.ts'

/* Files that must be whole or absent: configuration, certificates, credentials, pid files. Not for volume data. */

/**
 * Replaces `path` by `content`: a reader sees the old file or the new one, also after power loss. The mode
 * holds from the first byte on, so a secret is never readable in between. Rejects with a system error; the old file is there then, or (the
 * directory could not be synced) the new one, and nothing else.
 */
export async function writeFileWhole(
  path: string,
  content: string | Uint8Array,
  mode = 0o644,
): Promise<void> {
  const directory = dirname(path)
  const temporary = join(directory, `.${basename(path)}.${process.pid}.${threadId}.new`)
  await rm(temporary, { force: true })
  try {
    const file = await open(temporary, 'wx', mode)
    try {
      await file.writeFile(content)
      await file.chmod(mode)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    // What did not become the file would only take space, on a disk that may have none. The next attempt writes another one.
    await rm(temporary, { force: true }).catch(() => undefined)
    throw error
  }
  await syncDirectory(directory)
}

/** What was made, renamed and removed in a directory before this call survives power loss when it resolves. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** The text of a file, or undefined when there is none. Any other failure is thrown. */
export async function readTextIfPresent(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}

/**
 * Creates a directory and its parents, all with `mode`. A directory that exists keeps its mode. Throws what the system says when
 * that cannot be. Level by level, because Node's own recursion never ends where a directory that exists takes no
 * new ones and calls that ENOENT, as /proc does.
 */
export async function ensureDirectory(path: string, mode = 0o755): Promise<void> {
  if (await makeDirectory(path, mode)) return
  await ensureDirectory(dirname(path), mode)
  if (!(await makeDirectory(path, mode))) {
    throw Object.assign(new Error(`ENOENT: no directory can be made at ${path}`), {
      code: 'ENOENT',
      path,
    })
  }
}

/** False: its parent is missing, or takes no directories. */
async function makeDirectory(path: string, mode: number): Promise<boolean> {
  try {
    await mkdir(path, { mode })
    return true
  } catch (error) {
    if (hasCode(error, 'ENOENT') && dirname(path) !== path) return false
    if (!hasCode(error, 'EEXIST') || !(await stat(path)).isDirectory()) throw error
    return true
  }
}

/** The errno name of a failed system call: ENOENT, EADDRINUSE ... */
export const hasCode = (error: unknown, code: string): boolean =>
  error instanceof Error && 'code' in error && error.code === code

export const LOCKED = fault({
  code: 'LOCKED',
  retry: 'later',
  text: 'Another process holds the lock.',
  hint: 'Stop that process first, or use another directory.',
})

const LOCK_EXCLUSIVE = 2
const LOCK_NON_BLOCKING = 4

type Flock = (fd: number, operation: number) => number
let flock: Flock | undefined

/**
 * Takes an exclusive lock on `path` (created when missing, never deleted) until `release` or the death of this
 * process, however it dies. Node opens files close-on-exec, so children do not inherit it.
 * Throws Fault LOCKED when someone else holds it.
 */
export function lockFile(path: string): { release(): void } {
  flock ??= koffi.load(null).func('int flock(int fd, int operation)') as unknown as Flock
  const fd = openSync(path, 'a', 0o600)
  if (flock(fd, LOCK_EXCLUSIVE | LOCK_NON_BLOCKING) !== 0) {
    closeSync(fd)
    throw new Fault(LOCKED, `taking ${path}`, { path })
  }
  let held = true
  return {
    release() {
      if (held) closeSync(fd)
      held = false
    },
  }
}

/** Longest path a unix socket can have on Linux: sun_path has 108 bytes and the last one is zero. */
export const SOCKET_PATH_BYTES_MAX = 107
