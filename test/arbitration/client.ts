import { type Clock, sleep } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { connectNbd, type NbdClient } from '#client/nbd/client.ts'
import { NBD_DISCONNECTED, NBD_IO_ERROR, NBD_REFUSED } from '#client/nbd/faults.ts'
import type { Site } from '../torture/lab/lab.ts'
import type { Book } from './book.ts'
import type { Standing } from './rows.ts'

/* A client at one site, as a server there would be: it writes one block after the other for as long as it is let, connects again when it was turned
 * away, and notes what it meets. */

const BETWEEN_WRITES_MS = 20
const AGAIN_MS = 100
const CONNECT_MS = 2_000
/** A request without an answer for this long is one that waits. */
const WAITING_MS = 1_000

export interface Answer {
  readonly site: Site
  readonly sentMs: number
  readonly seenMs: number
}

export interface ClientOptions {
  readonly clock: Clock
  readonly site: Site
  readonly socket: string
  readonly exportName: string
  readonly book: Book
}

export class Client {
  readonly site: Site
  readonly answers: Answer[] = []
  readonly #o: ClientOptions
  #met: { readonly how: 'serves' | 'refuses' | 'gone'; readonly atMs: number } | undefined
  #sentMs: number | undefined
  #connection: NbdClient | undefined
  #stopping = false
  #running: Promise<void> | undefined

  constructor(options: ClientOptions) {
    this.site = options.site
    this.#o = options
  }

  start(): void {
    this.#stopping = false
    this.#running = this.#run()
  }

  /** Nothing is sent any more, and what was sent is answered or given up. */
  async stop(): Promise<void> {
    this.#stopping = true
    if (this.#sentMs !== undefined) this.#connection?.destroy()
    await this.#running
  }

  /** What it meets, from `sinceMs` on; undefined: not known yet. */
  standing(sinceMs: number): Standing | undefined {
    const nowMs = this.#o.clock.bootMs()
    if (this.#sentMs !== undefined && nowMs - this.#sentMs >= WAITING_MS) return 'waits'
    return this.#met === undefined || this.#met.atMs < sinceMs ? undefined : this.#met.how
  }

  async #run(): Promise<void> {
    const { clock } = this.#o
    while (!this.#stopping) {
      try {
        const { socket, exportName } = this.#o
        this.#connection = await connectNbd({ unix: socket }, { exportName, timeoutMs: CONNECT_MS })
        await this.#write(this.#connection)
        await this.#connection.disconnect()
      } catch (error) {
        if (isFault(error, NBD_REFUSED)) this.#meet('refuses')
        else if (isFault(error, NBD_DISCONNECTED)) this.#meet('gone')
        else if (!isFault(error, NBD_IO_ERROR)) throw error
        this.#connection?.destroy()
      }
      this.#connection = undefined
      this.#sentMs = undefined
      if (!this.#stopping) await sleep(clock, AGAIN_MS)
    }
  }

  #meet(how: 'serves' | 'refuses' | 'gone'): void {
    this.#met = { how, atMs: this.#o.clock.bootMs() }
  }

  async #write(connection: NbdClient): Promise<void> {
    const { clock, book, site } = this.#o
    while (!this.#stopping) {
      const issue = book.issue(site)
      const sentMs = clock.bootMs()
      this.#sentMs = sentMs
      await connection.write(issue.offset, issue.block)
      this.#sentMs = undefined
      book.answered(issue)
      this.#met = { how: 'serves', atMs: sentMs }
      this.answers.push({ site, sentMs, seenMs: clock.bootMs() })
      await sleep(clock, BETWEEN_WRITES_MS)
    }
  }
}
