import { STATUS, type Status } from '#wire/link/frame.ts'
import type { Hello, LinkMessage, Refuse } from '#wire/link/messages.ts'
import type { SessionCore } from '../core.ts'
import type { AcceptedLink } from '../link.ts'
import type { LinkSilence } from '../session/link-silence.ts'
import { PeerQueries } from '../peer-queries.ts'
import { Sender } from './sender.ts'
import { LinkNews } from '../session/short-links.ts'
import type { SessionMessage } from '../session/session.ts'
import type { Writer } from './writer.ts'

/* The link as its writer has it: at most one, accepted from the replica.
 *
 * Owns the sender and the questions that run over it, and what the replica has said of itself on this link: which members it has in
 * full, and which of its volumes began as one hole. A new link of the replica replaces an older one, and a link that says
 * nothing is dead, whatever the socket thinks.
 *
 * Every end of a link that the session did not wish for is reported as `link_down`, once.
 */

/** What only the writer says. */
type WritersMessage = Exclude<SessionMessage, { kind: 'risen' | 'epoch_accepted' }>

export interface WriterEndParts {
  readonly core: SessionCore
  /** Judges the silence of a link to process `run`. */
  readonly silenceOf: (run: string) => LinkSilence
  readonly writer: () => Writer | null
  /** The replica has acknowledged more; the writer knows already. */
  readonly onAcknowledged: () => void
}

export class WriterEnd {
  readonly #parts: WriterEndParts
  readonly #core: SessionCore
  #sender: Sender | null = null
  /** The link whose `link_up` the session has had, or is having: what its effects about the link mean. */
  #known: Sender | null = null
  #queries: PeerQueries | null = null
  #linkUpMs = 0
  #silence: LinkSilence | null = null
  readonly #peerJoined = new Set<number>()
  readonly #blank = new Set<number>()
  #peerBootId = ''
  #peerFeatures = 0
  #peerUnfit: Hello['unfit'] = null
  /** What was told of refusals and ends of links. */
  readonly #news = new LinkNews()
  /** Members that the last `rise` was about. */
  #rising: readonly number[] = []

  constructor(parts: WriterEndParts) {
    this.#parts = parts
    this.#core = parts.core
  }

  get sender(): Sender | null {
    return this.#sender
  }

  get queries(): PeerQueries | null {
    return this.#queries
  }

  /** Members that the replica has in full. */
  get peerJoined(): ReadonlySet<number> {
    return this.#peerJoined
  }

  /** Members whose replica said that it is one hole when this link began. */
  get blank(): ReadonlySet<number> {
    return this.#blank
  }

  /** Boot of the replica's host on this link. */
  get peerBootId(): string {
    return this.#peerBootId
  }

  /** Bits of FEATURES that the replica knows. */
  get peerFeatures(): number {
    return this.#peerFeatures
  }

  /** Why the replica can hold no copy, as it said when it dialled last, or when it gave that link up; null: it can. */
  get peerUnfit(): Hello['unfit'] {
    return this.#peerUnfit
  }

  // -- begin and end --------------------------------------------------------------------------------------------------

  /** A replica's link whose hello was answered with ours. It replaces an older one. */
  accept({ socket, hello, rest }: AcceptedLink): void {
    const core = this.#core
    if (this.#sender !== null) {
      this.#lose()
      core.post({ kind: 'link_down', now: core.now() })
    }
    const sender: Sender = new Sender(socket, {
      acknowledged: (sequence, status) => {
        if (sequence > core.session.gate.sequence) {
          return this.broken(sender, 'the replica acknowledged what was never sent')
        }
        this.#writer?.acknowledged(sequence)
        this.#parts.onAcknowledged()
        if (status !== STATUS.OK) this.#cannotKeep(sender, status, sequence)
      },
      flushed: (id, status) => {
        if (status === STATUS.OK) return this.#writer?.flushed(id, status)
        // Never a client's error: its own disk is good. It waits until this side may stand alone.
        this.#cannotKeep(sender, status, core.session.gate.acknowledged)
        this.broken(sender, `the replica could not make its copy durable: status ${status}`)
      },
      message: (message) => this.#fromReplica(message),
      echoed: (sentMs) => {
        core.session.contact.heard(sentMs)
        this.#writer?.release()
      },
      checksums: (id, status, payload) => own.answered(id, status, payload),
      block: (id, status, payload) => own.answered(id, status, payload),
      changes: (id, status, payload) => own.answered(id, status, payload),
      closed: (reason) => this.broken(sender, reason),
    })
    const own = new PeerQueries(sender)
    this.#sender = sender
    this.#queries = own
    this.#linkUpMs = core.now()
    this.#silence = this.#parts.silenceOf(hello.runId)
    this.#peerBootId = hello.bootId
    this.#peerFeatures = hello.features
    this.#peerUnfit = hello.unfit
    this.#peerJoined.clear()
    this.#blank.clear()
    for (const { index, joined, blank } of hello.members) {
      if (joined) this.#peerJoined.add(index)
      if (blank) this.#blank.add(index)
    }
    // In its turn: until then the log may be dropped.
    const up = core.inTurn(() => {
      this.#known = sender
      return core.process({
        kind: 'link_up',
        now: core.now(),
        hello,
        logFrom: this.#writer?.logFrom ?? null,
      })
    })
    up.then(
      () => {
        if (this.#sender !== sender) return
        sender.start(rest)
        sender.heartbeat(core.now())
      },
      (error: unknown) => core.fatal(error),
    )
  }

  /** The replica's last word on a link that it ends. */
  #cannotKeep(sender: Sender, status: Status, sequence: number): void {
    if (this.#sender !== sender) return
    const reason = `the replica cannot keep what it is sent: status ${status}`
    if (this.#news.isNews(reason, this.#livedMs)) {
      this.#core.log.error({ sequence, status }, 'the replica cannot keep what it is sent')
    }
    if (status === STATUS.IO) this.#peerUnfit = 'failed'
    else if (status === STATUS.NO_SPACE) this.#peerUnfit = 'no_space'
  }

  /** Ends the link of `sender`, if that is still the one, and reports it. */
  broken(sender: Sender, reason: string): void {
    if (this.#sender !== sender) return
    const news = this.#news.isNews(reason, this.#livedMs)
    this.#core.log[news ? 'info' : 'debug']({ reason }, 'link lost')
    this.#lose()
    this.#core.post({ kind: 'link_down', now: this.#core.now() })
  }

  /**
   * Ends the link that the session knows of, without reporting it; the replica learns `refuse` first. A link that was let in while
   * effects of an earlier decision were still being carried out is none of theirs.
   */
  drop(refuse: Refuse | null): void {
    if (this.#current !== null) this.hangUp(refuse)
  }

  /** As `drop`, whatever link there is. */
  hangUp(refuse: Refuse | null): void {
    const sender = this.#sender
    if (sender === null) return
    // What is still in the socket lies in memory that is used again as soon as the frames are forgotten. The replica then learns
    // the record when it dials again.
    if (refuse !== null && sender.backlogBytes === 0) {
      sender.message(refuse)
      sender.end()
    }
    this.#lose()
  }

  /** The link, if the session knows of it. */
  get #current(): Sender | null {
    return this.#sender === this.#known ? this.#sender : null
  }

  get #livedMs(): number {
    return this.#core.now() - this.#linkUpMs
  }

  #lose(): void {
    this.#sender?.destroy()
    this.#sender = null
    this.#silence?.end()
    this.#silence = null
    this.#queries?.end()
    this.#queries = null
    this.#writer?.setSender(null)
  }

  get #writer(): Writer | null {
    return this.#parts.writer()
  }

  // -- time -----------------------------------------------------------------------------------------------------------

  heartbeat(): void {
    this.#sender?.heartbeat(this.#core.now())
  }

  checkSilence(now: number): void {
    if (this.#sender === null || this.#silence === null) return
    const silence = this.#core.session.contact.silenceMs(now) ?? Number.POSITIVE_INFINITY
    const silentMs = Math.min(silence, now - this.#linkUpMs)
    if (this.#silence.judge(now, silentMs, false) === 'lost') {
      this.broken(this.#sender, 'the replica is silent')
    }
  }

  /** The replica is alive, and too busy to say anything on the link. */
  get peerBusy(): boolean {
    return this.#silence?.busy ?? false
  }

  // -- messages -------------------------------------------------------------------------------------------------------

  send(message: WritersMessage): void {
    // A barrier: everything that was numbered goes before it, also what a log still has to send.
    if (message.kind === 'rise') this.#writer?.sendAll()
    // `rise` lists members as the codec wants them: an array of its own.
    const sender = this.#current
    sender?.message(
      message.kind === 'rise' ? { ...message, members: [...message.members] } : message,
    )
    if (message.kind === 'copy_begin') this.#writer?.setSender(sender)
    if (message.kind === 'rise') {
      this.#rising = message.members
      this.#writer?.requirePeer()
    }
  }

  /** The retained frames after number `after` go out, and from now on all frames do. */
  resend(after: number): void {
    const sender = this.#current
    this.#writer?.setSender(sender)
    if (sender !== null && this.#writer?.resend(after) === false) {
      this.broken(sender, 'frames that the replica needs are gone')
    }
  }

  /** The copy of `member` is done: the replica makes it durable and remembers. */
  join(member: number): void {
    this.#sender?.message({ kind: 'join', member })
  }

  #fromReplica(message: LinkMessage): void {
    const core = this.#core
    switch (message.kind) {
      case 'refuse':
        if (message.record !== null) {
          core.post({ kind: 'peer_record', now: core.now(), record: message.record })
        }
        return
      case 'joined':
        this.#peerJoined.add(message.member)
        return
      case 'risen':
        for (const index of this.#rising) {
          this.#peerJoined.add(index)
        }
        return core.post({ kind: 'message', now: core.now(), message })
      case 'epoch_accepted':
        return core.post({ kind: 'message', now: core.now(), message })
      case 'catch_up':
      case 'copy_begin':
      case 'rise':
      case 'epoch':
      case 'join':
        if (this.#sender !== null) this.broken(this.#sender, `the replica sent ${message.kind}`)
    }
  }
}
