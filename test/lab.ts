/**
 * A complete Holdfast on this machine for integration tests: `holdfast up` in a directory of its own, a client that is logged in, and
 * everything stopped and removed at the end. `HOLDFAST_KEEP_LAB=1` keeps the directory of a failed run and prints where it is.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, rmSync } from 'node:fs'
import { mkdtemp, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { sleep } from '#base/clock.ts'
import { systemClock } from '#base/system/clock.ts'
import type { Credentials } from '#client/credentials.ts'
import { connectNbd, type NbdClient } from '#client/nbd/client.ts'

const PROGRAM = join(import.meta.dirname, '..', 'src', 'main.ts')

export interface Reply<Body = unknown> {
  readonly status: number
  readonly headers: Headers
  readonly body: Body
}

/** Path segments in braces of `call` that stand for the lab's own project. */
const PROJECT = '{project}'

export class Lab {
  readonly data: string
  credentials!: Credentials
  #up: ChildProcess | undefined
  #exited: Promise<unknown> = Promise.resolve()
  #token = ''
  readonly #env: Readonly<Record<string, string>>

  private constructor(data: string, env: Readonly<Record<string, string>>) {
    this.data = data
    this.#env = env
  }

  /** Starts a system and logs in. `env`: options for its parts, e.g. HOLDFAST_PEER_SILENCE_MS. */
  static async start(env: Readonly<Record<string, string>> = {}, ...flags: string[]): Promise<Lab> {
    const lab = new Lab(join(await mkdtemp(join(tmpdir(), 'holdfast-lab-')), 'd'), env)
    await lab.up(...flags)
    return lab
  }

  /** `holdfast up`, until it is ready. Also the second start on the same directory. */
  async up(...flags: string[]): Promise<void> {
    const child = spawn(
      process.execPath,
      [PROGRAM, 'up', '--data', this.data, '--listen', '127.0.0.1:0', ...flags],
      { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...this.#env } },
    )
    this.#up = child
    this.#exited = once(child, 'exit')
    let complaints = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaints += text
    })
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stdout }).on('line', (line) => {
        if ((JSON.parse(line) as { event?: string }).event === 'ready') resolve()
      })
      void this.#exited.then(() => reject(new Error(`holdfast up ended: ${complaints}`)))
    })
    this.credentials = JSON.parse(
      await readFile(join(this.data, 'credentials.json'), 'utf8'),
    ) as Credentials
    this.#token = await this.login()
  }

  /** A token of the administrator, for the lab's own project or another one. */
  async login(project_id = this.credentials.project_id): Promise<string> {
    const { user, domain, password } = this.credentials
    const reply = await fetch(`${this.credentials.url}/v3/auth/tokens`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        auth: {
          identity: {
            methods: ['password'],
            password: { user: { name: user, domain: { name: domain }, password } },
          },
          scope: { project: { id: project_id } },
        },
      }),
    })
    assert.equal(reply.status, 201, await reply.text())
    return reply.headers.get('x-subject-token') ?? ''
  }

  /** One call with the administrator's token. `{project}` in the path stands for the project's id. */
  async call<Body = Record<string, unknown>>(
    method: string,
    path: string,
    body?: unknown,
    token = this.#token,
  ): Promise<Reply<Body>> {
    const url = this.credentials.url + path.replace(PROJECT, this.credentials.project_id)
    const reply = await fetch(url, {
      method,
      headers: { 'x-auth-token': token, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await reply.text()
    return {
      status: reply.status,
      headers: reply.headers,
      body: (text === '' ? undefined : JSON.parse(text)) as Body,
    }
  }

  /** As `call`, and the answer must have `status`. */
  async ok<Body = Record<string, unknown>>(
    status: number,
    method: string,
    path: string,
    body?: unknown,
  ): Promise<Body> {
    const reply = await this.call<Body>(method, path, body)
    assert.equal(reply.status, status, `${method} ${path}: ${JSON.stringify(reply.body)}`)
    return reply.body
  }

  /** Asks until `check` gives something; the last answer stands in the failure. */
  async until<T>(
    what: string,
    ask: () => Promise<T>,
    check: (answer: T) => boolean,
    limitMs = 60_000,
  ): Promise<T> {
    const endMs = systemClock.bootMs() + limitMs
    for (;;) {
      const answer = await ask().catch((error: unknown) => error as T)
      if (!(answer instanceof Error) && check(answer)) return answer
      if (systemClock.bootMs() > endMs) {
        throw new Error(`${what} did not come true in ${limitMs} ms; last: ${describe(answer)}`)
      }
      await sleep(systemClock, 50)
    }
  }

  /** A volume of `sizeGb` at `zone`, available. */
  async volume(sizeGb: number, zone = 'az1', name = 'lab'): Promise<string> {
    const { volume } = await this.ok<{ volume: { id: string } }>(
      202,
      'POST',
      '/v2/{project}/volumes',
      { volume: { name, size: sizeGb, availability_zone: zone, volume_type: 'SSD' } },
    )
    await this.until(
      `volume ${volume.id} available`,
      () => this.call<{ volume: { status: string } }>('GET', `/v2/{project}/volumes/${volume.id}`),
      (reply) => reply.body.volume.status === 'available',
    )
    return volume.id
  }

  /** Waits for an SDRS job; its status must be `expected`. */
  async job(jobId: string, expected = 'SUCCESS'): Promise<Record<string, unknown>> {
    const { body } = await this.until(
      `job ${jobId} ends`,
      () => this.call('GET', `/v1/{project}/jobs/${jobId}`),
      (reply) => reply.body['status'] === 'SUCCESS' || reply.body['status'] === 'FAIL',
      120_000,
    )
    assert.equal(body['status'], expected, JSON.stringify(body))
    return body
  }

  /** Where the volume or pair may be written now, as the native API says. */
  async connection(id: string): Promise<{ export: string; unix: string }> {
    return await this.ok(200, 'GET', `/api/v1/volumes/${id}/connection`)
  }

  async nbd(id: string): Promise<NbdClient> {
    const { export: exportName, unix } = await this.connection(id)
    return await connectNbd({ unix }, { exportName })
  }

  pid(part: string): number {
    return Number(readFileSync(join(this.data, 'run', `${part}.pid`), 'utf8'))
  }

  kill(part: string, signal: NodeJS.Signals = 'SIGKILL'): void {
    process.kill(this.pid(part), signal)
  }

  /** `holdfast ...` against this lab, for instance `site kill az1`. */
  async holdfast(...args: string[]): Promise<string> {
    const child = spawn(process.execPath, [PROGRAM, ...args, '--data', this.data], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let out = ''
    let complaints = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaints += text
    })
    const [code] = (await once(child, 'close')) as [number]
    assert.equal(code, 0, `holdfast ${args.join(' ')}: ${complaints}`)
    return out
  }

  /** SIGTERM and wait. */
  async down(): Promise<void> {
    this.#up?.kill('SIGTERM')
    await this.#exited
  }

  /** Stops everything and removes the directory. */
  async close(): Promise<void> {
    await this.down()
    if (process.env['HOLDFAST_KEEP_LAB'] === '1') {
      console.error(`the lab is kept in ${this.data}`)
      return
    }
    rmSync(join(this.data, '..'), { recursive: true, force: true })
  }
}

function describe(answer: unknown): string {
  return answer instanceof Error ? (answer.stack ?? answer.message) : JSON.stringify(answer)
}
