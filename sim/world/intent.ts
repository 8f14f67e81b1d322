import { ALL_BLOCKS, REGIONS, regionOf } from './site.ts'
import type { AgentView, ClientsView } from './views.ts'

/* The writer's intent bits: durable before the first touch of a region, cleared when both sides hold it durably. */

const CLEAR_MS = 4_000

export class Intent {
  readonly #agent: AgentView
  readonly #path: ClientsView
  readonly #durable = new Uint8Array(REGIONS)
  readonly #touched = new Uint8Array(REGIONS)

  constructor(agent: AgentView, path: ClientsView) {
    this.#agent = agent
    this.#path = path
    this.#clearLater()
  }

  /** Of which bits it is durable that they are set is not known any more. */
  forget(): void {
    this.#durable.fill(0)
  }

  /** The regions of a request whose bits are not durable yet. */
  missing(blocks: readonly number[]): number[] {
    const missing: number[] = []
    // The blocks of a request lie in a row, so regions come in a row too.
    for (const block of blocks) {
      const region = regionOf(block)
      this.#touched[region] = 1
      if (this.#durable[region] === 0 && missing.at(-1) !== region) missing.push(region)
    }
    return missing
  }

  /** They are set when it returns, and `durable` is called when they are. */
  set(regions: readonly number[], durable: () => void): void {
    const { site, process, world } = this.#agent
    for (const region of regions) site.intent.current[region] = 1
    process.after(world.syncMs(site), () => {
      site.intent.syncDone(regions)
      for (const region of regions) {
        if (site.intent.current[region] === 1) this.#durable[region] = 1
      }
      durable()
    })
  }

  /** Every few seconds, in sync: both sides durable, then the bits of regions that were not touched since are cleared. */
  #clearLater(): void {
    this.#agent.process.after(CLEAR_MS, () => {
      this.#clear()
      this.#clearLater()
    })
  }

  #clear(): void {
    const { session, site, process, world } = this.#agent
    if (session.role !== 'writer' || session.phase !== 'following' || !this.#path.streamOpen) return
    if (site.failed) return
    const candidates: number[] = []
    for (let region = 0; region < REGIONS; region++) {
      if (this.#durable[region] === 1) candidates.push(region)
    }
    if (candidates.length === 0) return
    this.#touched.fill(0)
    let left = 2
    const epoch = session.stored.record.epoch
    const done = () => {
      if (--left > 0) return
      if (session.phase !== 'following' || session.stored.record.epoch !== epoch) return
      world.coverage.count('intent cleared')
      for (const region of candidates) {
        if (this.#touched[region] === 1) continue
        site.intent.current[region] = 0
        this.#durable[region] = 0
      }
      if (world.random.chance(0.5)) site.intent.syncDone(candidates)
    }
    if (!this.#path.remoteFlush(ALL_BLOCKS, done)) return
    const mark = site.disk.syncMark()
    process.after(world.syncMs(site), () => {
      site.disk.syncDone(mark)
      done()
    })
  }
}
