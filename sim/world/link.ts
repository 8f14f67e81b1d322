import type { PeerRefusal, SessionEvent } from '#agent/replication/session/session.ts'
import type { OwnershipRecord } from '#wire/site/witness.ts'
import type { LinkMessage } from './link-messages.ts'
import type { Endpoint } from './network.ts'
import type { AgentView } from './views.ts'

/* The link between two agents: the replica dials, hellos are exchanged, then one ordered stream each way. Messages are
 * objects here, and mean what the frames of docs/formats/link.md mean.
 */

const BEAT_MS = 500
const REDIAL_MS = 300

export class Link {
  readonly #agent: AgentView
  #dialling = false
  #connecting = 0
  #end: Endpoint | null = null
  /** The volumes at the peer have had their first copy in full. */
  peerJoined = true
  /** The connection that the session knows of; effects about the link mean this one. */
  #sessionEnd: Endpoint | null = null
  #dialled = false
  #helloed = false
  #ready = false
  #heardMs = 0
  /** Messages wait here while the session handles one of them. */
  readonly #inbox: LinkMessage[] = []
  #handling = false
  #ackPlanned = false

  constructor(agent: AgentView) {
    this.#agent = agent
  }

  /** The session has taken this connection: frames may be sent when it says so. */
  get ready(): boolean {
    return this.#ready && this.#agent.session.linked
  }

  send(message: LinkMessage): void {
    this.#end?.send(message)
  }

  /** The session's own effects reach the connection that the session knows of, or nobody. */
  get current(): boolean {
    return this.#end !== null && this.#end === this.#sessionEnd
  }

  dial(on: boolean): void {
    if (on === this.#dialling) return
    this.#dialling = on
    if (on) this.#dialNow()
  }

  /** Given up by the shell. */
  lose(): void {
    if (this.#end !== null) this.#lost()
  }

  drop(tell: boolean): void {
    if (this.#end === null || !this.current) return
    if (tell) this.send({ t: 'record', record: this.#agent.session.stored.record })
    this.#forget()
  }

  /** The session is over. */
  end(): void {
    this.#dialling = false
    if (this.#end !== null) this.#forget()
  }

  /** The peer's connection arrives. */
  accept(end: Endpoint): void {
    this.#take(end, false)
  }

  startBeating(): void {
    const { process, session } = this.#agent
    process.after(BEAT_MS, () => {
      if (this.#helloed) {
        const now = this.#agent.now()
        if (now - this.#heardMs > session.settings.silenceMs) {
          this.#agent.world.coverage.count('link silent')
          this.#lost()
        } else {
          this.send({ t: 'beat', sentMs: now })
        }
      } else if (this.#end !== null && this.#agent.now() - this.#heardMs > 5_000) {
        this.#lost()
      }
      this.startBeating()
    })
  }

  #dialNow(): void {
    if (!this.#dialling || this.#end !== null || this.#connecting > 0) return
    this.#connecting++
    const { world, process } = this.#agent
    let settled = false
    const finish = (end: Endpoint | null) => {
      if (settled) return end?.close()
      settled = true
      cancel()
      this.#connecting--
      if (!this.#dialling || this.#end !== null) return end?.close()
      if (end === null) return this.#dialLater()
      this.#take(end, true)
      this.#hello()
    }
    const cancel = process.after(3_000, () => finish(null))
    world.connect(this.#agent, finish)
  }

  #dialLater(): void {
    this.#agent.process.after(REDIAL_MS, () => this.#dialNow())
  }

  #hello(): void {
    const { session, site } = this.#agent
    const { joined } = site
    this.send({ t: 'hello', hello: session.hello(site.intent.any, site.failed), joined })
  }

  /** A newer connection replaces the older. */
  #take(end: Endpoint, dialled: boolean): void {
    if (this.#end !== null) this.#lost(false)
    this.#end = end
    this.#dialled = dialled
    this.#helloed = false
    this.#ready = false
    this.#heardMs = this.#agent.now()
    end.listen(
      (message) => {
        if (this.#end !== end) return
        this.#heardMs = this.#agent.now()
        this.#inbox.push(message as LinkMessage)
        this.#work()
      },
      () => {
        if (this.#end === end) this.#lost()
      },
    )
  }

  #forget(): void {
    const end = this.#end
    this.#end = null
    this.#helloed = false
    this.#ready = false
    this.#inbox.length = 0
    this.#agent.clients.linkGone()
    end?.close()
    if (this.#dialling) this.#dialLater()
  }

  /** The connection ended without the session's wish. */
  #lost(redial = true): void {
    const was = this.#helloed
    const dialling = this.#dialling
    if (!redial) this.#dialling = false
    this.#forget()
    this.#dialling = dialling
    if (was) this.#agent.feed(() => ({ kind: 'link_down', now: this.#agent.now() }))
  }

  #work(): void {
    // Nothing behind copy_begin is looked at before the copy that it waits for was kept.
    while (!this.#handling && !this.#agent.keeping) {
      const message = this.#inbox.shift()
      if (message === undefined) return
      this.#on(message)
    }
  }

  /** What the agent waited for is over. */
  resume(): void {
    this.#work()
  }

  /** The session handles something from the link; what follows on the link waits. */
  #turn(make: () => SessionEvent, done: () => void = () => undefined): void {
    this.#handling = true
    this.#agent.feed(make, () => {
      this.#handling = false
      done()
      this.#work()
    })
  }

  #on(message: LinkMessage): void {
    const agent = this.#agent
    const { session, clients } = agent
    switch (message.t) {
      case 'hello': {
        if (this.#helloed) return
        const { hello } = message
        if (!this.#dialled) {
          const refusal = session.refusalOf(agent.peer.name, hello.record)
          if (refusal !== null) return this.#turnAway(refusal, hello.record)
          this.#hello()
        }
        this.#helloed = true
        this.peerJoined = message.joined
        clients.copy.copiesAll = false
        const end = this.#end
        return this.#turn(
          () => {
            this.#sessionEnd = end
            return { kind: 'link_up', now: agent.now(), hello, logFrom: clients.logFrom }
          },
          () => {
            if (this.#end === end) this.#ready = true
            clients.streamIfFollowing()
          },
        )
      }
      case 'record': {
        const { record } = message
        return this.#turn(() => ({ kind: 'peer_record', now: agent.now(), record }))
      }
      case 'session': {
        const { message: inner } = message
        if (inner.kind === 'risen' && clients.copy.copiesAll) this.peerJoined = true
        return this.#turn(() => ({ kind: 'message', now: agent.now(), message: inner }))
      }
      case 'join':
        return this.#join()
      case 'joined':
        this.peerJoined = true
        return
      case 'beat':
        if (!session.linked && !agent.world.plan.echoesAnybody) return
        if (session.role === 'replica') session.silence.answered(agent.now())
        return this.send({ t: 'echo', sentMs: message.sentMs })
      case 'echo':
        if (session.linked && session.role === 'writer') {
          session.contact.heard(message.sentMs)
          clients.pump()
        }
        return
      case 'frame':
        return this.#apply(message)
      case 'applied':
        if (session.linked) clients.applied(message.sequence)
        return
      case 'flush': {
        if (session.role !== 'replica' || !session.linked) return
        const { id, range } = message
        if (agent.world.observer.syncFails(agent.site)) return this.#lost()
        const mark = agent.site.disk.syncMark()
        const end = this.#end
        agent.process.after(agent.world.syncMs(agent.site), () => {
          agent.site.disk.syncDone(mark, range.from, range.to)
          if (this.#end === end) this.send({ t: 'flushed', id })
        })
        return
      }
      case 'flushed':
        if (session.linked) clients.flushed(message.id)
        return
      case 'look':
        if (!session.linked) return
        return this.send({
          t: 'seen',
          id: message.id,
          values: message.blocks.map((block) => agent.site.disk.read(block)),
        })
      case 'ask_map': {
        if (!session.linked) return
        const { changes, intent, host } = agent.site
        const set = (bits: Uint8Array) => [...bits.keys()].filter((index) => bits[index] === 1)
        return this.send({
          t: 'map',
          id: message.id,
          changed: changes.exact(host.bootId) ? set(changes.current) : null,
          regions: set(intent.current),
        })
      }
      case 'map':
        if (session.linked) clients.copy.mapped(message.id, message.changed, message.regions)
        return
      case 'seen':
        if (!session.linked) return
        clients.copy.seen(message.id, message.values)
        clients.verify.seen(message.id, message.values)
        return
    }
  }

  /** As replica-end.ts does: durable, and noted, before the writer hears of it and before anything behind is looked at. A disk that fails ends the link. */
  #join(): void {
    const agent = this.#agent
    const { session, site, world } = agent
    if (!session.applies) return
    if (world.observer.syncFails(site)) return this.#lost()
    const mark = site.disk.syncMark()
    const end = this.#end
    this.#handling = true
    agent.process.after(world.syncMs(site), () => {
      this.#handling = false
      if (this.#end === end && session.applies && !site.failed) {
        site.disk.syncDone(mark)
        site.joined = true
        world.coverage.count('copy joined')
        this.send({ t: 'joined' })
      }
      this.#work()
    })
  }

  /** The dialler learns this side's record; where it knows more, this side learns its. */
  #turnAway({ code }: PeerRefusal, record: OwnershipRecord): void {
    const agent = this.#agent
    agent.world.coverage.count(`link refused ${code}`)
    this.send({ t: 'record', record: agent.session.stored.record })
    this.#forget()
    if (code === 'OLDER_EPOCH') {
      agent.feed(() => ({ kind: 'peer_record', now: agent.now(), record }))
    }
  }

  #apply(frame: Extract<LinkMessage, { t: 'frame' }>): void {
    const agent = this.#agent
    const { session, site, world } = agent
    if (!session.applies) return
    // Applying twice is harmless; a gap is not.
    const expected = session.gate.sequence + 1
    world.observer.believe(
      frame.sequence <= expected,
      `frame ${frame.sequence} after ${expected - 1}`,
    )
    if (frame.sequence < expected) return
    frame.blocks.forEach((block, index) => site.disk.write(block, frame.values[index] as number))
    session.gate.applied(frame.sequence)
    site.run = { bootId: site.host.bootId, sequence: frame.sequence }
    world.observer.afterApply(agent)
    if (this.#ackPlanned) return
    this.#ackPlanned = true
    agent.process.after(world.random.between(0.05, 0.3), () => {
      this.#ackPlanned = false
      if (session.role === 'replica' && session.linked) {
        this.send({ t: 'applied', sequence: session.gate.sequence })
      }
    })
  }
}
