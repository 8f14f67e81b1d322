import { createHash, randomInt } from 'node:crypto'
import { chmod, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { assert } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { ensureDirectory } from '#base/system/files.ts'
import type { ServerNic } from '#wire/site/servers.ts'
import type { GuestNetwork, Netdev, PlugAbout, Switchboard } from '../driver.ts'
import { SOCKET_PATH_BYTES_MAX } from './datagrams.ts'
import type { NicCounters, Paths } from './engine.ts'
import { NIC_UNUSABLE } from './faults.ts'
import { PACE, type Pace } from './pace.ts'
import type { Asked } from './questions.ts'
import { type Nic, nicOf } from './table.ts'
import type { FromThread, ThreadData, ToThread } from './thread.ts'

/* The network between the guests of one agent: the main thread's handle on the switch, which works in a thread of its own so that no
 * guest's frames take time from the disks.
 *
 *     QEMU: dgram, local K.g, remote K.s ◄══ frames ══► the thread: bound to K.s, sends to K.g       K: name of server and port
 *
 * Nothing is stored. A datagram needs no connection, and QEMU sends by path: an agent that was killed and started again plugs the NICs of
 * the guests it adopts, and the first frame after that goes through. Frames sent meanwhile are lost, as by a pulled cable.
 *
 * The folder is open to the agent's user only (0700), and so are all its sockets.
 */

export interface SwitchboardOptions {
  /** For the sockets; made when missing. 21 bytes are added to its path, and 107 is the limit of the system. */
  readonly directory: string
  readonly clock: Clock
  readonly log: Log
  readonly pace?: Pace
  /** What runs as the thread of the switch; for tests. */
  readonly thread?: URL
}

/** The network of one site. A network whose guests are at two sites is two networks: frames do not leave the agent. */
export interface LocalSwitchboard extends Switchboard, GuestNetwork {
  /** By server and port, since each was plugged. */
  counters(): Promise<readonly (NicCounters & { readonly server: string; readonly port: string })[]>
  /** Ends the thread. Guests are not touched; their places are kept for the next switchboard in this folder. */
  close(): Promise<void>
}

const THREAD = new URL('./thread.ts', import.meta.url)
const RESTART_MS_MIN = 100
const RESTART_MS_MAX = 30_000

/** Resolves when the folder is ready; the thread starts with the first NIC. */
export async function openSwitchboard(options: SwitchboardOptions): Promise<LocalSwitchboard> {
  await ensureDirectory(options.directory)
  await chmod(options.directory, 0o700)
  return new ThreadedSwitchboard(options)
}

interface Plugged {
  readonly server: string
  readonly port: string
  readonly nic: Nic
  readonly paths: Paths
}

type Body<T> = T extends unknown ? Omit<T, 'id'> : never
type Answer<K extends FromThread['kind']> = Extract<FromThread, { kind: K }>

/** Where the switch's own questions come from: ports that a fresh connection has anywhere. */
const QUESTION_PORT_MIN = 49_152
const QUESTION_PORT_MAX = 65_535

class ThreadedSwitchboard implements LocalSwitchboard {
  readonly #options: SwitchboardOptions
  readonly #plugged = new Map<string, Plugged>()
  readonly #asked = new Map<number, (answer: FromThread | Error) => void>()
  #thread: Worker | null = null
  #nextId = 1
  #nextPort = QUESTION_PORT_MIN
  #closed = false
  #restartMs = RESTART_MS_MIN
  #cancelRestart: () => void = () => undefined

  constructor(options: SwitchboardOptions) {
    this.#options = options
  }

  async plug(server: string, nic: ServerNic, about: PlugAbout): Promise<Netdev> {
    const key = keyOf(server, nic.port)
    const known = nicOf(key, about.name, nic)
    const paths = pathsOf(about.held) ?? {
      inlet: join(this.#options.directory, `${key}.s`),
      outlet: join(this.#options.directory, `${key}.g`),
    }
    const doing = `connecting port ${nic.port} of server ${server}`
    if (known === undefined) {
      throw new Fault(NIC_UNUSABLE, `${doing}: an address in its definition is none`, { nic })
    }
    if (Buffer.byteLength(paths.inlet) > SOCKET_PATH_BYTES_MAX) {
      throw new Fault(NIC_UNUSABLE, `${doing}: ${paths.inlet} is too long a path`, { ...paths })
    }
    this.#plugged.set(key, { server, port: nic.port, nic: known, paths })
    await this.#ask({ kind: 'plug', nic: known, paths })
    return {
      type: 'dgram',
      local: { type: 'unix', path: paths.outlet },
      remote: { type: 'unix', path: paths.inlet },
    }
  }

  async unplug(server: string, port: string): Promise<void> {
    const key = keyOf(server, port)
    const plugged = this.#plugged.get(key)
    this.#plugged.delete(key)
    if (plugged !== undefined) return void (await this.#ask({ kind: 'unplug', key }))
    // An earlier agent's, perhaps.
    const { directory } = this.#options
    await rm(join(directory, `${key}.s`), { force: true })
    await rm(join(directory, `${key}.g`), { force: true })
  }

  async addressed(server: string, port: string): Promise<boolean> {
    const key = keyOf(server, port)
    if (!this.#plugged.has(key)) return false
    const { counters } = await this.#ask({ kind: 'counters' })
    if (counters?.get(key)?.addressed === true) return true
    await this.#ask({ kind: 'prod', key })
    return false
  }

  async ask(
    server: string,
    port: string,
    what: Parameters<GuestNetwork['ask']>[2],
  ): Promise<Asked> {
    const sourcePort = this.#nextPort
    this.#nextPort = sourcePort === QUESTION_PORT_MAX ? QUESTION_PORT_MIN : sourcePort + 1
    const question = {
      sourcePort,
      destinationPort: what.port,
      sequence: randomInt(2 ** 32),
      send: what.send,
      answerBytesMax: what.answerBytesMax,
      endMs: this.#options.clock.bootMs() + what.limitMs,
    }
    const { asked } = await this.#ask({ kind: 'ask', key: keyOf(server, port), question }, 'asked')
    return { kind: asked.kind, answer: Buffer.from(asked.answer) }
  }

  async counters(): ReturnType<LocalSwitchboard['counters']> {
    if (this.#thread === null) return []
    const { counters } = await this.#ask({ kind: 'counters' })
    return [...(counters ?? [])].flatMap(([key, one]) => {
      const plugged = this.#plugged.get(key)
      return plugged === undefined ? [] : [{ server: plugged.server, port: plugged.port, ...one }]
    })
  }

  async close(): Promise<void> {
    this.#cancelRestart()
    if (this.#closed) return
    const thread = this.#thread
    const closed = thread === null ? undefined : this.#ask({ kind: 'close' })
    this.#closed = true
    await closed
    await thread?.terminate()
  }

  async #ask<K extends FromThread['kind'] = 'done'>(
    body: Body<ToThread>,
    kind?: K,
  ): Promise<Answer<K>> {
    assert(!this.#closed, 'a switchboard that was closed is not used')
    const thread = this.#thread ?? this.#start()
    const id = this.#nextId++
    const answer = await new Promise<FromThread | Error>((resolve) => {
      this.#asked.set(id, resolve)
      thread.ref()
      thread.postMessage({ id, ...body } satisfies ToThread)
    })
    if (answer instanceof Error) throw answer
    if (answer.kind === 'failed') {
      throw Object.assign(new Error(answer.text), { code: answer.code })
    }
    assert(answer.kind === (kind ?? 'done'), 'the switch answers what it was asked')
    return answer as Answer<K>
  }

  #start(): Worker {
    const { pace, log } = this.#options
    const thread = new Worker(this.#options.thread ?? THREAD, {
      workerData: { pace: pace ?? PACE } satisfies ThreadData,
      execArgv: [], // flags of the main thread (profiling, input types) are not meant for this one
      resourceLimits: { maxOldGenerationSizeMb: 128, maxYoungGenerationSizeMb: 16 },
    })
    this.#thread = thread
    thread.unref()
    thread.on('message', (answer: FromThread) => {
      this.#restartMs = RESTART_MS_MIN
      this.#asked.get(answer.id)?.(answer)
      this.#asked.delete(answer.id)
      // Alone, the switch does not keep the process alive; a question that is waiting for its answer does.
      if (this.#asked.size === 0) thread.unref()
    })
    thread.on('error', (error) => log.error({ err: error }, 'the switch broke'))
    thread.on('exit', () => {
      this.#thread = null
      for (const settle of this.#asked.values()) settle(new Error('the switch ended'))
      this.#asked.clear()
      if (!this.#closed) this.#startAgain()
    })
    return thread
  }

  /** All that is plugged is plugged again; guests notice a moment without network. */
  #startAgain(): void {
    this.#cancelRestart = this.#options.clock.after(this.#restartMs, () => {
      this.#restartMs = Math.min(this.#restartMs * 2, RESTART_MS_MAX)
      for (const { nic, paths } of this.#plugged.values()) {
        this.#ask({ kind: 'plug', nic, paths }).catch((error: unknown) => {
          this.#options.log.error({ err: error, port: nic.key }, 'a NIC has no network')
        })
      }
    })
  }
}

/** Short, since paths of sockets are. Of both ids: a port that moves to another server has another place there. */
const keyOf = (server: string, port: string): string =>
  createHash('sha256').update(`${server} ${port}`).digest('hex').slice(0, 16)

/** The sockets of a running guest, which cannot be told others. */
function pathsOf(held: Netdev | undefined): Paths | undefined {
  const pathOf = (side: unknown): string | undefined => {
    if (typeof side !== 'object' || side === null || !('path' in side)) return undefined
    return typeof side.path === 'string' ? side.path : undefined
  }
  const inlet = pathOf(held?.['remote'])
  const outlet = pathOf(held?.['local'])
  return inlet === undefined || outlet === undefined ? undefined : { inlet, outlet }
}
