import { spawnSync } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { hasCode } from '#base/system/files.ts'
import type { ApiSession } from '#client/api.ts'
import { createInstance, showInstance } from '#client/instances.ts'
import { type WaitOptions, waitFor, waitForJob } from '#client/sdrs.ts'
import {
  createServer,
  listFlavors,
  listImages,
  readConsole,
  showServer,
  startServer,
} from '#client/servers.ts'
import { DEMO_FAILED } from './system.ts'

/* The demo's server: a tiny Linux that boots from a replicated disk, raises a number on it with an fsync each time, and says on its serial
 * console `ACK n` when the disk has it. The console is the witness: it lies outside of the disk, and what it says was promised. At the
 * other site the same disk boots again and says first which number it found. */

const IMAGE = 'holdfast-counter'
const PROGRAM = 'qemu-system-x86_64'
const NAME = 'demo-counter'
/** Numbers to see before the story goes on: the guest is at work, not just up. */
const NUMBERS_SEEN = 3

/** Whether this machine can run it. Without QEMU the demo is told without a server. */
export const serversPossible = (): boolean =>
  spawnSync(PROGRAM, ['--version'], { stdio: 'ignore' }).status === 0

export interface ServerReport {
  /** The last number that the guest acknowledged at the site that was killed. */
  readonly acknowledged: number
  /** The number on the disk when it booted at the other site. */
  readonly found: number
  /** A number that it acknowledged there. */
  readonly continued: number
  /** Boots that the disk has seen: 2 when it is the very disk. */
  readonly boots: number
  /** Before and after: the same, as the address belongs to the protected instance. */
  readonly addresses: readonly [before: string, after: string]
  /** From the wish for the DR server to its counter. */
  readonly bootMs: number
}

export const serverIsRight = (report: ServerReport): boolean =>
  report.acknowledged > 0 &&
  report.found >= report.acknowledged &&
  report.continued > report.found &&
  report.boots === 2 &&
  report.addresses[0] !== '' &&
  report.addresses[0] === report.addresses[1]

export class DemoServer {
  readonly #api: ApiSession
  readonly #server: string
  #instance = ''
  #before: ConsoleFacts = NOTHING_SAID

  private constructor(api: ApiSession, server: string) {
    this.#api = api
    this.#server = server
  }

  /** Settles as soon as it is being made: its image is built at the site meanwhile. */
  static async create(api: ApiSession, site: string): Promise<DemoServer> {
    const image = (await listImages(api)).find(({ name }) => name === IMAGE)
    const [flavor] = (await listFlavors(api)).toSorted((one, other) => one.ram - other.ram)
    if (image === undefined || flavor === undefined) {
      throw new Fault(DEMO_FAILED, `finding the image ${IMAGE} and a flavor`)
    }
    const spec = { name: NAME, site, flavorId: flavor.id, imageId: image.id }
    return new DemoServer(api, await createServer(api, spec))
  }

  get id(): string {
    return this.#server
  }

  async untilCounting(options: WaitOptions): Promise<ConsoleFacts> {
    await waitFor(
      'the server to run',
      async () => {
        const { status, fault } = await showServer(this.#api, this.#server)
        if (status !== 'ERROR') return status
        throw new Fault(DEMO_FAILED, `making the server: ${fault?.message ?? 'no reason given'}`)
      },
      (status) => status === 'ACTIVE',
      options,
    )
    return await this.#until(this.#server, isAtWork, options)
  }

  /** Puts it under protection, with its disk, in a group that is not protected yet. */
  async protect(group: string, options: WaitOptions): Promise<void> {
    const spec = { name: NAME, group, server: this.#server }
    const { entities } = await waitForJob(this.#api, await createInstance(this.#api, spec), options)
    this.#instance = String(entities['protected_instance_id'])
  }

  /** The last word of the guest over the API. */
  async look(): Promise<ConsoleFacts> {
    this.#before = readFacts(await readConsole(this.#api, this.#server))
    return this.#before
  }

  /** After the kill of its site, from the console's own file: also what came after the last look. */
  async lastWords(agentDirectory: string): Promise<ConsoleFacts> {
    const file = join(agentDirectory, 'servers', this.#server, 'console.log')
    const last = readFacts(await textOf(file)).acknowledged
    const acknowledged = Math.max(this.#before.acknowledged, last)
    this.#before = { ...this.#before, acknowledged }
    return this.#before
  }

  /** Starts the DR server and watches it go on. */
  async goOn(options: WaitOptions): Promise<ServerReport> {
    const begunMs = options.clock.bootMs()
    const { target_server: server } = await showInstance(this.#api, this.#instance)
    await startServer(this.#api, server)
    await this.#until(server, ({ found }) => found !== null, options)
    const bootMs = Math.round(options.clock.bootMs() - begunMs)
    const after = await this.#until(server, isAtWork, options)
    return {
      acknowledged: this.#before.acknowledged,
      found: after.found ?? 0,
      continued: after.acknowledged,
      boots: after.boots,
      addresses: [this.#before.address, after.address],
      bootMs,
    }
  }

  #until(
    server: string,
    wanted: (facts: ConsoleFacts) => boolean,
    options: WaitOptions,
  ): Promise<ConsoleFacts> {
    const read = async () => readFacts(await readConsole(this.#api, server))
    return waitFor(`the guest of ${server}`, read, wanted, options)
  }
}

export interface ConsoleFacts {
  /** What it found on its disk; null: it has not come so far. */
  readonly found: number | null
  /** The last number it acknowledged; 0: none. */
  readonly acknowledged: number
  /** How many numbers it acknowledged since its boot. */
  readonly numbers: number
  /** 0: not known yet. */
  readonly boots: number
  /** Given by DHCP; empty: none yet. */
  readonly address: string
}

const NOTHING_SAID: ConsoleFacts = {
  found: null,
  acknowledged: 0,
  numbers: 0,
  boots: 0,
  address: '',
}

/** Counts, has an address, and is up. */
const isAtWork = ({ numbers, boots, address }: ConsoleFacts): boolean =>
  numbers >= NUMBERS_SEEN && boots > 0 && address !== ''

/** What a console says. A line that was cut off at its end counts only when a line break follows it. */
export function readFacts(console: string): ConsoleFacts {
  const lines = console.split('\n').slice(0, -1)
  let facts = NOTHING_SAID
  for (const line of lines) {
    const [word, first = '', second = ''] = line.trim().split(' ')
    if (word === 'COUNTER') facts = { ...facts, found: Number(first) }
    if (word === 'ACK') {
      facts = { ...facts, acknowledged: Number(first), numbers: facts.numbers + 1 }
    }
    if (word === 'READY') facts = { ...facts, boots: Number(second) }
    if (word === 'NET') facts = { ...facts, address: second }
  }
  return facts
}

async function textOf(file: string): Promise<string> {
  try {
    return await readFile(file, 'latin1')
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return ''
    throw error
  }
}
