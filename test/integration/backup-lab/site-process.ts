import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { CommandAnswer, CommandRequest } from '#wire/site/commands.ts'
import type { BackupCommandName } from '#agent/backup/commands.ts'
import { openVaultAt, repeated } from '#agent/backup/backups.contract.ts'
import type { Vault } from '#vault/vault.ts'

const PROGRAM = join(import.meta.dirname, 'site.ts')

interface Said {
  readonly id: number
  readonly answer?: unknown
  readonly refusal?: string
  readonly text?: string
}

export class Refused extends Error {
  readonly code: string
  constructor(code: string, text: string) {
    super(text)
    this.code = code
  }
}

/** A site of the lab: its directory stays when its process is killed. */
export class SiteProcess {
  readonly directory: string
  readonly #pki: string | undefined
  readonly #env: Readonly<Record<string, string>>
  #child: ChildProcess | undefined
  readonly #waiting = new Map<number, (said: Said) => void>()
  #asked = 0

  constructor(directory: string, pki?: string, env: Readonly<Record<string, string>> = {}) {
    this.directory = directory
    this.#pki = pki
    this.#env = env
  }

  get socket(): string {
    return join(this.directory, 'nbd.sock')
  }

  async start(): Promise<void> {
    const more = this.#pki === undefined ? [] : [this.#pki]
    const child = spawn(process.execPath, [PROGRAM, this.directory, ...more], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...this.#env },
    })
    this.#child = child
    const ready = new Promise<Said>((resolve) => this.#waiting.set(0, resolve))
    createInterface({ input: child.stdout }).on('line', (line) => {
      const said = JSON.parse(line) as Said
      this.#waiting.get(said.id)?.(said)
      this.#waiting.delete(said.id)
    })
    await ready
  }

  /** With everything that it was doing. */
  async kill(): Promise<void> {
    const child = this.#child
    if (child === undefined) return
    this.#child = undefined
    const closed = once(child, 'close')
    child.kill('SIGKILL')
    await closed
  }

  async ask(name: string, request: object): Promise<unknown> {
    const id = ++this.#asked
    const said = new Promise<Said>((resolve) => this.#waiting.set(id, resolve))
    this.#child?.stdin?.write(`${JSON.stringify({ id, name, request })}\n`)
    const { answer, refusal, text } = await said
    if (refusal !== undefined) throw new Refused(refusal, text ?? '')
    return answer
  }

  async command<N extends BackupCommandName>(
    name: N,
    request: CommandRequest<N>,
  ): Promise<CommandAnswer<N>> {
    return (await this.ask(name, request)) as CommandAnswer<N>
  }

  async ended<
    N extends 'backup.start' | 'restore.start' | 'replica.start' | 'vault.collect' | 'vault.verify',
  >(name: N, request: CommandRequest<N>): Promise<CommandAnswer<N>> {
    return await repeated(() => this.command(name, request))
  }

  /** Asks until the work is so far. */
  async until<N extends 'backup.start' | 'restore.start' | 'replica.start'>(
    name: N,
    request: CommandRequest<N>,
    far: (answer: CommandAnswer<N>) => boolean,
  ): Promise<CommandAnswer<N>> {
    for (let waits = 0; waits < 2000; waits++) {
      const answer = await this.command(name, request)
      assert.equal(answer.state, 'running', `it ended too early: ${JSON.stringify(answer)}`)
      if (far(answer)) return answer
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    return assert.fail('the work does not go on')
  }

  async vault(): Promise<Vault> {
    return await openVaultAt(join(this.directory, 'vault'), join(this.directory, 'vault.key'))
  }
}
