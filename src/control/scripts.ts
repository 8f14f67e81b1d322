import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { access, lstat } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import { assert } from '#base/assert.ts'
import { type Clock, sleep } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import { hasCode } from '#base/system/files.ts'
import { killAndWait, processesWithArgument, signalProcess } from '#base/system/process.ts'
import type { RecoveryScripts, ScriptCall, ScriptOutcome } from '#control/operations/services.ts'

/* The scripts of recovery plans. A plan names an executable and nothing else: what may run on the host of the control plane is decided by
 * whoever may write to its directory, never by a request. Each project has a directory of its own under that, named by its id, and a plan
 * runs what lies there and nothing else: who writes plans in one project cannot run what the operator put there for another. Both
 * directories and the executable have to belong to root or to the user of this process, and nobody else may be able to change them; links
 * are not followed. There is no shell and there are no arguments but the key of the call, by which a script that outlived a killed
 * control plane is found and ended before its repetition begins. What it prints goes to the operator who asks for the run, never to the log.
 */

const OUTPUT_BYTES_MAX = 4_096
/** Between the polite end and the other one. */
const POLITE_MS = 2_000
const LEFTOVER_MS = 10_000
/** For what was printed last by something that keeps the pipe. */
const PIPE_MS = 500
/** At once in this process; more wait for their turn. Each is a process tree of somebody else's making on the host of the control plane. */
const AT_ONCE = 32
/** Signs of life of others that are remembered; the oldest is forgotten first, which only makes one be believed for longer. */
const SIGNS_MAX = 1_024
/** Before an outcome that could not be kept is tried to be kept again. */
const KEEP_PAUSE_MS = 1_000
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

/** `directory` null: this control plane has none, and every script is unfit; of one that another control plane runs it knows all the same. */
export function recoveryScripts(
  directory: string | null,
  { clock, log, owner }: { readonly clock: Clock; readonly log: Log; readonly owner: string },
): RecoveryScripts {
  const running = new Map<
    string,
    { readonly cut: AbortController; readonly ended: Promise<void> }
  >()
  /** Places of calls that are about to begin. */
  const reserved = new Set<string>()
  const signs = new Map<string, { readonly sign: string; readonly sinceMs: number }>()
  let stopping = false

  async function unfit(project: string, name: string): Promise<string | null> {
    if (directory === null) return NO_DIRECTORY
    if (!NAME.test(name)) return `${name} is no name of a script`
    assert(NAME.test(project), 'the id of a project is a name of a directory')
    const home = join(directory, project)
    const path = join(home, name)
    try {
      for (const folder of [directory, home]) {
        const facts = await lstat(folder)
        if (!facts.isDirectory()) return `${folder} is not a directory`
        if (isForeign(facts)) return `${folder} can be changed by other users`
      }
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

  async function run(call: ScriptCall, signal: AbortSignal): Promise<ScriptOutcome> {
    if (directory === null) return failed(NO_DIRECTORY)
    const reason = await unfit(call.project, call.name)
    if (reason !== null) return failed(reason)
    const mark = `holdfast-recovery-${call.key}`
    for (const facts of await processesWithArgument(mark)) {
      // The leader of its group: see below.
      signalProcess(-facts.pid, 'SIGKILL')
      if (!(await killAndWait(clock, facts, LEFTOVER_MS))) {
        return failed(`what an earlier attempt left running (process ${facts.pid}) does not end`)
      }
    }
    signal.throwIfAborted()
    return await runOnce(join(directory, call.project), call, mark, signal)
  }

  async function runOnce(
    home: string,
    { name, environment, timeoutMs }: ScriptCall,
    mark: string,
    signal: AbortSignal,
  ): Promise<ScriptOutcome> {
    const child = spawn(join(home, name), [mark], {
      cwd: home,
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
    const onAbort = () => end('it was cut short')
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

  async function runAndKeep(
    call: ScriptCall,
    signal: AbortSignal,
    ended: (outcome: ScriptOutcome) => Promise<void>,
  ): Promise<void> {
    const outcome = await run(call, signal).catch((error: unknown) => {
      signal.throwIfAborted()
      // Kept as its end: without one it would be begun again at every look.
      log.error({ err: error, script: call.name }, 'a script could not be run')
      const why = error instanceof Error ? error.message : String(error)
      return failed(`it could not be run: ${why}`)
    })
    for (;;) {
      try {
        return await ended(outcome)
      } catch (error) {
        log.error({ err: error, script: call.name }, 'what became of a script could not be kept')
        await sleep(clock, KEEP_PAUSE_MS, signal)
      }
    }
  }

  return {
    owner,
    unfit,
    runs: (key) => running.has(key) || reserved.has(key),
    reserve(key) {
      if (stopping || running.has(key) || reserved.has(key)) return false
      if (running.size + reserved.size >= AT_ONCE) return false
      reserved.add(key)
      return true
    },
    release: (key) => void reserved.delete(key),
    quietMs(key, sign) {
      const known = signs.get(key)
      if (known?.sign === sign) return clock.bootMs() - known.sinceMs
      signs.delete(key)
      for (const [oldest] of signs) if (signs.size >= SIGNS_MAX) signs.delete(oldest)
      signs.set(key, { sign, sinceMs: clock.bootMs() })
      return 0
    },
    async begin(call, ended) {
      assert(reserved.delete(call.key), 'a place is reserved for a script before it begins')
      // What was cut short in its first moment.
      if (stopping) return
      const cut = new AbortController()
      const work = runAndKeep(call, cut.signal, ended)
        .catch((error: unknown) => {
          if (!cut.signal.aborted) log.error({ err: error, script: call.name }, 'a script was lost')
        })
        .finally(() => running.delete(call.key))
      running.set(call.key, { cut, ended: work })
      signs.delete(call.key)
      await work
    },
    end: (key) => running.get(key)?.cut.abort(),
    async stop() {
      stopping = true
      for (const { cut } of running.values()) cut.abort()
      await Promise.all([...running.values()].map(({ ended }) => ended))
    },
  }
}

const NO_DIRECTORY = 'this control plane has no directory of scripts (recoveryScripts)'

const failed = (reason: string): ScriptOutcome => ({ ok: false, reason, output: '' })

/** Somebody besides root and this process's user can change it. */
const isForeign = ({ uid, mode }: { readonly uid: number; readonly mode: number }): boolean =>
  (uid !== 0 && uid !== process.getuid?.()) || (mode & 0o022) !== 0
