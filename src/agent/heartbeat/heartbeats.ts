import { Worker } from 'node:worker_threads'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { BeatGreeting } from '#wire/link/beat.ts'
import { MomentCell, PeerCells } from './board.ts'
import type { Address, BeatSecurity } from './exchange.ts'
import type { FromThread, ThreadData, ToThread } from './thread.ts'

/* Signs of life that file I/O cannot hold up: the main thread's handle on the heartbeat thread.
 *
 *     main thread   moved() ──► cell ──► beats ──► wire ──► peer's thread ──► cells ──► life() at the peer's main thread
 *
 * The main thread writes when its data plane last moved; the thread tells the peers, also while the main thread waits in a write for a disk.
 * What is heard lies in shared memory, so that asking is a read and waits for nobody.
 *
 * What a beat proves: that process runs, and packets go both ways. It says nothing about epochs or roles, and therefore extends nobody's right
 * to answer clients; see docs/decisions/0100-*.
 *
 * The thread never keeps the process alive. When it breaks it is started again; until then nobody is known to be alive, which is
 * what an agent without heartbeats assumes.
 */

/** One process at the other end of a link. */
export interface Watch {
  /** null: never heard. Costs two reads of memory. */
  life(): PeerLife | null
  /** Call once, when the link is over. */
  end(): void
}

export interface PeerLife {
  /** How long ago packets last were certain to go both ways, ms. About twice the interval of beats when all is well. */
  readonly heardMs: number
  /** For how long the peer's data plane has not moved, as far as is known here, ms. */
  readonly stuckMs: number
}

export interface Heartbeats {
  /** Where peers dial; stays the same when the thread is started again. */
  readonly port: number
  /** The data plane moves: call once per heartbeat interval, and not while a link's stream waits for a disk. */
  moved(): void
  /** The process `run` is at the other end of a link. `dial`: where it listens, on the side that dials; null: it dials. */
  watch(run: string, dial: Address | null): Watch
  close(): Promise<void>
}

export interface HeartbeatsOptions {
  readonly listen: Address
  readonly security: BeatSecurity
  readonly self: BeatGreeting
  readonly heartbeatMs: number
  /** After this silence a connection is taken for dead, ms. */
  readonly silenceMs: number
  readonly clock: Clock
  readonly log: Log
}

const RESTART_MS_MIN = 1_000
const RESTART_MS_MAX = 60_000

interface Watched {
  readonly memory: SharedArrayBuffer
  readonly cells: PeerCells
  dial: Address | null
  links: number
}

/** Resolves when peers can connect; rejects with the system's error when the address cannot be listened on. */
export async function startHeartbeats(options: HeartbeatsOptions): Promise<Heartbeats> {
  const heartbeats = new ThreadedHeartbeats(options)
  await heartbeats.start()
  return heartbeats
}

class ThreadedHeartbeats implements Heartbeats {
  readonly #options: HeartbeatsOptions
  readonly #movedMemory = new SharedArrayBuffer(MomentCell.BYTES)
  readonly #moved = new MomentCell(this.#movedMemory)
  readonly #watched = new Map<string, Watched>()
  #thread: Worker | null = null
  #port: number
  #closed = false
  #restartMs = RESTART_MS_MIN
  #cancelRestart: () => void = () => undefined

  constructor(options: HeartbeatsOptions) {
    this.#options = options
    this.#port = options.listen.port
  }

  get port(): number {
    return this.#port
  }

  start(): Promise<void> {
    this.moved()
    const { listen, security, self, heartbeatMs, silenceMs, log } = this.#options
    const workerData: ThreadData = {
      listen: { ...listen, port: this.#port },
      security,
      self,
      heartbeatMs,
      silenceMs,
      moved: this.#movedMemory,
    }
    const thread = new Worker(new URL('./thread.ts', import.meta.url), {
      workerData,
      execArgv: [], // flags of the main thread (profiling, input types) are not meant for this one
      resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4 },
    })
    this.#thread = thread
    const listening = new Promise<void>((resolve, reject) => {
      thread.on('message', (message: FromThread) => {
        if (message.kind === 'note') log.debug(message.about, message.text)
        else if (message.kind === 'refused') {
          reject(Object.assign(new Error(message.text), { code: message.code }))
        } else {
          this.#port = message.port
          this.#restartMs = RESTART_MS_MIN
          resolve()
        }
      })
      thread.on('error', (error) => log.error({ err: error }, 'the heartbeat thread broke'))
      thread.on('exit', () => {
        reject(new Error('the heartbeat thread ended'))
        if (this.#thread === thread) this.#thread = null
      })
    })
    for (const [run, watched] of this.#watched) this.#tell({ kind: 'watch', run, ...sent(watched) })
    const again = () => this.#startAgain()
    listening.then(
      () => {
        if (this.#thread === thread) thread.once('exit', again)
        else again()
        // Only now: until the port is known the process waits for the thread.
        thread.unref()
      },
      () => thread.terminate(),
    )
    return listening
  }

  #startAgain(): void {
    if (this.#closed) return
    this.#cancelRestart = this.#options.clock.after(this.#restartMs, () => {
      this.#restartMs = Math.min(this.#restartMs * 2, RESTART_MS_MAX)
      this.start().catch((error: unknown) => {
        this.#options.log.error({ err: error }, 'no heartbeats')
        this.#startAgain()
      })
    })
  }

  moved(): void {
    this.#moved.set(this.#options.clock.bootMs())
  }

  watch(run: string, dial: Address | null): Watch {
    let watched = this.#watched.get(run)
    if (watched === undefined) {
      const memory = new SharedArrayBuffer(PeerCells.BYTES)
      watched = { memory, cells: new PeerCells(memory), dial, links: 0 }
      this.#watched.set(run, watched)
      this.#tell({ kind: 'watch', run, ...sent(watched) })
    } else if (dial !== null && watched.dial === null) {
      watched.dial = dial
      this.#tell({ kind: 'watch', run, ...sent(watched) })
    }
    watched.links++
    return this.#watchOf(run, watched)
  }

  #watchOf(run: string, watched: Watched): Watch {
    let open = true
    return {
      life: () => {
        const heard = watched.cells.heard.get()
        if (heard === null) return null
        const now = this.#options.clock.bootMs()
        const moved = watched.cells.moved.get()
        return {
          heardMs: Math.max(0, now - heard),
          stuckMs: moved === null ? Number.POSITIVE_INFINITY : Math.max(0, now - moved),
        }
      },
      end: () => {
        if (!open) return
        open = false
        if (--watched.links > 0) return
        this.#watched.delete(run)
        this.#tell({ kind: 'end', run })
      },
    }
  }

  #tell(message: ToThread): void {
    this.#thread?.postMessage(message)
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#cancelRestart()
    await this.#thread?.terminate()
  }
}

const sent = ({ memory, dial }: Watched) => ({ memory, dial })
