import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { assert } from '#base/assert.ts'
import { sleep } from '#base/clock.ts'
import { systemClock } from '#base/system/clock.ts'
import { namespaceOf, type Host } from './network.ts'

/* One process of the system on its machine. It is started the way an operator would on that machine; what it says goes to a log. */

export const PROGRAM = join(import.meta.dirname, '..', '..', '..', 'src', 'main.ts')

export interface PartSpec {
  readonly lab: string
  readonly host: Host
  readonly kind: 'control' | 'agent'
  readonly config: string
  readonly log: string
  /** Holds the id of the machine's present boot: each machine of the lab has its own. */
  readonly bootFile: string
  /** A part that ended without being told to. */
  readonly onDeath: (part: Part, how: string) => void
}

const READY_MS = 30_000
const BOOT_ID = '/proc/sys/kernel/random/boot_id'
/** In the mount namespace that `ip netns exec` makes, so nobody else sees it. `exec` keeps the pid. */
const SCRIPT = `mount --bind "$0" ${BOOT_ID} && exec "$@"`

export class Part {
  readonly host: Host
  readonly #spec: PartSpec
  #child: ChildProcess | undefined
  #exited: Promise<void> = Promise.resolve()
  #expected = true
  #paused = false

  constructor(spec: PartSpec) {
    this.host = spec.host
    this.#spec = spec
  }

  get alive(): boolean {
    return this.#child !== undefined
  }

  get paused(): boolean {
    return this.#paused
  }

  get pid(): number | undefined {
    return this.#child?.pid
  }

  /** Resolves when the part says that it is ready. A part that is running already stays as it is. */
  async start(): Promise<void> {
    if (this.#child !== undefined) return
    const { lab, host, kind, config, log, bootFile } = this.#spec
    const errors = openSync(log, 'a')
    const command = [process.execPath, PROGRAM, kind, '--config', config]
    const child = spawn(
      'ip',
      ['netns', 'exec', namespaceOf(lab, host), 'sh', '-c', SCRIPT, bootFile, ...command],
      { stdio: ['ignore', 'pipe', errors], detached: true },
    )
    closeSync(errors)
    this.#child = child
    this.#expected = false
    this.#paused = false
    this.#exited = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        if (this.#child === child) this.#child = undefined
        if (!this.#expected) this.#spec.onDeath(this, `code ${code}, signal ${signal}`)
        resolve()
      })
    })
    const { stdout } = child
    assert(stdout !== null, 'a part has a standard output')
    const ready = new Promise<void>((resolve) => {
      createInterface({ input: stdout }).on('line', (line) => {
        if (line.includes('"event":"ready"')) resolve()
      })
    })
    const waited = new AbortController()
    const late = sleep(systemClock, READY_MS, waited.signal).catch(() => undefined)
    const outcome = await Promise.race([
      ready,
      this.#exited.then(() => 'ended'),
      late.then(() => 'is not ready'),
    ])
    waited.abort()
    if (outcome !== undefined && !this.#expected) {
      throw new Error(`${kind} at ${host} ${outcome}: ${await lastLines(log)}`)
    }
  }

  /** SIGKILL; resolves when the process is gone. */
  async kill(): Promise<void> {
    const child = this.#child
    if (child === undefined) return
    this.#expected = true
    child.kill('SIGKILL')
    if (this.#paused) child.kill('SIGCONT')
    this.#paused = false
    await this.#exited
  }

  /** SIGTERM, as an operator stops it. */
  async stop(): Promise<void> {
    const child = this.#child
    if (child === undefined) return
    this.#expected = true
    child.kill('SIGTERM')
    await this.#exited
  }

  pause(): void {
    if (this.#child?.kill('SIGSTOP') === true) this.#paused = true
  }

  resume(): void {
    this.#child?.kill('SIGCONT')
    this.#paused = false
  }
}

export async function lastLines(log: string, count = 12): Promise<string> {
  const text = await readFile(log, 'utf8').catch(() => '')
  return text.trimEnd().split('\n').slice(-count).join('\n')
}
