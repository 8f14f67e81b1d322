import {
  CHANGES_REGION_BYTES,
  CHANGES_REGIONS_MAX,
  BLOCKS_PER_REGION,
  encodeChanges,
} from '#wire/link/changes.ts'
import { STATUS, type Status } from '#wire/link/frame.ts'
import type { Hello, LinkMessage, Refuse } from '#wire/link/messages.ts'
import type { SessionCore } from '../core.ts'
import type { Greeting } from '../session/hello.ts'
import { type DialledLink, dialLink, type LinkSecurity } from '../link.ts'
import type { LinkSilence } from '../session/link-silence.ts'
import type { Members } from '../members.ts'
import { Receiver } from './receiver.ts'
import type { RunFile } from '../run-file.ts'
import type { SessionMessage } from '../session/session.ts'
import { type DialOutcome, DialPace, LinkNews } from '../session/short-links.ts'

/* The link as its replica has it: dialled, for ever, until told otherwise.
 *
 *     start ─► dial ─► hello, answer ─► link_up ─► receiver applies frames ─► the link ends ─► wait ─► dial ...
 *                 └─► refused with a record ─► peer_record                       (longer each time without a link that stands)
 *
 * Owns the dialler and the receiver. One link at a time: the next is dialled only when the last is over. Every end of a link that
 * the session did not wish for is reported as `link_down`, once.
 */

/** Buffer of a dialled link: several of the largest frames. */
const LINK_BUFFER_BYTES = 8 * 1024 * 1024

/** After a write that did not fit nothing is tried for this long, and not before there is this much room: or two sites would begin a
 *  resync every second that cannot end. */
const NO_SPACE_RETRY_MS = 5_000
const NO_SPACE_BYTES = 64 * 1024 * 1024

const BITS_PER_BYTE = 8

/** What only the replica says. */
type ReplicasMessage = Extract<SessionMessage, { kind: 'risen' | 'epoch_accepted' }>

export interface ReplicaEndParts {
  readonly core: SessionCore
  readonly members: Members
  readonly greeting: Greeting
  readonly run: RunFile
  readonly security: LinkSecurity
  /** Judges the silence of a link to process `run`, which takes beats at `dial`. */
  readonly silenceOf: (run: string, dial: Address | null) => LinkSilence
  /** Room on the file system of the volumes, bytes. */
  readonly freeBytes: () => Promise<number>
  /** No kept copy is being taken, or it has been reported. */
  readonly keptSettled: () => Promise<void>
}

export class ReplicaEnd {
  readonly #parts: ReplicaEndParts
  readonly #core: SessionCore
  #receiver: Receiver | null = null
  #silence: LinkSilence | null = null
  /** The link whose `link_up` the session has had, or is having. */
  #known: Receiver | null = null
  #dialling: AbortController | null = null
  /** When a write did not fit, CLOCK_BOOTTIME, ms; null: there was room the last time. */
  #fullMs: number | null = null
  #unfit: Hello['unfit'] = null
  readonly #news = new LinkNews()
  /** Wakes the dialler, which waits for the end of the link. */
  #over: () => void = () => undefined
  /** When to look for room again, ms. */
  #lookMs = 0

  constructor(parts: ReplicaEndParts) {
    this.#parts = parts
    this.#core = parts.core
  }

  /** How long the writer has said nothing, ms; null without a link. */
  silenceMs(now: number): number | null {
    return this.#receiver === null ? null : Math.max(0, now - this.#receiver.heardMs)
  }

  /** The link, if the session knows of it. */
  get #current(): Receiver | null {
    return this.#receiver === this.#known ? this.#receiver : null
  }

  /** Why this side can hold no copy now, as it says when it dials; null: it can. */
  get unfit(): Hello['unfit'] {
    return this.#unfit
  }

  send(message: ReplicasMessage): void {
    this.#current?.message(message)
  }

  /** Ends the link that the session knows of, without reporting it; the writer learns `refuse` first. See writer-end.ts. */
  drop(refuse: Refuse | null): void {
    if (this.#current !== null) this.hangUp(refuse)
  }

  /** As `drop`, whatever link there is. */
  hangUp(refuse: Refuse | null): void {
    const receiver = this.#receiver
    if (receiver === null) return
    this.#receiver = null
    if (refuse !== null) receiver.message(refuse)
    receiver.destroy()
    // Dialled again unless somebody has stopped that.
    this.#over()
  }

  checkSilence(now: number): void {
    const receiver = this.#receiver
    if (receiver === null || this.#silence === null) return
    if (this.#unfit === 'no_space' && now >= this.#lookMs) {
      this.#lookMs = now + NO_SPACE_RETRY_MS
      this.#lookForRoom(receiver).catch((error: unknown) => this.#core.fatal(error))
    }
    const silentMs = now - receiver.heardMs
    if (this.#silence.judge(now, silentMs, receiver.blocked) !== 'lost') return
    this.#core.log.info('the writer is silent, link given up')
    this.#redial(receiver)
  }

  #redial(receiver: Receiver): void {
    this.#receiver = null
    receiver.destroy()
    this.#core.post({ kind: 'link_down', now: this.#core.now() })
    // Wakes the dialler, which waits for the end of this link.
    this.stopDialling()
    this.startDialling()
  }

  /** A link that was opened without room says so until it ends. So it ends when there is room again. */
  async #lookForRoom(receiver: Receiver): Promise<void> {
    if ((await this.#whyUnfit()) !== null || this.#receiver !== receiver) return
    this.#core.log.info('there is room again, the link is opened anew')
    this.#redial(receiver)
  }

  /** The stream of the writer waits for a disk of this side. */
  get blocked(): boolean {
    return this.#receiver?.blocked ?? false
  }

  /** The writer is alive, and too busy to say anything on the link. */
  get peerBusy(): boolean {
    return this.#receiver !== null && (this.#silence?.busy ?? false)
  }

  // -- dialling -------------------------------------------------------------------------------------------------------

  startDialling(): void {
    if (this.#dialling !== null || this.#core.closing) return
    const control = new AbortController()
    this.#dialling = control
    this.#dialForEver(control.signal).catch((error: unknown) => this.#core.fatal(error))
  }

  /** Does not end a link that there is. */
  stopDialling(): void {
    this.#dialling?.abort()
    this.#dialling = null
    this.#silence?.end()
  }

  async #dialForEver(signal: AbortSignal): Promise<void> {
    const pace = new DialPace()
    while (!signal.aborted) {
      const address = parseAddress(this.#parts.members.peerLink)
      const dials = address !== null && this.#core.session.role === 'replica'
      const outcome = dials ? await this.#dialOnce(address, signal) : 'unreached'
      if (signal.aborted) return
      await new Promise<void>((wake) => void this.#core.clock.after(pace.after(outcome), wake))
    }
  }

  /** Resolves when the link, if there was one, is over. */
  async #dialOnce(address: Address, signal: AbortSignal): Promise<DialOutcome> {
    const core = this.#core
    const link = await this.#connect(address, signal)
    if (link === null) return 'unreached'
    if ('kind' in link) {
      core.log.debug({ code: link.code, text: link.text }, 'link refused by the peer')
      if (link.record !== null) {
        await core.handle({ kind: 'peer_record', now: core.now(), record: link.record })
      }
      return 'refused'
    }
    if (signal.aborted) {
      link.socket.destroy()
      return 'unreached'
    }
    const upMs = core.now()
    let over: () => void = () => undefined
    const ended = new Promise<void>((resolve) => (over = resolve))
    this.#over = over
    const receiver = this.#receive(link, over)
    this.#receiver = receiver
    this.#silence = this.#silenceOf(address, link.hello)
    signal.addEventListener('abort', over, { once: true })
    await core.inTurn(() => {
      this.#known = receiver
      return core.process({ kind: 'link_up', now: core.now(), hello: link.hello, logFrom: null })
    })
    if (this.#receiver === receiver && core.session.linked) receiver.start()
    else if (this.#receiver === receiver) this.hangUp(null)
    if (receiver.open) await ended
    signal.removeEventListener('abort', over)
    return core.now() - upMs
  }

  #silenceOf({ host }: Address, { runId, beats }: Hello): LinkSilence {
    this.#silence?.end()
    return this.#parts.silenceOf(runId, beats === undefined ? null : { host, port: beats })
  }

  async #connect(address: Address, signal: AbortSignal): Promise<DialledLink | Refuse | null> {
    const { members, greeting, security } = this.#parts
    const peerSite = this.#core.session.stored.record.writer
    try {
      const blank = await members.blank()
      const own = greeting.hello(blank)
      this.#unfit = (await this.#whyUnfit()) ?? own.unfit
      const hello = { ...own, unfit: this.#unfit }
      return await dialLink({
        ...address,
        security,
        hello,
        peerSite,
        bufferBytes: LINK_BUFFER_BYTES,
        signal,
      })
    } catch (error) {
      this.#core.log.debug({ err: error, peer: members.peerLink }, 'no link')
      return null
    }
  }

  async #whyUnfit(): Promise<Hello['unfit']> {
    const { members, freeBytes } = this.#parts
    for (const { volume } of members.values()) if (volume.failed !== undefined) return 'failed'
    if (this.#fullMs === null) return null
    const waited = this.#core.now() - this.#fullMs >= NO_SPACE_RETRY_MS
    if (!waited || (await freeBytes()) < NO_SPACE_BYTES) return 'no_space'
    this.#fullMs = null
    return null
  }

  #refused(status: Status): void {
    if (status === STATUS.NO_SPACE) this.#fullMs = this.#core.now()
  }

  /** What this side has changed since the last rise: the answer to CHANGES. */
  #changes(index: number, offset: number, regions: number): Buffer {
    const member = this.#parts.members.get(index)
    const first = offset / CHANGES_REGION_BYTES
    if (member === undefined || !Number.isInteger(first) || regions > CHANGES_REGIONS_MAX) {
      return encodeChanges(null)
    }
    const { intent, changes } = member
    const trust = changes.trust(this.#core.session.stored.baseEpoch)
    if (trust === 'damaged') return encodeChanges(null)
    const compare = new Uint8Array(Math.ceil(regions / 8))
    for (let region = 0; region < regions; region++) {
      if (first + region >= intent.regions || !intent.has(first + region)) continue
      compare[region >> 3] = (compare[region >> 3] as number) | (1 << (region & 7))
    }
    const blocks = regions * BLOCKS_PER_REGION
    // What a map of another boot names may be long past, and is not all. The intent regions hold all of it.
    const send =
      trust === 'exact'
        ? changes.slice(first * BLOCKS_PER_REGION, blocks)
        : Buffer.alloc(blocks / BITS_PER_BYTE)
    return encodeChanges({ compare, send })
  }

  #receive({ socket, buffer }: DialledLink, over: () => void): Receiver {
    const { members, run } = this.#parts
    const { session, clock, log } = this.#core
    const upMs = clock.bootMs()
    const receiver: Receiver = new Receiver({
      socket,
      buffer,
      gate: session.gate,
      silence: session.silence,
      run,
      clock,
      volume: (index) =>
        members.get(index)?.volume ?? (members.wasRemoved(index) ? 'removed' : undefined),
      onMessage: (message) => this.#fromWriter(message),
      applies: () => session.applies,
      copying: () => session.phase === 'receiving',
      changes: (index, offset, regions) => this.#changes(index, offset, regions),
      onRefused: (status, reason) => {
        this.#refused(status)
        if (this.#news.isNews(reason, clock.bootMs() - upMs)) {
          log.error({ status, reason }, 'writes of the other site cannot be kept here')
        }
      },
      onClosed: (reason) => {
        if (this.#receiver === receiver) {
          const news = this.#news.isNews(reason, clock.bootMs() - upMs)
          log[news ? 'info' : 'debug']({ reason }, 'link lost')
          this.#receiver = null
          this.#core.post({ kind: 'link_down', now: this.#core.now() })
        }
        over()
      },
    })
    return receiver
  }

  async #fromWriter(message: LinkMessage): Promise<void> {
    const core = this.#core
    switch (message.kind) {
      case 'refuse':
        if (message.record !== null) {
          await core.handle({ kind: 'peer_record', now: core.now(), record: message.record })
        }
        return
      case 'join':
        return core.inTurn(() => this.#join(message.member))
      case 'catch_up':
      case 'copy_begin':
      case 'rise':
      case 'epoch':
        await core.handle({ kind: 'message', now: core.now(), message })
        // Nothing that comes behind is looked at before a copy is kept and the session has decided on it.
        return this.#parts.keptSettled()
      case 'risen':
      case 'epoch_accepted':
      case 'joined':
        throw new Error(`the writer sent ${message.kind}`)
    }
  }

  /** The first copy of this member is here: durable, and recorded, before the writer hears of it. */
  async #join(index: number): Promise<void> {
    const { members } = this.#parts
    const member = members.get(index)
    if (member === undefined) return
    await member.volume.flush()
    await members.markJoined([index])
    this.#receiver?.message({ kind: 'joined', member: index })
  }
}

interface Address {
  readonly host: string
  readonly port: number
}

/** `host:port`, with brackets around an IPv6 address. */
function parseAddress(text: string): Address | null {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  return host === undefined ? null : { host, port: Number(match?.[3]) }
}
