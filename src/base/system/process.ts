import { readdir, readFile } from 'node:fs/promises'
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
    const now = await readProcess(facts.pid)
    if (now === undefined || now.state === 'Z' || now.startTicks !== facts.startTicks) return true
    if (clock.bootMs() > endMs) return false
    await sleep(clock, 20)
  }
}
