import { type FaultKind, FAULTS } from './fault-kinds.ts'
import type { OperationName } from './operations.ts'
import type { Operator } from './operator.ts'
import type { Random } from './random.ts'
import { BLOCKS, type Site } from './site.ts'
import type { World } from './world.ts'

/* What goes wrong. Each seed enables some kinds with some intensity, because faults that always come together hide what
 * one of them alone would show. `healAll` ends everything and starts what is down.
 */

/** What looks to an operator as if a whole site had gone. */
const SITE_GONE: ReadonlySet<FaultKind> = new Set([
  'agent-crash',
  'agent-pause',
  'power-loss',
  'site-loss',
  'site-isolated',
  'witness-cut',
])

/** Operations in which a disk that fails is the second failure. */
const NEEDS_BOTH: ReadonlySet<OperationName> = new Set(['reverse', 'close', 'failover-paused'])

export class Faults {
  readonly #world: World
  readonly #operator: Operator
  readonly #random: Random
  readonly #enabled: readonly FaultKind[]
  readonly #gapMs: number
  #running = true
  /** Faults that found something to break. */
  struck = 0
  /** A site cannot be reached any more, by the looks of it. */
  onSiteGone: (site: Site) => void = () => undefined

  constructor(world: World, operator: Operator) {
    this.#world = world
    this.#operator = operator
    this.#random = world.random.fork()
    const share = this.#random.pick([0.2, 0.4, 0.8])
    const chosen = FAULTS.filter(() => this.#random.chance(share))
    this.#enabled = world.plan.faults ?? chosen
    this.#gapMs = this.#random.pick([700, 1_500, 4_000])
    this.#next()
  }

  #next(): void {
    this.#world.timeline.after(this.#random.between(0.1, 2) * this.#gapMs, () => {
      if (!this.#running) return
      if (this.#enabled.length > 0) this.strike(this.#random.pick(this.#enabled))
      this.#next()
    })
  }

  /** Undoes a fault after a while; at once when everything is being healed. */
  #later(minMs: number, maxMs: number, action: () => void): void {
    if (!this.#running) return action()
    // Short and long ones are equally likely, not equally long.
    const ms = minMs * (maxMs / minMs) ** this.#random.next()
    this.#world.timeline.after(ms, () => {
      if (this.#running) action()
    })
  }

  /** One of any kind, for a seed that has had too few. */
  strikeAny(): void {
    this.strike(this.#random.pick(this.#world.plan.faults ?? FAULTS))
  }

  strike(kind: FaultKind): void {
    const world = this.#world
    const site = this.#random.pick(world.sites)
    const hits = this.#hits(kind, site)
    world.coverage.count(hits ? `fault ${kind}` : `fault in vain`)
    if (hits) this.struck++
    world.log(() => `fault ${kind} (${site.name})`)
    if (SITE_GONE.has(kind)) this.onSiteGone(site)
    this.#break(kind, site)
  }

  /** Whether there is something to break. */
  #hits(kind: FaultKind, site: Site): boolean {
    const { network, witness } = this.#world
    const agent = this.#world.agentAt(site)
    switch (kind) {
      case 'agent-crash':
      case 'agent-clean-stop':
        return agent !== null
      case 'agent-pause':
        return agent !== null && !agent.process.paused
      case 'power-loss':
      case 'power-loss-both':
      case 'site-loss':
        return site.host.powered
      case 'link-reset':
      case 'link-silence':
        return network.streams.size > 0
      case 'witness-crash':
      case 'witness-power-loss':
      case 'witness-restored':
        return witness.process.alive
      case 'witness-pause':
        return witness.process.alive && !witness.process.paused
      case 'disk-fails':
        return this.#mayFail() !== null
      case 'bit-flip':
        return this.#flips() !== null
      case 'link-cut':
      case 'link-cut-one-way':
      case 'link-flaps':
      case 'network-slow':
      case 'no-space':
      case 'site-isolated':
      case 'slow-fsync':
      case 'wall-clock-jump':
      case 'witness-cut':
        return true
    }
  }

  /** The copy that a disk may fail under: one at a time. */
  #mayFail(): Site | null {
    const world = this.#world
    const { busy, deciding } = this.#operator
    // A copy that fails when a failover to it has been decided, or a switch is under way, is the second failure.
    if ((busy === 'failover' && deciding) || (busy !== null && NEEDS_BOTH.has(busy))) return null
    if (world.sites.some(({ failing, failed }) => failing || failed)) return null
    return world.site(world.witness.stored.replica)
  }

  /** The replica that a bit may flip at: where a verification can see it. */
  #flips(): Site | null {
    const world = this.#world
    const { state, replica } = world.witness.stored
    const agent = world.agentAt(world.site(replica))
    return state === 'in_sync' && agent?.session.role === 'replica' ? world.site(replica) : null
  }

  #break(kind: FaultKind, site: Site): void {
    const world = this.#world
    const { network, witness } = world
    const peer = world.peerOf(site)
    switch (kind) {
      case 'agent-crash':
        world.killAgent(site)
        return this.#later(50, 8_000, () => world.startAgent(site))
      case 'agent-clean-stop':
        world.agentAt(site)?.stopCleanly(() => this.#later(50, 8_000, () => world.startAgent(site)))
        return
      case 'agent-pause': {
        const agent = world.agentAt(site)
        agent?.process.pause()
        return this.#later(20, 15_000, () => agent?.process.resume())
      }
      case 'power-loss':
        return this.#powerLoss(site)
      case 'power-loss-both':
        this.#powerLoss(site)
        return this.#later(0.1, 2_000, () => this.#powerLoss(peer))
      case 'site-loss':
        // Everything there is gone until the end of the chaos.
        if (site.host.powered && !this.#holdsAll(site)) world.observer.losePower(site)
        return
      case 'site-isolated':
        this.#cut(site.name, peer.name, true)
        return this.#cut(site.name, 'witness', true)
      case 'link-cut':
        return this.#cut(site.name, peer.name, true)
      case 'link-cut-one-way':
        return this.#cut(site.name, peer.name, false)
      case 'witness-cut':
        return this.#cut(site.name, 'witness', this.#random.chance(0.6))
      case 'link-reset':
        for (const stream of network.streams) stream.reset()
        return
      case 'link-silence':
        for (const stream of network.streams) stream.silent = true
        return
      case 'network-slow': {
        const slowMs = this.#random.pick([20, 300, 1_200, 2_500])
        network.slow(site.name, peer.name, slowMs)
        network.slow(site.name, 'witness', slowMs)
        return this.#later(500, 8_000, () => {
          network.slow(site.name, peer.name, 0)
          network.slow(site.name, 'witness', 0)
        })
      }
      case 'witness-crash':
        witness.kill()
        return this.#later(100, 10_000, () => this.#startWitness())
      case 'witness-power-loss':
        witness.kill()
        witness.host.powered = false
        return this.#later(500, 12_000, () => this.#startWitness())
      case 'witness-restored':
        witness.kill()
        if (witness.restore()) {
          world.coverage.count('witness restored')
          this.#operator.forget()
          // In some rooms somebody stands before the silent machine.
          if (this.#random.chance(0.5)) this.#later(500, 20_000, () => this.#operator.vouch())
        }
        return this.#later(100, 10_000, () => this.#startWitness())
      case 'witness-pause': {
        const { process } = witness
        process.pause()
        return this.#later(50, 15_000, () => process.resume())
      }
      case 'slow-fsync':
        site.syncMs = this.#random.pick([60, 700, 3_000])
        return this.#later(500, 6_000, () => {
          site.syncMs = 3
        })
      case 'no-space':
        site.full = true
        return this.#later(500, 15_000, () => {
          site.full = false
        })
      case 'disk-fails': {
        const copy = this.#mayFail()
        if (copy === null) return
        const writer = world.peerOf(copy)
        const victim =
          this.#random.chance(0.3) && world.observer.mayFailAsWriter(writer) ? writer : copy
        victim.failing = true
        return
      }
      case 'bit-flip':
        this.#flips()?.disk.rot.add(this.#random.below(BLOCKS))
        return
      case 'link-flaps':
        for (let count = 0; count < 4; count++) {
          const gap = count * this.#random.between(1_500, 9_000)
          world.timeline.after(gap, () => {
            if (this.#running) for (const stream of network.streams) stream.reset()
            if (this.#running) this.#cutFor(site.name, peer.name, this.#random.between(100, 3_000))
          })
        }
        return
      case 'wall-clock-jump':
        return site.host.jumpWall(this.#random.between(-1e9, 1e9))
    }
  }

  #powerLoss(site: Site): void {
    if (!site.host.powered) return
    if (this.#random.chance(0.5)) return this.#powerOff(site)
    // The disk struggles first, so that something is always on its way to it.
    site.syncMs = this.#random.pick([60, 700])
    this.#later(20, 1_500, () => this.#powerOff(site))
  }

  #powerOff(site: Site): void {
    if (!site.host.powered || !this.#running || this.#holdsAll(site)) return
    site.syncMs = 3
    this.#world.observer.losePower(site)
    this.#later(300, 10_000, () => this.#powerOn(site))
  }

  /** The writer's disk has failed: what it answered is at `site` alone, whose power is the second failure. */
  #holdsAll(site: Site): boolean {
    const peer = this.#world.peerOf(site)
    return peer.failed && this.#world.witness.stored.writer === peer.name
  }

  #powerOn(site: Site): void {
    if (!site.host.powered) site.host.boot()
    this.#world.startAgent(site)
  }

  #startWitness(): void {
    const { witness } = this.#world
    if (witness.process.alive) return
    if (!witness.host.powered) witness.host.boot()
    witness.start()
    this.#operator.resume()
  }

  #cut(from: string, to: string, both: boolean): void {
    const { network } = this.#world
    const turned = this.#random.chance(0.5)
    const [a, b] = turned ? [to, from] : [from, to]
    network.cut(a, b)
    if (both) network.cut(b, a)
    // Some outlast a lease and all that waits for its end.
    const lasting = this.#random.chance(0.35)
    this.#later(lasting ? 9_000 : 100, lasting ? 30_000 : 9_000, () => {
      network.heal(a, b)
      network.heal(b, a)
    })
  }

  #cutFor(a: string, b: string, ms: number): void {
    const { network, timeline } = this.#world
    network.cut(a, b)
    network.cut(b, a)
    timeline.after(ms, () => {
      network.heal(a, b)
      network.heal(b, a)
    })
  }

  /** The chaos ends: everything works again, and stays so. */
  healAll(): void {
    this.#running = false
    const world = this.#world
    const { network, witness } = world
    const names = [...world.sites.map((site) => site.name), 'witness']
    for (const from of names) for (const to of names) if (from !== to) network.heal(from, to)
    witness.process.resume()
    this.#startWitness()
    for (const site of world.sites) {
      site.syncMs = 3
      site.full = false
      site.failing = false
      world.agentAt(site)?.process.resume()
      this.#powerOn(site)
    }
  }
}
