import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'

/* Guests as processes. They are started in a session of their own and outlive whoever started them.
 *
 * A guest is recognised by the path of its pid file, which it carries on its command line: found by looking at all processes, it needs no
 * file that somebody may have failed to write. QEMU writes the pid file itself and holds a lock on it, so there are never two guests of one
 * server. To be sure that a process looked at a moment ago is still the same one, its start time is compared.
 */

/** Largest file that a guest's process can make: its console when no agent shortens it, in blocks of 512 bytes. */
const FILE_BLOCKS_MAX = 32 * 1024 * 2

export interface GuestProcessSpec {
  readonly program: string
  readonly args: readonly string[]
  readonly nice: number
  /** Working directory. */
  readonly folder: string
  /** Truncated; takes what the program says. */
  readonly log: string
}

export interface StartedProcess {
  readonly pid: number
  /** How it ended, as words. Never rejects. */
  readonly ended: Promise<string>
}

/** Starts a guest. A program that cannot be started ends at once, and says why in `ended` or in its log. */
export function startGuestProcess(spec: GuestProcessSpec): StartedProcess {
  const log = openSync(spec.log, 'w', 0o600)
  // The limit of files outlives the agent; a write beyond it fails instead of ending the guest.
  const script = [
    `ulimit -f ${FILE_BLOCKS_MAX} 2>&-`,
    "trap '' XFSZ",
    // Where the kernel groups processes by session, it compares nice values within a session only, and guests have one each.
    '{ echo "$0" > /proc/self/autogroup; } 2>&-',
    'exec nice -n "$0" "$@"',
  ].join('; ')
  try {
    const child = spawn('/bin/sh', ['-c', script, String(spec.nice), spec.program, ...spec.args], {
      cwd: spec.folder,
      detached: true,
      stdio: ['ignore', log, log],
    })
    child.unref()
    const ended = new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(error.message))
      child.once('exit', (code, signal) =>
        resolve(signal === null ? `exit code ${code}` : `signal ${signal}`),
      )
    })
    return { pid: child.pid ?? 0, ended }
  } finally {
    closeSync(log)
  }
}
