import type { FlushMark } from './truth.ts'
import type { Agent } from './agent.ts'
import { CopyJob } from './copy.ts'
import {
  ALL_BLOCKS,
  type BlockRange,
  BLOCKS_PER_VOLUME,
  REGIONS,
  regionOf,
  VOLUMES,
  volumeOf,
} from './site.ts'
import { Verify } from './verify.ts'

/* The writer's hot path: intent bit, number, local write, frame; and the gate asked with a fresh clock reading before
 * anything is answered.
 */

export interface ClientIo {
  readonly kind: 'read' | 'write' | 'flush'
  /** Of one volume. For a flush: all blocks of the volume. */
  readonly blocks: readonly number[]
  readonly fua: boolean
  /** False: refused, or the connection was dropped. */
  readonly done: (ok: boolean) => void
  /** What a reader must at least see, or what a flush covers; taken when the client sent it. */
  readonly mark: FlushMark
}

interface Pending {
  readonly io: ClientIo
  /** Releasable up to here before the answer. */
  sequence: number
  readonly number: number
  localDone: boolean
  /** Durable at the replica; asked for on this link. */
  remoteDone: boolean
  remoteAsked: boolean
  values: number[] | null
}

interface Frame {
  readonly sequence: number
  readonly blocks: readonly number[]
  readonly values: readonly number[]
  readonly copy: boolean
}

/** Requests that wait for input or an intent bit; beyond it clients are not read any more. */
const WAITING_MAX = 64
const INTENT_CLEAR_MS = 4_000
/** So many frames of the end of a frame log may still be on their way when it counts as caught up. */
const CAUGHT_UP_FRAMES = 2

export class ClientPath {
  readonly #agent: Agent
  readonly copy: CopyJob
  readonly verify: Verify
  #exported = false
  #plain: boolean
  #input = false
  #stopped = false
  readonly #waiting: ClientIo[] = []
  /** Wait for an intent bit. */
  readonly #marking = new Set<ClientIo>()
  #pending: Pending[] = []
  /** Frames that the replica has not acknowledged; `#sentUpTo` of them are on this link. */
  #retained: Frame[] = []
  #streamOpen = false
  #sentUpTo = 0
  #flushId = 0
  readonly #flushes = new Map<number, () => void>()
  readonly #bitDurable = new Uint8Array(REGIONS)
  readonly touched = new Uint8Array(REGIONS)
  #draining = false
  #drainSent = false
  /** Answered frames that the replica lacks are kept, up to the limit. */
  #log = false
  #watching = false

  constructor(agent: Agent) {
    this.#agent = agent
    this.copy = new CopyJob(agent, this)
    this.verify = new Verify(agent, this)
    this.#plain = agent.site.plain === 'standalone' && agent.session.stored.record.epoch === 0
    this.#clearLater()
  }

  get streamOpen(): boolean {
    return this.#streamOpen
  }

  /** Everything behind this number is still here. */
  get logFrom(): number | null {
    const { gate } = this.#agent.session
    if (!this.#log && !gate.needsReplica) return null
    return (this.#retained[0]?.sequence ?? gate.sequence + 1) - 1
  }

  logFrames(on: boolean): void {
    this.#log = on
    if (on) this.#markRetained()
  }

  watchCatchUp(): void {
    this.#watching = true
    this.#watch()
  }

  #watch(): void {
    const { gate } = this.#agent.session
    if (!this.#watching || gate.sequence - gate.acknowledged > CAUGHT_UP_FRAMES) return
    this.#watching = false
    this.#agent.feed(() => ({ kind: 'caught_up', now: this.#agent.now() }))
  }

  #markRetained(): void {
    const { changes } = this.#agent.site
    for (const frame of this.#retained) if (!frame.copy) changes.mark(frame.blocks)
  }

  /** The intent bits of a replica were taken away. */
  clearBits(): void {
    this.#bitDurable.fill(0)
  }

  renew(): void {
    this.#log = false
    this.#bitDurable.fill(0)
    this.#retained = []
    this.#streamOpen = false
  }

  /** Nothing is on its way. */
  get quiet(): boolean {
    return this.#pending.length === 0 && this.#retained.length === 0
  }

  /** Volumes are served without a session. */
  get plain(): boolean {
    return this.#plain
  }

  // -- effects --------------------------------------------------------------------------------------------------------

  serve(): void {
    this.#plain = false
    this.#exported = true
    this.#takeWaiting()
  }

  refuse(): void {
    this.#plain = false
    this.#exported = false
    this.failAll()
  }

  end(): void {
    const { site } = this.#agent
    this.#exported = false
    this.#draining = false
    this.#input = false
    this.copy.stop()
    this.#retained = []
    this.#plain = site.plain === 'standalone'
    if (!this.#plain) return this.failAll()
    this.#agent.world.observer.begins(this.#agent)
    // Clients stay connected: what waits is answered by the plain volume, which has it already.
    const pending = this.#pending
    this.#pending = []
    for (const one of pending) this.#plainDone(one)
    for (const io of this.#waiting.splice(0)) this.submit(io)
  }

  input(open: boolean): void {
    this.#input = open
    if (open) this.#draining = false
    this.#takeWaiting()
  }

  stopInput(): void {
    this.#stopped = true
  }

  drain(): void {
    this.#draining = true
    this.#drainSent = false
    this.pump()
  }

  resend(after: number): void {
    this.openStream(after)
  }

  /** In step with a replica without any resending (after a reconcile, or a clean stop). */
  streamIfFollowing(): void {
    const { session, link } = this.#agent
    if (this.#streamOpen || !link.ready || session.role !== 'writer') return
    if (session.phase === 'following') this.openStream(session.gate.acknowledged)
  }

  /** From here the link carries frames, the first of them behind `after`. */
  openStream(after: number): void {
    if (!this.#agent.link.current) return
    this.#streamOpen = true
    this.#sentUpTo = after
    // The replica has these, as it has said when the link opened.
    this.#retained = this.#retained.filter((frame) => frame.sequence > after)
    this.#drainSent = false
    for (const one of this.#pending) one.remoteAsked = false
    this.#sendFrames()
    this.pump()
  }

  linkGone(): void {
    this.#streamOpen = false
    this.#flushes.clear()
    this.#watching = false
    this.copy.stop()
    this.verify.stop()
  }

  forgetFrames(mark: boolean): void {
    if (mark) this.#markRetained()
    this.#retained = []
  }

  failAll(): void {
    const pending = this.#pending
    this.#pending = []
    const waiting = [...this.#waiting.splice(0), ...this.#marking]
    this.#marking.clear()
    for (const one of pending) one.io.done(false)
    for (const io of waiting) io.done(false)
  }

  // -- requests -------------------------------------------------------------------------------------------------------

  submit(io: ClientIo): void {
    if (this.#stopped || !this.#agent.process.alive) return io.done(false)
    if (this.#plain) return this.#plainIo(io)
    if (!this.#exported) return io.done(false)
    const { gate } = this.#agent.session
    if (!this.#input || (gate.needsReplica && this.#retained.length > WAITING_MAX)) {
      if (this.#waiting.length >= WAITING_MAX) return io.done(false)
      this.#waiting.push(io)
      return
    }
    this.#take(io)
  }

  #takeWaiting(): void {
    if (!this.#exported || !this.#input || this.#waiting.length === 0) return
    for (const io of this.#waiting.splice(0)) this.submit(io)
  }

  #take(io: ClientIo): void {
    const { process, site, world } = this.#agent
    if (site.failed && io.kind !== 'write') return io.done(false)
    switch (io.kind) {
      case 'write':
        return this.#write(io)
      case 'read': {
        const one = this.#add(io, 0, 0)
        process.after(world.random.between(0.05, 0.6), () => {
          if (site.failed) return this.#fails(one)
          one.values = io.blocks.map((block) => site.disk.current[block] as number)
          // Nobody may see what a failover could take back: the answer waits for what it shows.
          one.sequence = this.#lastTouching(io.blocks)
          one.localDone = true
          this.pump()
        })
        return
      }
      case 'flush':
        return this.#syncFor(this.#add(io, 0, 0))
    }
  }

  #add(io: ClientIo, sequence: number, number: number): Pending {
    const one: Pending = {
      io,
      sequence,
      number,
      localDone: false,
      remoteDone: false,
      remoteAsked: false,
      values: null,
    }
    this.#pending.push(one)
    return one
  }

  #lastTouching(blocks: readonly number[]): number {
    let last = 0
    for (const one of this.#pending) {
      if (one.io.kind !== 'write' || one.sequence <= last) continue
      if (one.io.blocks.some((block) => blocks.includes(block))) last = one.sequence
    }
    return last
  }

  #write(io: ClientIo): void {
    const { site, process, world } = this.#agent
    const missing: number[] = []
    // The blocks of a request lie in a row, so regions come in a row too.
    for (const block of io.blocks) {
      const region = regionOf(block)
      this.touched[region] = 1
      if (this.#bitDurable[region] === 0 && missing.at(-1) !== region) missing.push(region)
    }
    if (missing.length === 0) return this.#number(io)
    for (const region of missing) site.intent.current[region] = 1
    if (world.plan.intentAfterTouch) this.#number(io)
    else this.#marking.add(io)
    process.after(world.syncMs(site), () => {
      site.intent.syncDone(missing)
      for (const region of missing) {
        if (site.intent.current[region] === 1) this.#bitDurable[region] = 1
      }
      if (this.#marking.delete(io)) this.submit(io)
    })
  }

  #number(io: ClientIo): void {
    const { session, site, world } = this.#agent
    const sequence = session.gate.next()
    const number = world.truth.ordered(site.name, io.blocks)
    if (session.marks && !world.plan.forgetsMarks) site.changes.mark(io.blocks)
    session.gate.bytes += io.blocks.length
    if (!site.failed) for (const block of io.blocks) site.disk.write(block, number)
    this.copy.touched(io.blocks)
    site.run = { bootId: site.host.bootId, sequence }
    const one = this.#add(io, sequence, number)
    this.#frame({
      sequence,
      blocks: io.blocks,
      values: io.blocks.map(() => number),
      copy: false,
    })
    // The replica has it all the same.
    if (site.failed) return this.#fails(one)
    if (io.fua) this.#syncFor(one)
    else one.localDone = true
    this.pump()
  }

  #frame(frame: Frame): void {
    const { session, world } = this.#agent
    if (!session.linked && !session.gate.needsReplica && !this.#log) {
      this.#retained = []
      return
    }
    this.#retained.push(frame)
    if (this.#log && !session.gate.needsReplica && this.#retained.length > world.logFrames) {
      world.coverage.count('frame log dropped')
      this.#log = false
      if (!this.#streamOpen) this.#retained = []
      this.#agent.feed(() => ({ kind: 'log_dropped', now: this.#agent.now() }))
    }
    if (world.plan.logHole && this.#log && !this.#streamOpen && this.#retained.length === 9) {
      this.#retained.splice(4, 1)
    }
    this.#sendFrames()
  }

  /** A copy's blocks travel as a numbered frame, in their place between the clients' writes. */
  copyFrame(blocks: readonly number[], values: readonly number[]): number {
    const { session, site } = this.#agent
    const sequence = session.gate.next()
    site.run = { bootId: site.host.bootId, sequence }
    this.#frame({ sequence, blocks, values, copy: true })
    return sequence
  }

  #sendFrames(): void {
    if (!this.#streamOpen) return
    for (const frame of this.#retained) {
      if (frame.sequence <= this.#sentUpTo) continue
      this.#sentUpTo = frame.sequence
      this.#agent.link.send({ t: 'frame', ...frame })
    }
  }

  #syncFor(one: Pending): void {
    const { process, site, world } = this.#agent
    const mark = site.disk.syncMark()
    const { from, to } = volumeOf(one.io.blocks[0] as number)
    process.after(world.syncMs(site), () => {
      if (world.observer.syncFails(site)) return this.#fails(one)
      site.disk.syncDone(mark, from, to)
      one.localDone = true
      this.pump()
    })
    this.#askRemote(one)
  }

  /** EIO. */
  #fails(one: Pending): void {
    const at = this.#pending.indexOf(one)
    if (at < 0) return
    this.#pending.splice(at, 1)
    one.io.done(false)
  }

  /** The replica makes durable what was sent so far, then `done`. False while no stream is open. */
  remoteFlush(range: BlockRange, done: () => void): boolean {
    if (!this.#streamOpen) return false
    const id = ++this.#flushId
    this.#flushes.set(id, done)
    this.#agent.link.send({ t: 'flush', id, range })
    return true
  }

  #askRemote(one: Pending): void {
    if (one.remoteAsked || one.remoteDone) return
    one.remoteAsked = this.remoteFlush(volumeOf(one.io.blocks[0] as number), () => {
      one.remoteDone = true
      this.pump()
    })
  }

  flushed(id: number): void {
    const done = this.#flushes.get(id)
    this.#flushes.delete(id)
    done?.()
  }

  applied(sequence: number): void {
    const { session } = this.#agent
    if (!this.#streamOpen || sequence > session.gate.sequence) return
    session.gate.acknowledge(sequence)
    const kept = this.#retained.findIndex((frame) => frame.sequence > sequence)
    if (kept < 0) this.#retained = []
    else if (kept > 0) this.#retained.splice(0, kept)
    this.copy.applied(session.gate.acknowledged)
    this.#watch()
    this.#takeWaiting()
    this.pump()
  }

  /** Answers what may be answered at this moment. */
  pump(): void {
    const { session, site, world } = this.#agent
    const { gate } = session
    if (this.#pending.length > 0 && this.#exported) {
      const upTo = gate.releasableUpTo(this.#agent.now())
      if (upTo >= 0) {
        const both = gate.needsReplica
        const released: Pending[] = []
        const kept: Pending[] = []
        for (const one of this.#pending) {
          if (this.#mayRelease(one, upTo, both)) released.push(one)
          else kept.push(one)
        }
        if (released.length > 0) {
          this.#pending = kept
          for (const one of released) {
            // Done here before the disk failed, and not at the replica.
            if (!both && site.failed) {
              one.io.done(false)
              continue
            }
            world.observer.answers(this.#agent, one.io, one.number, one.values)
            one.io.done(true)
          }
        }
      }
    }
    if (this.#draining) this.#drainStep()
  }

  #mayRelease(one: Pending, upTo: number, both: boolean): boolean {
    const { kind, fua } = one.io
    if (!one.localDone) return false
    if (one.sequence > upTo) return false
    const remote = both && !this.#agent.world.plan.flushHereOnly
    if (remote && (fua || kind === 'flush') && !one.remoteDone) {
      this.#askRemote(one)
      return false
    }
    return true
  }

  #drainStep(): void {
    const { process, site, world } = this.#agent
    if (this.#drainSent || !this.quiet || !this.#streamOpen) return
    let left = 2
    const done = () => {
      if (--left === 0 && this.#draining && this.quiet) {
        this.#draining = false
        this.#agent.feed(() => ({ kind: 'drained', now: this.#agent.now() }))
      }
    }
    this.#drainSent = this.remoteFlush(ALL_BLOCKS, done)
    const mark = site.disk.syncMark()
    process.after(world.syncMs(site), () => {
      if (site.failed) return
      site.disk.syncDone(mark)
      done()
    })
  }

  /** Every few seconds, in sync: both sides durable, then the bits of regions that were not touched since are cleared. */
  #clearLater(): void {
    this.#agent.process.after(INTENT_CLEAR_MS, () => {
      this.#clear()
      this.#clearLater()
    })
  }

  #clear(): void {
    const { session, site, process, world } = this.#agent
    if (session.role !== 'writer' || session.phase !== 'following' || !this.#streamOpen) return
    if (site.failed) return
    const candidates: number[] = []
    for (let region = 0; region < REGIONS; region++) {
      if (this.#bitDurable[region] === 1) candidates.push(region)
    }
    if (candidates.length === 0) return
    this.touched.fill(0)
    let left = 2
    const epoch = session.stored.record.epoch
    const done = () => {
      if (--left > 0) return
      if (session.phase !== 'following' || session.stored.record.epoch !== epoch) return
      world.coverage.count('intent cleared')
      for (const region of candidates) {
        if (this.touched[region] === 1) continue
        site.intent.current[region] = 0
        this.#bitDurable[region] = 0
      }
      if (world.random.chance(0.5)) site.intent.syncDone(candidates)
    }
    if (!this.remoteFlush(ALL_BLOCKS, done)) return
    const mark = site.disk.syncMark()
    process.after(world.syncMs(site), () => {
      site.disk.syncDone(mark)
      done()
    })
  }

  // -- plain volumes --------------------------------------------------------------------------------------------------

  #plainIo(io: ClientIo): void {
    const { process, site, world } = this.#agent
    const number = io.kind === 'write' ? world.truth.ordered(site.name, io.blocks) : 0
    if (io.kind === 'write') {
      for (const block of io.blocks) site.disk.write(block, number)
    }
    const one = this.#add(io, 0, number)
    const sync = io.kind === 'flush' || io.fua
    const mark = site.disk.syncMark()
    const { from, to } = volumeOf(io.blocks[0] as number)
    process.after(sync ? world.syncMs(site) : 0.1, () => {
      if (sync) site.disk.syncDone(mark, from, to)
      if (!this.#pending.includes(one)) return
      if (!this.#plain) {
        // A session took the volume over in between; its gate answers.
        one.localDone = true
        one.values = this.#look(io)
        return this.pump()
      }
      this.#pending = this.#pending.filter((other) => other !== one)
      world.observer.answers(this.#agent, io, number, this.#look(io))
      io.done(true)
    })
  }

  #look(io: ClientIo): number[] {
    const { disk } = this.#agent.site
    return io.kind === 'read' ? io.blocks.map((block) => disk.current[block] as number) : []
  }

  #plainDone(one: Pending): void {
    const { io } = one
    if (io.kind === 'flush' || io.fua) {
      const { site, process, world } = this.#agent
      const mark = site.disk.syncMark()
      const { from, to } = volumeOf(io.blocks[0] as number)
      // A session that takes over meanwhile numbers from the beginning.
      one.sequence = 0
      this.#pending.push(one)
      process.after(world.syncMs(site), () => {
        site.disk.syncDone(mark, from, to)
        if (!this.#pending.includes(one)) return
        if (!this.#plain) {
          one.localDone = true
          return this.pump()
        }
        this.#pending = this.#pending.filter((other) => other !== one)
        world.observer.answers(this.#agent, io, one.number, null)
        io.done(true)
      })
      return
    }
    this.#agent.world.observer.answers(this.#agent, io, one.number, this.#look(io))
    io.done(true)
  }
}

const VOLUME_BLOCKS = Array.from({ length: VOLUMES }, (_, volume) =>
  Array.from({ length: BLOCKS_PER_VOLUME }, (_, index) => volume * BLOCKS_PER_VOLUME + index),
)

/** All blocks of a volume. */
export function volumeBlocks(volume: number): readonly number[] {
  return VOLUME_BLOCKS[volume] as number[]
}
