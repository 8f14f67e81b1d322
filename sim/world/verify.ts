import { BLOCKS_PER_REGION, REGIONS } from './site.ts'
import { Violation } from './truth.ts'
import type { AgentView, ClientsView } from './views.ts'

/* Online verification, as src/agent/replication/verify/verify-compare.ts does it: a region is compared while clients write, and a block that differs
 * is compared once more at one point of the stream. What differs there is sent again, and compared again.
 *
 * The observer knows what has changed by itself (`disk.rot`), so it can say whether the verification was right: nothing else may be called
 * different, and nothing of what was there from the beginning to the end may be missed.
 */

/** Questions of a verification are told apart from those of a copy. */
const FIRST_ID = 1_000_000

export class Verify {
  readonly #agent: AgentView
  readonly #path: ClientsView
  #id = FIRST_ID
  #onSeen: ((values: readonly number[]) => void) | null = null
  #region = 0
  /** Rotten at the replica since the run began. */
  #known: ReadonlySet<number> = new Set()
  #done: ((complete: boolean) => void) | null = null

  constructor(agent: AgentView, path: ClientsView) {
    this.#agent = agent
    this.#path = path
  }

  /** `done`: whether it went over everything. False: the link was lost, or nothing can be compared now. */
  start(done: (complete: boolean) => void): void {
    const { session, peer } = this.#agent
    const { link, site } = this.#agent
    if (!link.peerJoined || site.failed) return done(false)
    if (this.#done !== null || session.phase !== 'following' || !this.#path.streamOpen) {
      return done(false)
    }
    this.#done = done
    this.#region = 0
    this.#known = new Set(peer.disk.rot)
    this.#next()
  }

  stop(): void {
    this.#onSeen = null
    this.#end(false)
  }

  seen(id: number, values: readonly number[]): void {
    if (id !== this.#id) return
    const on = this.#onSeen
    this.#onSeen = null
    on?.(values)
  }

  #end(complete: boolean): void {
    const done = this.#done
    this.#done = null
    done?.(complete)
  }

  #look(blocks: readonly number[], on: (values: readonly number[]) => void): void {
    this.#onSeen = on
    this.#agent.link.send({ t: 'look', id: ++this.#id, blocks })
  }

  #next(): void {
    if (this.#done === null) return
    if (this.#agent.session.phase !== 'following' || this.#agent.site.failed) return this.stop()
    if (this.#region === REGIONS) return this.#finish()
    const first = this.#region++ * BLOCKS_PER_REGION
    const blocks = Array.from({ length: BLOCKS_PER_REGION }, (_, index) => first + index)
    this.#look(blocks, (theirs) => {
      // Some time after the question: clients have written since.
      const suspects = blocks.filter((block, index) => this.#mine(block) !== theirs[index])
      this.#agent.process.after(this.#agent.world.copyMs(), () => this.#recheck(suspects))
    })
  }

  #mine(block: number): number {
    return this.#agent.site.disk.current[block] as number
  }

  #recheck(suspects: readonly number[]): void {
    const [block, ...rest] = suspects
    if (this.#done === null) return
    if (block === undefined) return this.#next()
    if (this.#agent.world.plan.verifiesOnce) {
      this.#different(block, -1)
      return this.#recheck(rest)
    }
    // Read in the turn in which it is asked, behind everything that is numbered.
    const mine = this.#mine(block)
    this.#look([block], ([theirs]) => {
      const { coverage } = this.#agent.world
      if (this.#agent.site.failed) return this.stop()
      if (theirs === mine) coverage.count('verify rechecked')
      else {
        this.#different(block, theirs as number)
        coverage.count('verify repaired')
        this.#path.copyFrame([block], [this.#mine(block)])
      }
      this.#recheck(rest)
    })
  }

  #different(block: number, theirs: number): void {
    const { world, peer } = this.#agent
    const rotten = theirs < 0 && (!world.plan.verifiesOnce || peer.disk.rot.has(block))
    if (!rotten) throw new Violation(`promise 8: block ${block} is called different, and is not`)
    world.coverage.count('verify found')
  }

  #finish(): void {
    const { world, peer } = this.#agent
    // What was sent for repair is on its way behind the last question: an answer to another one tells that it is there.
    this.#look([0], () => {
      const missed = [...this.#known].find((block) => peer.disk.rot.has(block))
      if (missed !== undefined) {
        throw new Violation(
          `promise 8: block ${missed} has changed at ${peer.name}, and a verification has not found it`,
        )
      }
      world.coverage.count('verify complete')
      this.#end(true)
    })
  }
}
