import type { LinkMessage, Refuse } from '#wire/link/messages.ts'
import type { SessionCore } from './core.ts'
import type { Greeting } from './hello.ts'
import { type DialledLink, dialLink, type LinkSecurity } from './link.ts'
import type { Members } from './members.ts'
import { Receiver } from './receiver.ts'
import type { RunFile } from './run-file.ts'
import type { SessionMessage } from './session.ts'

/* The link as its replica has it: dialled, for ever, until told otherwise.
 *
 *     start ─► dial ─► hello, answer ─► link_up ─► receiver applies frames ─► the link ends ─► wait ─► dial ...
 *                 └─► refused with a record ─► peer_record                              (longer each time without a link)
 *
 * Owns the dialler and the receiver. One link at a time: the next is dialled only when the last is over. Every end of a link that
 * the session did not wish for is reported as `link_down`, once.
 */

const DIAL_DELAY_MIN_MS = 50
const DIAL_DELAY_MAX_MS = 1_000
/** Buffer of a dialled link: several of the largest frames. */
const LINK_BUFFER_BYTES = 4 * 1024 * 1024

/** What only the replica says. */
type ReplicasMessage = Extract<SessionMessage, { kind: 'risen' | 'epoch_accepted' }>

export interface ReplicaEndParts {
  readonly core: SessionCore
  readonly members: Members
  readonly greeting: Greeting
  readonly run: RunFile
  readonly security: LinkSecurity
  /** Longest silence of a live link, ms. */
  readonly peerSilenceMs: number
}

export class ReplicaEnd {
  readonly #parts: ReplicaEndParts
  readonly #core: SessionCore
  #receiver: Receiver | null = null
  #dialling: AbortController | null = null

  constructor(parts: ReplicaEndParts) {
    this.#parts = parts
    this.#core = parts.core
  }

  /** How long the writer has said nothing, ms; null without a link. */
  silenceMs(now: number): number | null {
    return this.#receiver === null ? null : Math.max(0, now - this.#receiver.heardMs)
  }

  send(message: ReplicasMessage): void {
    this.#receiver?.message(message)
  }

  /** Ends the link without reporting it; the writer learns `refuse` first. */
  drop(refuse: Refuse | null): void {
    const receiver = this.#receiver
    if (receiver === null) return
    this.#receiver = null
    if (refuse !== null) receiver.message(refuse)
    receiver.destroy()
  }

  checkSilence(now: number): void {
    const receiver = this.#receiver
    if (receiver === null || now - receiver.heardMs <= this.#parts.peerSilenceMs) return
    this.#receiver = null
    receiver.destroy()
    this.#core.log.info('the writer is silent, link given up')
    this.#core.post({ kind: 'link_down', now })
    // Wakes the dialler, which waits for the end of this link.
    this.stopDialling()
    this.startDialling()
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
  }

  async #dialForEver(signal: AbortSignal): Promise<void> {
    let delayMs = DIAL_DELAY_MIN_MS
    while (!signal.aborted) {
      const address = parseAddress(this.#parts.members.peerLink)
      if (address !== null && this.#core.session.role === 'replica') {
        const linked = await this.#dialOnce(address, signal)
        if (linked) delayMs = DIAL_DELAY_MIN_MS
      }
      if (signal.aborted) return
      await new Promise<void>((resolve) => void this.#core.clock.after(delayMs, resolve))
      delayMs = Math.min(delayMs * 2, DIAL_DELAY_MAX_MS)
    }
  }

  /** True when there was a link. Resolves when it is over. */
  async #dialOnce(address: Address, signal: AbortSignal): Promise<boolean> {
    const core = this.#core
    const link = await this.#connect(address, signal)
    if (link === null) return false
    if ('kind' in link) {
      core.log.debug({ code: link.code, text: link.text }, 'link refused by the peer')
      if (link.record !== null) {
        await core.handle({ kind: 'peer_record', now: core.now(), record: link.record })
      }
      return false
    }
    if (signal.aborted) {
      link.socket.destroy()
      return false
    }
    let over: () => void = () => undefined
    const ended = new Promise<void>((resolve) => (over = resolve))
    const receiver = this.#receive(link, () => over())
    this.#receiver = receiver
    signal.addEventListener('abort', over, { once: true })
    await core.handle({ kind: 'link_up', now: core.now(), hello: link.hello, logFrom: null })
    if (this.#receiver === receiver && core.session.linked) receiver.start()
    else if (this.#receiver === receiver) this.drop(null)
    if (receiver.open) await ended
    signal.removeEventListener('abort', over)
    return true
  }

  async #connect(address: Address, signal: AbortSignal): Promise<DialledLink | Refuse | null> {
    const { members, greeting, security } = this.#parts
    const peerSite = this.#core.session.stored.record.writer
    try {
      const blank = await members.blank()
      const hello = greeting.hello(blank)
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

  #receive({ socket, buffer }: DialledLink, over: () => void): Receiver {
    const { members, run } = this.#parts
    const { session, clock, log } = this.#core
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
      onClosed: (reason) => {
        if (this.#receiver === receiver) {
          log.info({ reason }, 'link lost')
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
      case 'copy_begin':
      case 'rise':
      case 'epoch':
        return core.handle({ kind: 'message', now: core.now(), message })
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
