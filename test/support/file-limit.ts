import { spawnSync } from 'node:child_process'

/**
 * Runs `work` while this process may not make files longer than `bytes` (RLIMIT_FSIZE): the kernel then does what it does on a disk that becomes full.
 * A write across the limit is a short one, a write behind it fails with EFBIG, and so does a truncation. Node ignores the signal that comes along.
 */
export async function withFilesUpTo<T>(bytes: number, work: () => Promise<T>): Promise<T> {
  limit(String(bytes))
  try {
    return await work()
  } finally {
    limit('unlimited')
  }
}

function limit(bytes: string): void {
  const set = ['--pid', String(process.pid), `--fsize=${bytes}:unlimited`]
  const { status, stderr } = spawnSync('prlimit', set)
  if (status !== 0) throw new Error(`prlimit: ${String(stderr)}`)
}
