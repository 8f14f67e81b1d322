import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, release } from 'node:os'

/* What else the machine did while we measured. A ratio of two programs is worthless when a third one took a core from only
 * one of them, so every sample knows how much processor time went to processes that are not part of it. */

const TICKS_PER_SECOND = 100

/** Processor time so far, in seconds. */
export interface CpuTimes {
  readonly atMs: number
  /** User and system time of everything on all cores, without interrupts. */
  readonly all: number
  /** Of that, kernel threads: write-back and network work on our behalf. */
  readonly kernelThreads: number
  /** Of that, this process and the programs given. */
  readonly ours: number
}

/** User and system time of a process since its start, in seconds; the kernel counts in steps of 10 ms. */
export function processorSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

export function cpuTimes(pids: readonly number[]): CpuTimes {
  const [, user, nice, system] = (
    /^cpu +(\d+) (\d+) (\d+)/.exec(readFileSync('/proc/stat', 'utf8')) ?? []
  ).map(Number)
  const wanted = new Set([process.pid, ...pids])
  let kernelThreads = 0
  let ours = 0
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const stat = readStat(name)
    if (stat === undefined) continue
    if (stat.parent === 2) kernelThreads += stat.ticks
    // Programs that fork (fio) are counted with their children.
    else if (wanted.has(Number(name)) || wanted.has(stat.parent)) ours += stat.ticks
  }
  return {
    atMs: performance.now(),
    all: ((user ?? 0) + (nice ?? 0) + (system ?? 0)) / TICKS_PER_SECOND,
    kernelThreads: kernelThreads / TICKS_PER_SECOND,
    ours: ours / TICKS_PER_SECOND,
  }
}

function readStat(pid: string): { parent: number; ticks: number } | undefined {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return undefined // it ended between the listing and here
  }
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return { parent: Number(fields[1]), ticks: Number(fields[11]) + Number(fields[12]) }
}

/** Share of the machine's capacity (0 to 1) that went to foreign processes between two looks. `exitedSeconds`: processor
 *  time of programs of ours that ended in between, which the second look cannot see. */
export function foreignShare(before: CpuTimes, after: CpuTimes, exitedSeconds: number): number {
  const seconds = ((after.atMs - before.atMs) / 1000) * availableParallelism()
  const kernel = after.kernelThreads - before.kernelThreads
  const own = after.ours - before.ours + exitedSeconds
  return Math.max(0, (after.all - before.all - kernel - own) / seconds)
}

export interface MachineFacts {
  readonly cores: number
  readonly processor: string
  readonly kernel: string
  readonly file_system: string
  readonly node: string
}

/** Facts that belong beside every figure. `directory`: where the volumes lie. */
export function machineFacts(directory: string): MachineFacts {
  const model = /^model name\s*: (.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))
  const df = execFileSync('df', ['--output=fstype', directory], { encoding: 'utf8' })
  return {
    cores: availableParallelism(),
    processor: model?.[1] ?? 'unknown',
    kernel: release(),
    file_system: df.trim().split('\n').at(-1) ?? 'unknown',
    node: process.version,
  }
}

/** Writes everything back and empties the page cache, so that every job starts alike. False when not permitted. */
export function dropCaches(): boolean {
  execFileSync('sync')
  try {
    writeFileSync('/proc/sys/vm/drop_caches', '3')
    return true
  } catch {
    return false
  }
}

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}
