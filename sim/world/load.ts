import type { ClientIo } from './client-io.ts'
import type { Random } from './random.ts'
import { BLOCKS_PER_VOLUME, type Site, volumeBlocks, VOLUMES } from './site.ts'
import type { World } from './world.ts'

/* Clients: each keeps a few requests in flight, over all volumes. Two of them know one site only and keep knocking there,
 * which is how a side that should be silent is caught speaking; the others go where they get answers.
 */

/** Of a volume, for clients that wander. */
const PARTS = 4
const PART_BLOCKS = BLOCKS_PER_VOLUME / PARTS

export class Load {
  readonly #world: World
  readonly #random: Random
  readonly #thinkMs: number
  readonly #flushShare: number
  /** So long clients write in one part of each volume before they go on to the next, ms; 0: everywhere. */
  readonly #wanderMs: number
  #running = true
  inFlight = 0

  constructor(world: World) {
    this.#world = world
    this.#random = world.random.fork()
    this.#thinkMs = this.#random.pick([40, 80, 200])
    this.#flushShare = this.#random.pick([0.02, 0.1, 0.25])
    this.#wanderMs = world.plan.steady === true ? 0 : this.#random.pick([0, 1_000, 4_000, 12_000])
    const [first, second] = world.sites
    this.#client(first, true)
    this.#client(second, true)
    for (let count = this.#random.below(4); count >= 0; count--) this.#client(first, false)
  }

  stop(): void {
    this.#running = false
  }

  #client(site: Site, stays: boolean): void {
    const depth = 1 + this.#random.below(3)
    for (let index = 0; index < depth; index++) this.#lane(site, stays)
  }

  /** One request after the other. */
  #lane(site: Site, stays: boolean): void {
    const random = this.#random
    const again = (ok: boolean) => {
      if (!this.#running) return
      const wait = ok ? random.between(0, this.#thinkMs * 2) : random.between(200, 1_500)
      const next = ok || stays || random.chance(0.3) ? site : this.#world.peerOf(site)
      this.#world.timeline.after(wait, () => this.#lane(next, stays))
    }
    if (!this.#running) return
    const agent = this.#world.agentAt(site)
    if (agent === null) return again(false)
    const io = this.#request((ok) => {
      this.inFlight--
      again(ok)
    })
    this.inFlight++
    agent.process.deliver(() => agent.submit(io))
    // A connection to a process that dies with the request unread ends as well.
    if (agent.process.paused) agent.process.onDeath.push(() => io.done(false))
  }

  #request(ended: (ok: boolean) => void): ClientIo {
    const random = this.#random
    const { truth } = this.#world
    const volume = random.below(VOLUMES)
    let over = false
    const done = (ok: boolean) => {
      if (over) return
      over = true
      ended(ok)
    }
    const dice = random.next()
    if (dice < this.#flushShare) {
      const blocks = volumeBlocks(volume)
      return { kind: 'flush', blocks, fua: false, done, mark: truth.flushMark(blocks) }
    }
    const length = random.chance(0.8) ? 1 : 2 + random.below(3)
    const starts = BLOCKS_PER_VOLUME - length + 1
    const anywhere = random.below(starts)
    const kind = random.chance(0.25) ? 'read' : 'write'
    const from = kind === 'read' ? anywhere : this.#writesFrom(anywhere, starts)
    const blocks: number[] = []
    for (let index = 0; index < length; index++) {
      blocks.push(volume * BLOCKS_PER_VOLUME + from + index)
    }
    const fua = kind === 'write' && random.chance(0.1)
    return { kind, blocks, fua, done, mark: truth.flushMark(blocks) }
  }

  /** What is written again and again hides what a copy has forgotten: so most clients leave behind what they wrote a while ago. */
  #writesFrom(anywhere: number, starts: number): number {
    const { timeline } = this.#world
    if (this.#wanderMs === 0) return anywhere
    const part = Math.floor(timeline.nowMs / this.#wanderMs) % PARTS
    return Math.min(starts - 1, part * PART_BLOCKS + (anywhere % PART_BLOCKS))
  }
}
