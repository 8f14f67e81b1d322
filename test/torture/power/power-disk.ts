import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { assert } from '#base/assert.ts'

/** A machine's disk that can lose its power; see daemon.ts. */
export class PowerDisk {
  readonly path: string
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  private constructor(path: string, child: ChildProcess, lines: AsyncIterator<string>) {
    this.path = path
    this.#child = child
    this.#lines = lines
  }

  /** `path`: an existing, empty directory. */
  static async create(path: string, seed: number): Promise<PowerDisk> {
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, 'daemon.ts'), path, String(seed)],
      { stdio: ['pipe', 'pipe', 'inherit'], detached: true },
    )
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const disk = new PowerDisk(path, child, lines)
    await disk.#answer()
    return disk
  }

  /** What is not durable is gone, and nothing changes any more. The processes that use it must be stopped before. */
  async cut(): Promise<Readonly<Record<string, number>>> {
    return (await this.#ask('cut')) as Record<string, number>
  }

  /** The machine starts again. The processes that used it must be dead. */
  async on(): Promise<void> {
    await this.#ask('on')
  }

  async fill(): Promise<number> {
    await this.#ask('full')
    return 0
  }

  async free(): Promise<void> {
    await this.#ask('free')
  }

  async close(): Promise<void> {
    const exited = once(this.#child, 'exit')
    this.#child.stdin?.end()
    await exited
  }

  async #ask(word: string): Promise<unknown> {
    assert(this.#child.stdin !== null, 'the disk listens')
    this.#child.stdin.write(`${word}\n`)
    return await this.#answer()
  }

  async #answer(): Promise<unknown> {
    const { value, done } = await this.#lines.next()
    if (done === true) throw new Error(`the disk at ${this.path} ended by itself`)
    return JSON.parse(String(value)) as unknown
  }
}
