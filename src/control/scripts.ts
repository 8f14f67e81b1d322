import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { access, lstat } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import type { Clock } from '#base/clock.ts'
import { hasCode } from '#base/system/files.ts'
import { killAndWait, processesWithArgument, signalProcess } from '#base/system/process.ts'
import type { RecoveryScripts, ScriptCall, ScriptOutcome } from '#control/operations/services.ts'

/* The scripts of recovery plans. A plan names an executable and nothing else: what may run on the host of the control plane is decided by
 * whoever may write to its directory, never by a request. So directory and executable have to belong to root or to the user of this process,
 * and nobody else may be able to change them; links are not followed. There is no shell and there are no arguments but the key of the call,
 * by which a script that outlived a killed control plane is found and ended before its repetition begins. What it prints goes to the
 * operator who asks for the run, never to the log.
 */

const OUTPUT_BYTES_MAX = 4_096
/** Between the polite end and the other one. */
const POLITE_MS = 2_000
const LEFTOVER_MS = 10_000
/** For what was printed last by something that keeps the pipe. */
const PIPE_MS = 500
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

export function recoveryScripts(directory: string, clock: Clock): RecoveryScripts {
  async function unfit(name: string): Promise<string | null> {
    if (!NAME.test(name)) return `${name} is no name of a script`
    const path = join(directory, name)
    try {
      const folder = await lstat(directory)
      if (!folder.isDirectory()) return `${directory} is not a directory`
      if (isForeign(folder)) return `${directory} can be changed by other users`
      const file = await lstat(path)
      if (!file.isFile()) return `${path} is not a regular file`
      if (isForeign(file)) return `${path} can be changed by other users`
      await access(path, constants.X_OK)
      return null
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return `${path} does not exist`
      if (hasCode(error, 'EACCES')) return `${path} may not be executed`
      throw error
    }
  }

  return {
    unfit,
    async run(name, call) {
      const reason = await unfit(name)
      if (reason !== null) return { ok: false, reason, output: '' }
      const mark = `holdfast-recovery-${call.key}`
      for (const facts of await processesWithArgument(mark)) {
        // The leader of its group: see below.
        signalProcess(-facts.pid, 'SIGKILL')
        await killAndWait(clock, facts, LEFTOVER_MS)
      }
      call.signal.throwIfAborted()
      return await runOnce(join(directory, name), mark, call)
    },
  }

  async function runOnce(path: string, mark: string, call: ScriptCall): Promise<ScriptOutcome> {
    const { environment, timeoutMs, signal } = call
    const child = spawn(path, [mark], {
      cwd: directory,
      env: { ...environment, PATH },
      // A group of its own, so that what it starts is ended with it.
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = Buffer.alloc(0)
    const keep = (chunk: Buffer) => {
      output = Buffer.concat([output, chunk]).subarray(-OUTPUT_BYTES_MAX)
    }
    child.stdout.on('data', keep)
    child.stderr.on('data', keep)
    let ended: string | null = null
    const end = (why: string) => {
      ended ??= why
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
      signalProcess(-child.pid, 'SIGTERM')
      clock.after(POLITE_MS, () => {
        if (child.pid !== undefined) signalProcess(-child.pid, 'SIGKILL')
      })
    }
    const cancelLimit = clock.after(timeoutMs, () =>
      end(`it took longer than ${timeoutMs / 1_000} s`),
    )
    const onAbort = () => end('the control plane stops')
    signal.addEventListener('abort', onAbort, { once: true })
    const failure = await new Promise<string | null>((resolve) => {
      child.once('error', (error) => resolve(`it could not be run: ${error.message}`))
      child.once('exit', (code, name) => {
        const how = code === null ? `it was ended by ${name}` : `it ended with ${code}`
        // What it left in the background may hold the pipe open for as long as it likes.
        const cancelPipe = clock.after(PIPE_MS, () => resolve(code === 0 ? null : how))
        child.once('close', () => {
          cancelPipe()
          resolve(code === 0 ? null : how)
        })
      })
    })
    cancelLimit()
    signal.removeEventListener('abort', onAbort)
    child.stdout.destroy()
    child.stderr.destroy()
    signal.throwIfAborted()
    const reason = ended ?? failure
    // Only text goes into the database.
    const text = output.toString().replaceAll('\0', '')
    return { ok: reason === null, reason, output: text }
  }
}

/** Somebody besides root and this process's user can change it. */
const isForeign = ({ uid, mode }: { readonly uid: number; readonly mode: number }): boolean =>
  (uid !== 0 && uid !== process.getuid?.()) || (mode & 0o022) !== 0
