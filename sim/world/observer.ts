import { ALONE } from '#domain/ownership.ts'
import type { ClientIo } from './client-io.ts'
import { Copies } from './copies.ts'
import type { Site } from './site.ts'
import { Violation } from './truth.ts'
import type { AgentView, ObserverView, WorldView } from './views.ts'

/* An observer who sees both sites at once, and holds the promises of docs/architecture/replication.md against what they do.
 *
 * It is asked at every answer, every applied frame, every persisted claim and every loss of power or of a disk, and throws a `Violation` when a
 * promise is broken. Which losses are allowed is known here too: by force, by break-glass, by a loss of power everywhere.
 */
export class Observer implements ObserverView {
  readonly #world: WorldView
  /** Sites that an operator made the writer by force, and that have not begun to serve yet. */
  readonly #forced = new Set<string>()
  /** Sites whose power was lost since both sides were last seen to hold everything. */
  readonly #powerLost = new Set<string>()
  /** Sites whose power was lost since they last began to serve. */
  readonly #cutSince = new Set<string>()
  readonly copies: Copies
  /** Break-glass: the site that an operator made the writer, and the epoch it jumped to, until the other one is fenced. */
  #glass: { readonly site: string; readonly epoch: number; began: boolean } | null = null
  /** A production that has not heard that the other site is served plainly, or by force, since its group was stopped; and the epoch that it has missed.
   *  What it serves plainly itself until then is bounded by no lease, and was given up (decision 0177). */
  #unfenced: { readonly site: string; readonly epoch: number } | null = null
  /** Epochs that were made by break-glass. */
  readonly #glassEpochs = new Set<number>()
  #lastAnswer = { epoch: 0, site: '' }

  constructor(world: WorldView) {
    this.#world = world
    this.copies = new Copies(world.coverage, world.truth)
  }

  /** The process of `site` begins: it, or the power, may have gone right after break-glass was written. */
  started(site: Site): void {
    this.#noticesGlass(site)
  }

  /** The witness has stopped replication. */
  closed(writer: string): void {
    if (!this.#cutSince.has(writer)) return
    // Before the writer made itself equal to the replica again: a plain disk is left, with what a plain disk keeps over a loss of power.
    this.#world.coverage.count('closed before the reconcile')
    this.#world.truth.settleForFlushed()
  }

  believe(condition: boolean, belief: string): void {
    if (!condition) throw new Violation(`broken belief: ${belief}`)
  }

  /** `agent` answers a client in this moment. */
  answers(agent: AgentView, io: ClientIo, number: number, values: readonly number[] | null): void {
    const { site } = agent
    // Between a decision and its persistence one still answers under what was kept before.
    const { record } = site.epoch.value
    const plain = agent.clients.plain
    this.#world.coverage.count(`answer ${io.kind}${io.fua ? ' fua' : ''}${plain ? ' plain' : ''}`)
    const alone = plain || !agent.session.gate.needsReplica
    if (this.#split(agent)) {
      // Break-glass was used while the other writer lived: what that one still answers is lost, but not without a trace.
      this.#world.coverage.count('answer beside break-glass')
      if (io.kind === 'write') this.#world.truth.divergent(site.name, number)
      return
    }
    if (this.#glass === null) this.#onlyOneAnswers(agent, plain ? site.endedEpoch : record.epoch)
    if (!plain) this.#witnessed(agent)
    if (io.kind === 'write')
      this.#world.truth.acknowledged(number, io.fua, alone ? site.name : null)
    if (io.kind === 'flush') this.#world.truth.flushed(io.mark)
    const owed = values === null ? [] : this.#world.truth.owed(io.mark)
    values?.forEach((value, index) => {
      const needs = owed[index] as number
      if (value < needs) {
        throw new Violation(
          `promise 1: ${site.name} answers a read of block ${io.blocks[index]} with ${value}, but ${needs} was acknowledged before`,
        )
      }
    })
    this.#bothHold(agent, io, values)
  }

  /** Whether `agent` is the writer that break-glass, or the failover of a stopped group, left behind. */
  #split(agent: AgentView): boolean {
    const glass = this.#glass
    const broken = glass !== null && glass.site !== agent.site.name && glass.began
    return broken || this.#leftBehind(agent)
  }

  #leftBehind(agent: AgentView): boolean {
    return agent.clients.plain && this.#unfenced?.site === agent.site.name
  }

  #onlyOneAnswers(agent: AgentView, epoch: number): void {
    const { site } = agent
    if (epoch < this.#lastAnswer.epoch && this.#lastAnswer.site !== site.name) {
      throw new Violation(
        `promise 3: ${site.name} answers under epoch ${epoch}, after ${this.#lastAnswer.site} did under ${this.#lastAnswer.epoch}`,
      )
    }
    if (epoch >= this.#lastAnswer.epoch) this.#lastAnswer = { epoch, site: site.name }
    const other = this.#world.agentAt(this.#world.peerOf(site))
    const rival = other !== null && !this.#leftBehind(other) ? other : null
    if (rival !== null && (rival.status().answering || rival.clients.plain)) {
      throw new Violation(
        `promise 3: ${site.name} answers under epoch ${epoch} while ${rival.site.name} may answer under ${rival.session.stored.record.epoch}`,
      )
    }
  }

  /** What the answering side believes is in the witness's history. */
  #witnessed(agent: AgentView): void {
    const { session, site } = agent
    const { epoch, state, writer, mode, preferred } = site.epoch.value.record
    const { unwitnessed } = site.epoch.value
    if (session.gate.mode === 'unwitnessed') {
      this.#world.coverage.count(
        this.#glassEpochs.has(epoch) ? 'answer promoted' : 'answer preferred',
      )
      const may = mode === 'static-priority' && preferred === site.name
      if (!unwitnessed || !(may || this.#glassEpochs.has(epoch))) {
        throw new Violation(`promise 4: ${site.name} answers unwitnessed as ${state}, in ${mode}`)
      }
      if (this.#glassEpochs.has(epoch)) return
    }
    const decided = this.#world.witness.history.findLast(
      (one) => one.record.epoch === epoch,
    )?.record
    if (decided?.epoch !== epoch || decided.state !== state || decided.writer !== writer) {
      throw new Violation(
        `promise 4: ${site.name} answers as ${state} under epoch ${epoch}, which the witness never decided`,
      )
    }
    if (writer !== site.name) {
      throw new Violation(
        `promise 4: ${site.name} answers before it keeps the epoch that allows it`,
      )
    }
    if (!session.gate.needsReplica && !ALONE.has(state) && !unwitnessed) {
      throw new Violation(`promise 4: ${site.name} answers alone while the record says ${state}`)
    }
  }

  /** While the record says in_sync a failover may come at any moment, so both sides hold what was acknowledged. */
  #bothHold(agent: AgentView, io: ClientIo, values: readonly number[] | null): void {
    if (this.#world.witness.stored.state !== 'in_sync' || !this.#world.witness.trusted) return
    if (agent.session.gate.mode === 'unwitnessed') return
    const peer = this.#world.peerOf(agent.site)
    // Nobody fails over to a copy that is still being made.
    if (!peer.joined) return
    values?.forEach((value, index) => {
      const there = peer.disk.current[io.blocks[index] as number] as number
      if (there < value && !this.#powerLost.has(peer.name)) {
        throw new Violation(
          `promise 1: ${agent.site.name} shows write ${value} in sync, ${peer.name} lacks it`,
        )
      }
    })
    if (io.kind === 'read') return
    if (io.kind === 'write') {
      for (const block of io.blocks) {
        const needs = this.#world.truth.must[block] as number
        if ((peer.disk.current[block] as number) < needs && !this.#powerLost.has(peer.name)) {
          throw new Violation(
            `promise 1: ${agent.site.name} acknowledges write ${needs} in sync, ${peer.name} lacks it`,
          )
        }
      }
    }
    if (io.kind === 'flush' || io.fua) {
      const owed = this.#world.truth.owed(io.mark)
      io.blocks.forEach((block, index) => {
        const needs = io.kind === 'flush' ? (owed[index] as number) : 0
        const must = io.kind === 'flush' ? needs : (this.#world.truth.mustSurvive[block] as number)
        for (const site of this.#world.sites) {
          if ((site.disk.synced[block] as number) < must && !this.#powerLost.has(site.name)) {
            throw new Violation(
              `promise 1: ${agent.site.name} acknowledges a flush of ${must} in sync, which is not durable at ${site.name}`,
            )
          }
        }
      })
    }
    for (const site of this.#world.sites) {
      if (!this.#powerLost.has(site.name) || site.failed || !site.joined) continue
      const following = this.#world.agentAt(site)?.session.phase === 'following'
      if (following && this.#world.truth.lacks(site.disk.current) === null) {
        this.#powerLost.delete(site.name)
      }
    }
  }

  /** After the session has decided something. */
  afterDecision(agent: AgentView): void {
    const { session } = agent
    if (session.role !== 'writer') {
      if (session.role !== 'none') agent.began = false
      return
    }
    // Whoever was frozen, or had to begin anew, may go on after others have written.
    if (session.phase === 'frozen' || session.phase === 'opening') agent.began = false
    // In step with a replica that knows of a newer record it waits for that one's answer, and never begins. (As long as that one has not heard of
    // what the witness has decided, it takes what is written here.)
    const { gate } = session
    const waits = gate.mode === 'both' && !gate.mayAnswer(agent.now())
    if (gate.mode !== 'closed' && !(waits && this.#isLeft(agent))) this.begins(agent)
  }

  /** The other site of `agent` has made another writer's record its own, or is about to. */
  #isLeft({ site, session }: AgentView): boolean {
    const peer = this.#world.peerOf(site)
    const { record } = this.#world.agentAt(peer)?.session.stored ?? peer.epoch.value
    return record.epoch > session.stored.record.epoch && record.writer !== site.name
  }

  /** `agent` begins to answer clients. */
  begins(agent: AgentView): void {
    const { site } = agent
    if (agent.began) return
    agent.began = true
    if (site.failed) {
      // It answers every request with an error. Where nothing is kept for the other site any more, the order goes on from what that has.
      const { current } = this.#world.peerOf(site).disk
      if (agent.clients.quiet) this.#world.truth.serves(site.name, current, false)
      return
    }
    // Nobody has compared before it became the truth.
    if (site.disk.rot.size > 0) this.#world.coverage.count('rot taken over')
    site.disk.rot.clear()
    this.copies.begins(site)
    // Beside a site that was made the writer by break-glass nobody writes what counts.
    if (this.#split(agent)) return
    let lossy = this.#cutSince.delete(site.name)
    const glass = this.#glass?.site === site.name && !this.#glass.began
    if (glass && this.#glass !== null) this.#glass.began = true
    if (this.#forced.delete(site.name) || glass) {
      lossy = true
      this.#world.coverage.count('loss allowed by force')
      const peer = this.#world.peerOf(site)
      const { current, synced } = site.disk
      this.#world.truth.settleFor(current, synced, peer.name, peer.disk.current)
    }
    this.#world.truth.serves(site.name, site.disk.current, lossy)
  }

  allowLoss(site: string): void {
    this.#forced.clear()
    this.#forced.add(site)
  }

  afterApply(agent: AgentView): void {
    const { site, session } = agent
    if (session.stored.consistent) return this.#claims(agent)
    this.copies.overwritten(site)
  }

  afterPersist(agent: AgentView): void {
    const { site, session } = agent
    if (site.epoch.value.outOfTouchMs !== null) this.#world.coverage.count('out of touch noted')
    if (session.role === 'replica') this.#claims(agent)
    this.#noticesGlass(site)
    const unfenced = this.#unfenced
    if (unfenced?.site === site.name && !agent.clients.plain) {
      if (site.epoch.value.record.epoch >= unfenced.epoch) this.#unfenced = null
    }
    const glass = this.#glass
    if (
      glass !== null &&
      glass.site !== site.name &&
      (site.taken || site.plain === 'standby') &&
      site.epoch.value.record.epoch >= glass.epoch
    ) {
      if (!glass.began) this.allowLoss(glass.site)
      this.#glass = null
    }
  }

  /** `agent` takes the copy that a resync goes back to. */
  keeps(agent: AgentView, id: string): void {
    const { site, session } = agent
    const { consistent, divergent } = session.stored
    const clean = site.joined && session.hello(site.intent.any).clean
    this.copies.keeps(site, id, consistent && !divergent && clean)
  }

  #noticesGlass(site: Site): void {
    const { promoted, record } = site.epoch.value
    if (promoted && !this.#glassEpochs.has(record.epoch)) this.#breaksGlass(site, record.epoch)
  }

  /** An operator breaks the glass at `site`, whatever the witness and the other site do. */
  #breaksGlass(site: Site, epoch: number): void {
    this.#glass = { site: site.name, epoch, began: false }
    this.#glassEpochs.add(epoch)
    // What was given up at the other site remains so: that one may begin first.
    this.#forced.add(site.name)
    // A writer whose lease ran out begins anew, in whatever phase it is: others may have written since.
    const agent = this.#world.agentAt(site)
    if (agent !== null) agent.began = false
  }

  #claims(agent: AgentView): void {
    // Its hello and its status say that it is none, or not yet.
    if (agent.site.failed || !agent.site.joined) return
    if (agent.status().consistent && !agent.session.stored.divergent) {
      this.#world.truth.consistent(agent.site.name, agent.site.disk.current)
      this.copies.claimed(agent.site)
    }
  }

  /** The disks of `site` are about to be served plainly, because an operator gave up what the old `production` wrote since the group was stopped. */
  servesPlainly(site: Site, production: Site, epoch: number): void {
    this.allowLoss(site.name)
    const refuses = !production.taken && production.plain === 'standby'
    if (!refuses) this.#unfenced = { site: production.name, epoch }
  }

  /** The host of `site` loses its power. */
  losePower(site: Site): void {
    const { truth } = this.#world
    const peer = this.#world.peerOf(site)
    const server = this.#world.site(truth.server).epoch
    const known = server.value
    const held = truth.lacks(site.disk.current) === null
    site.host.powered = false
    this.#world.killAgent(site)
    // While the writer may not have answered alone, both sides owe everything that was acknowledged, else it alone does. The record that its disk
    // has taken tells, also where nobody has heard that it has: by that one the writer judges at its next start what it may have lost (decision 0081).
    const writer = server.value.record.writer === truth.server ? server.value : known
    const { state } = writer.record
    const closed = this.#world.witness.stored.state === 'closed'
    const inStep = state === 'in_sync' && !writer.unwitnessed
    const frozen = state === 'frozen' && !writer.ackedAlone
    const shared = !closed && (inStep || frozen || writer.riseAsked)
    const before = site.disk.current.slice()
    site.losePower(this.#world.random)
    const changed = before.some((value, block) => value !== site.disk.current[block])
    truth.lost(site.name, site.disk.current)
    this.copies.lostPower(site, changed)
    this.#powerLost.add(site.name)
    this.#cutSince.add(site.name)
    if (!held) return
    // A copy that was begun anew may hold everything before it is made durable and counts as whole.
    const owes = (shared && site.joined) || truth.server === site.name
    const unflushed = truth.lacks(site.disk.current, truth.mustSurvive)
    if (owes && unflushed !== null) {
      throw new Violation(`promise 1: power was lost at ${site.name}; flushed, but ${unflushed}`)
    }
    // A site that lost its power may have been lucky and lost nothing, but nobody can know that.
    const peerHolds =
      peer.joined && !this.#powerLost.has(peer.name) && truth.lacks(peer.disk.current) === null
    if (peerHolds && (shared || truth.server !== site.name)) return
    this.#world.coverage.count('only flushed writes left')
    truth.settleForFlushed()
  }

  /**
   * Whether an fdatasync fails now at `site`. The kernel has dropped what was not durable and will say so only this once, so
   * the copy counts as failed for ever.
   */
  syncFails(site: Site): boolean {
    if (site.failed) return true
    if (!site.failing || this.#powerLost.has(this.#world.peerOf(site).name)) return false
    const writes = this.#world.agentAt(site)?.session.role === 'writer'
    if (writes && !this.mayFailAsWriter(site)) return false
    this.#world.coverage.count(writes ? 'disk failed at the writer' : 'disk failed')
    this.#world.log(() => `${site.name}: its disk fails`)
    site.failing = false
    site.failed = true
    site.disk.losePower(this.#world.random)
    this.#nothingLeft(site)
    this.#powerLost.add(site.name)
    return true
  }

  /** Whether the disk of `site`, the writer, may fail: everything that was acknowledged is at the other site, which lacks nothing. */
  mayFailAsWriter(site: Site): boolean {
    const peer = this.#world.peerOf(site)
    const { record, unwitnessed } = site.epoch.value
    const { stored, trusted } = this.#world.witness
    return (
      trusted &&
      this.#glass === null &&
      stored.state === 'in_sync' &&
      stored.writer === site.name &&
      record.epoch === stored.epoch &&
      !unwitnessed &&
      peer.joined &&
      !peer.failed &&
      !this.#powerLost.has(peer.name) &&
      this.#world.truth.server === site.name &&
      this.#world.truth.lacks(peer.disk.current) === null
    )
  }

  /** The failed disk of `site` is replaced by an empty one. */
  replaceDisk(site: Site): void {
    this.#world.coverage.count('disk replaced')
    site.failed = false
    site.disk.replace()
    this.#nothingLeft(site)
  }

  /** As `replaceDisk`, while the session goes on: the copy counts as never made. */
  rebuilds(site: Site): void {
    site.joined = false
    this.replaceDisk(site)
    this.copies.blank(site)
  }

  #nothingLeft(site: Site): void {
    this.#world.truth.lost(site.name, site.disk.current)
    this.copies.nothing(site)
  }

  wasPowerLost(site: Site): boolean {
    return this.#powerLost.has(site.name)
  }
}
