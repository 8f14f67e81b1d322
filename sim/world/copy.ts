import type { CopyScope } from '#agent/replication/session/session.ts'
import { BLOCKS_PER_REGION, REGIONS } from './site.ts'
import type { AgentView, ClientsView } from './views.ts'

/* Copies in both directions, region by region: contents are compared first, then what differs is sent to the replica (copy)
 * or written here (reconcile).
 *
 * Reading takes time. A client's write that hits a region between its reading and its sending would be overwritten at the
 * replica by the older contents, so such a region is read again.
 */

const blocksOf = (region: number): number[] =>
  Array.from({ length: BLOCKS_PER_REGION }, (_, index) => region * BLOCKS_PER_REGION + index)

const ALL_REGIONS = Array.from({ length: REGIONS }, (_, region) => region)

const setOf = (bits: Uint8Array): number[] => [...bits.keys()].filter((index) => bits[index] === 1)

export class CopyJob {
  readonly #agent: AgentView
  readonly #path: ClientsView
  #kind: 'none' | 'copy' | 'reconcile' = 'none'
  #run = 0
  /** Per region the blocks that are compared, and those that are sent as they are. */
  #work: { readonly compare: readonly number[]; readonly send: readonly number[] }[] = []
  #onMap: ((changed: readonly number[] | null, regions: readonly number[]) => void) | null = null
  #lookId = 0
  #onSeen: ((values: readonly number[]) => void) | null = null
  /** Blocks being read, that were not touched since. */
  #reading: ReadonlySet<number> = new Set()
  #hit = false
  #lastSequence = 0
  #sentAll = false
  #joining = false
  /** The resync that runs, or ran last on this link, makes the copy whole. */
  copiesAll = false

  constructor(agent: AgentView, path: ClientsView) {
    this.#agent = agent
    this.#path = path
  }

  start(scope: CopyScope, regions: boolean): void {
    const { session, link, site, world } = this.#agent
    if (scope === 'joining') return this.#join()
    // The stream begins here: copy_begin went out just before.
    this.#begin('copy')
    world.coverage.count(`copy ${scope}${regions ? ' with regions' : ''}`)
    this.#lastSequence = session.gate.sequence
    this.#path.openStream(session.gate.acknowledged)
    const run = this.#run
    this.copiesAll = true
    if (scope !== 'delta' || !link.peerJoined) {
      this.#plan(ALL_REGIONS, [])
      return this.#next(run)
    }
    const id = ++this.#lookId
    this.#onMap = (theirs, theirRegions) => {
      const { changes, host, intent } = site
      const mine = changes.exact(host.bootId)
      const dirty = regions || !mine ? setOf(intent.current) : []
      const send = [...(mine ? setOf(changes.current) : []), ...(theirs ?? [])]
      this.#plan([...dirty, ...theirRegions], send)
      this.#next(run)
    }
    link.send({ t: 'ask_map', id })
  }

  /** A replica whose copy was begun anew, in sync: everything is compared beside the stream. */
  #join(): void {
    const { link, session, world } = this.#agent
    if (link.peerJoined || this.#kind === 'copy') return
    this.#begin('copy')
    this.#joining = true
    world.coverage.count('copy joining')
    this.#lastSequence = session.gate.sequence
    this.#plan(ALL_REGIONS, [])
    this.#next(this.#run)
  }

  mapped(id: number, changed: readonly number[] | null, regions: readonly number[]): void {
    if (id !== this.#lookId) return
    const on = this.#onMap
    this.#onMap = null
    on?.(changed, regions)
  }

  reconcile(scope: 'all' | 'dirty'): void {
    this.#agent.world.coverage.count(`reconcile ${scope}`)
    this.#begin('reconcile')
    const { link, site } = this.#agent
    const regions = scope === 'all' ? ALL_REGIONS : setOf(site.intent.current)
    // Nothing is fetched from a copy that is not whole, or into one that has failed.
    this.#plan(link.peerJoined && !site.failed ? regions : [], [])
    this.#next(this.#run)
  }

  stop(): void {
    this.#kind = 'none'
    this.#joining = false
    this.#run++
    this.#onSeen = null
    this.#onMap = null
    this.#reading = new Set()
  }

  touched(blocks: readonly number[]): void {
    if (this.#reading.size === 0) return
    for (const block of blocks) if (this.#reading.has(block)) this.#hit = true
  }

  seen(id: number, values: readonly number[]): void {
    if (id !== this.#lookId) return
    const on = this.#onSeen
    this.#onSeen = null
    on?.(values)
  }

  /** The replica acknowledged everything up to `sequence`. */
  applied(sequence: number): void {
    if (this.#kind !== 'copy' || !this.#sentAll || sequence < this.#lastSequence) return
    const joining = this.#joining
    this.stop()
    if (joining) return this.#agent.link.send({ t: 'join' })
    this.#agent.feed(() => ({ kind: 'copied', now: this.#agent.now(), members: [1, 2, 3] }))
  }

  #begin(kind: 'copy' | 'reconcile'): void {
    this.stop()
    this.#kind = kind
    this.#sentAll = false
    this.#work = []
  }

  #plan(compared: readonly number[], send: readonly number[]): void {
    for (const region of ALL_REGIONS) {
      const blocks = blocksOf(region)
      const compare = compared.includes(region) ? blocks : []
      const sent = blocks.filter((block) => !compare.includes(block) && send.includes(block))
      if (compare.length + sent.length > 0) this.#work.push({ compare, send: sent })
    }
  }

  #next(run: number): void {
    if (run !== this.#run) return
    const work = this.#work.shift()
    if (work === undefined) return this.#finish(run)
    if (work.compare.length === 0) return this.#carry(run, work.send, null)
    const id = ++this.#lookId
    this.#onSeen = (values) => this.#carry(run, work.compare, values)
    this.#agent.link.send({ t: 'look', id, blocks: work.compare })
  }

  /** `theirs` null: the blocks are sent without a look. */
  #carry(run: number, blocks: readonly number[], theirs: readonly number[] | null): void {
    const { process, site, world } = this.#agent
    if (this.#kind === 'reconcile') {
      blocks.forEach((block, index) => {
        const seen = theirs?.[index] as number
        // What has changed by itself at the replica is taken for what it was: no promise covers both failures at once.
        const value = seen < 0 ? -1 - seen : seen
        if (site.disk.current[block] !== value) site.disk.write(block, value)
      })
      process.after(world.copyMs(), () => this.#next(run))
      return
    }
    // It cannot be read: tried again for ever.
    if (site.failed) return
    this.#reading = new Set(blocks)
    this.#hit = false
    const mine = blocks.map((block) => site.disk.current[block] as number)
    process.after(world.copyMs(), () => {
      if (run !== this.#run) return
      if (this.#hit && !world.plan.copyIgnoresWrites) {
        world.coverage.count('copy read-again')
        return this.#carry(run, blocks, theirs)
      }
      this.#reading = new Set()
      const differs = blocks.filter((_, index) => theirs === null || mine[index] !== theirs[index])
      if (differs.length > 0) {
        const values = differs.map((block) => mine[blocks.indexOf(block)] as number)
        this.#lastSequence = this.#path.copyFrame(differs, values)
      }
      this.#next(run)
    })
  }

  #finish(run: number): void {
    if (run !== this.#run) return
    if (this.#kind === 'reconcile') {
      this.stop()
      this.#agent.feed(() => ({ kind: 'reconciled', now: this.#agent.now() }))
      return
    }
    this.#sentAll = true
    this.applied(this.#agent.session.gate.acknowledged)
  }
}
