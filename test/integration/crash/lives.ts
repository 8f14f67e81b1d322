/** A control plane that is started again whenever it is dead, and requests to it that get through all the same. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sleep } from '#base/clock.ts'
import { systemClock } from '#base/system/clock.ts'
import { pickPorts } from '#base/system/ports.ts'
import { PROJECT, type RegionControlOptions } from '../../support/region-parts.ts'

const CONTROL = join(import.meta.dirname, 'control.ts')

export interface Answer {
  readonly status: number
  // oxlint-disable-next-line typescript/no-explicit-any -- bodies are held against the contract, not typed
  readonly body: any
}

/** What the control plane serves and knows beyond what a region of tests has. */
type Also = Pick<RegionControlOptions, 'backups' | 'more'>

export class Lives {
  readonly #directory: string
  /** File with the points at which it was killed, a line each. */
  readonly visited: string
  readonly internalPort: number
  readonly #apiPort: number
  readonly #only: RegExp
  readonly #also: Also
  /** How often it was started. */
  count = 0
  #child: ChildProcess | undefined
  #spare: ChildProcess | undefined
  #ended = false
  #complaint = ''
  #keeper: Promise<void> = Promise.resolve()

  private constructor(
    directory: string,
    internalPort: number,
    apiPort: number,
    only: RegExp,
    also: Also,
  ) {
    this.#directory = directory
    this.#only = only
    this.#also = also
    this.visited = join(directory, 'visited')
    this.internalPort = internalPort
    this.#apiPort = apiPort
  }

  /** The directory has certificates already. `only`: of the points at which it dies. */
  static async begin(directory: string, only = /./, also: Also = {}): Promise<Lives> {
    const [internal = 0, api = 0] = await pickPorts('127.0.0.1', 2)
    const lives = new Lives(directory, internal, api, only, also)
    await writeFile(lives.visited, '')
    lives.#keeper = lives.#keepAlive()
    return lives
  }

  async end(): Promise<void> {
    this.#ended = true
    this.#child?.kill('SIGKILL')
    this.#spare?.kill('SIGKILL')
    await this.#keeper
  }

  /** Loads a control plane that waits to be told to begin. */
  #load(): ChildProcess {
    const options = {
      directory: this.#directory,
      internalPort: this.internalPort,
      apiPort: this.#apiPort,
      visited: this.visited,
      only: this.#only.source,
      also: this.#also,
    }
    return spawn(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', CONTROL, JSON.stringify(options)],
      {
        stdio: ['pipe', 'ignore', 'inherit'],
        env: { NODE_COMPILE_CACHE: join(this.#directory, 'compiled'), ...process.env },
      },
    )
  }

  async #keepAlive(): Promise<void> {
    while (!this.#ended) {
      this.count++
      const child = this.#spare ?? this.#load()
      this.#child = child
      const exit = once(child, 'exit')
      child.stdin?.write('!')
      this.#spare = this.#load()
      const [code, signal] = (await exit) as [number | null, string | null]
      if (!this.#ended && signal !== 'SIGKILL') {
        this.#complaint = `the control plane ended by itself: ${code} ${signal}`
        this.#ended = true
      }
    }
  }

  /** One request; null when the control plane was dead or died over it. */
  async ask(method: string, path: string, body?: unknown): Promise<Answer | null> {
    try {
      const reply = await fetch(
        `http://127.0.0.1:${this.#apiPort}${path.replace('{project}', PROJECT)}`,
        {
          method,
          headers: { 'x-auth-token': 'admin', connection: 'close' },
          ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        },
      )
      const text = await reply.text()
      return { status: reply.status, body: text === '' ? undefined : JSON.parse(text) }
    } catch {
      return null
    }
  }

  async until<T>(
    what: string,
    check: () => Promise<T | null>,
    // A failover passes fourteen lives, each a new process on a busy machine.
    limitMs = 300_000,
  ): Promise<T> {
    const endMs = systemClock.bootMs() + limitMs
    for (;;) {
      const found = await check()
      if (found !== null) return found
      assert.ok(!this.#ended, this.#complaint)
      assert.ok(systemClock.bootMs() < endMs, `${what}: not within ${limitMs} ms`)
      await sleep(systemClock, 20)
    }
  }

  /** A member of the answer; null: it did not come. */
  async get(path: string, member: string): Promise<Answer['body']> {
    const answer = await this.ask('GET', path)
    return answer?.status === 200 ? answer.body[member] : null
  }

  /**
   * Sends a change until it is known to have been accepted: an answer that is lost with the process does not tell. `accepted`: whether
   * it was, when there is no answer or a refusal; null: that is not known.
   */
  async change(
    method: string,
    path: string,
    body: unknown,
    accepted: () => Promise<boolean | null>,
  ): Promise<void> {
    await this.until(`${method} ${path}`, async () => {
      const answer = await this.ask(method, path, body)
      if (answer !== null && answer.status < 300) return true
      if (answer !== null && answer.status >= 500) return null
      // A control plane that has just started says so as long as it has heard nobody.
      const said: unknown = answer?.body?.error?.message
      if (typeof said === 'string' && said.startsWith('Nothing is heard')) return null
      const known = await accepted()
      if (known === true) return true
      assert.ok(answer === null || known === null, `${method} ${path}: ${JSON.stringify(answer)}`)
      return null
    })
  }
}
