import { spawn } from 'node:child_process'
import { closeSync, openSync, renameSync, statSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { assert } from '../assert.ts'
import { type Clock, sleep } from '../clock.ts'
import { hasCode } from './files.ts'

/* What Linux tells about processes that need not be our children. A pid alone names nothing: it is given to
 * another process sooner or later. Whoever wants to signal a process it did not start checks the command line first. */

export interface ProcessFacts {
  readonly pid: number
  /** R, S, D, T, Z ... A zombie (Z) runs nothing and holds nothing. */
  readonly state: string
  /** Clock ticks since boot at which it started: with the pid, a name that is never given twice in one boot. */
  readonly startTicks: number
  readonly commandLine: readonly string[]
}

/** Facts about a process, or undefined when there is none. */
export async function readProcess(pid: number): Promise<ProcessFacts | undefined> {
  try {
    const [stat, command] = await Promise.all([
      readFile(`/proc/${pid}/stat`, 'utf8'),
      readFile(`/proc/${pid}/cmdline`, 'utf8'),
    ])
    // The second field is the name in parentheses and may itself hold blanks and parentheses.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return {
      pid,
      state: fields[0] ?? '?',
      startTicks: Number(fields[19]),
      commandLine: command.split('\0').slice(0, -1),
    }
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'ESRCH')) return undefined
    throw error
  }
}

/** Every process of this machine that carries `argument` as one whole argument. */
export async function processesWithArgument(argument: string): Promise<ProcessFacts[]> {
  const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name)).map(Number)
  const found = await Promise.all(pids.map((pid) => readProcess(pid).catch(() => undefined)))
  return found.filter((facts) => facts?.commandLine.includes(argument) === true) as ProcessFacts[]
}

/** Every process with an argument that begins with `prefix`, right after the argument `option` when one is named, and the rest of that
 *  argument. Those that have ended are left out. */
export async function processesWithArgumentPrefix(
  prefix: string,
  option?: string,
): Promise<{ readonly rest: string; readonly facts: ProcessFacts }[]> {
  const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name)).map(Number)
  const found = await Promise.all(pids.map((pid) => readProcess(pid).catch(() => undefined)))
  return found.flatMap((facts) => {
    const argument = facts?.commandLine.find(
      (one, index, all) =>
        one.startsWith(prefix) && (option === undefined || all[index - 1] === option),
    )
    if (facts === undefined || argument === undefined || facts.state === 'Z') return []
    return [{ rest: argument.slice(prefix.length), facts }]
  })
}

/** True while the very process of these facts runs. One that has ended and was not collected runs nothing. */
export async function isAlive(facts: ProcessFacts): Promise<boolean> {
  const now = await readProcess(facts.pid)
  return now !== undefined && now.state !== 'Z' && now.startTicks === facts.startTicks
}

/** Sends a signal; false when the process is gone already. */
export function signalProcess(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal)
    return true
  } catch (error) {
    if (hasCode(error, 'ESRCH')) return false
    throw error
  }
}

/** Kills a process for good and waits until it runs nothing any more; false when it still does after `limitMs`. */
export async function killAndWait(
  clock: Clock,
  facts: ProcessFacts,
  limitMs: number,
): Promise<boolean> {
  const endMs = clock.bootMs() + limitMs
  signalProcess(facts.pid, 'SIGKILL')
  for (;;) {
    if (!(await isAlive(facts))) return true
    if (clock.bootMs() > endMs) return false
    await sleep(clock, 20)
  }
}

/** A program started by this process. */
export interface Child {
  /** undefined when it could not be started at all; `onExit` is then called with the reason. */
  readonly pid: number | undefined
  /** Called with every whole line of its standard output. */
  onLine(listen: (line: string) => void): void
  /** Called once, after the process is gone and its output read. */
  onExit(listen: (exit: ChildExit) => void): void
  signal(signal: NodeJS.Signals): void
}

export interface ChildExit {
  readonly code: number | null
  readonly signal: string | null
  /** Why it could not be started. */
  readonly failure?: string
}

export interface ChildSpec {
  /** Program and arguments. */
  readonly command: readonly string[]
  readonly cwd: string
  readonly env: Readonly<Record<string, string | undefined>>
  /** Standard error is appended to this file. */
  readonly errorLog: string
}

/** Above this size a log file is set aside as FILE.1 (replacing the one before) when its program starts. */
const LOG_BYTES_MAX = 32 * 1024 * 1024

/**
 * Starts a program in a session of its own, so that Ctrl-C at the terminal reaches only us and we stop the
 * children in order. Its standard input is a pipe that nobody writes to: it ends when this process dies, however that
 * happens, which is how a child learns that it is an orphan.
 */
export function startChild(spec: ChildSpec): Child {
  const [program = '', ...args] = spec.command
  if ((statSync(spec.errorLog, { throwIfNoEntry: false })?.size ?? 0) > LOG_BYTES_MAX) {
    renameSync(spec.errorLog, `${spec.errorLog}.1`)
  }
  const errorFd = openSync(spec.errorLog, 'a', 0o600)
  const child = spawn(program, args, {
    cwd: spec.cwd,
    env: spec.env,
    detached: true,
    stdio: ['pipe', 'pipe', errorFd],
  })
  closeSync(errorFd)
  const { stdin, stdout } = child
  assert(stdin !== null && stdout !== null, 'a child with pipes has streams for them')
  stdin.on('error', () => stdin.destroy()) // it closed its end; nothing was going to be written
  const exit = new Promise<ChildExit>((resolve) => {
    child.once('error', (error) => resolve({ code: null, signal: null, failure: error.message }))
    child.once('close', (code, signal) => resolve({ code, signal }))
  })
  const lines = createInterface({ input: stdout })
  return {
    pid: child.pid,
    onLine: (listen) => void lines.on('line', listen),
    onExit: (listen) => void exit.then(listen),
    signal: (signal) => void child.kill(signal),
  }
}
