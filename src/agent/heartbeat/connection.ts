import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import type { PeerCertificate, TLSSocket } from 'node:tls'
import { parseCommonName } from '#base/common-name.ts'
import {
  BEAT_BYTES,
  BEAT_MS_MAX,
  BEAT_VERSION,
  type Beat,
  type BeatGreeting,
  beatKey,
  beatProof,
  decodeBeat,
  decodeBeatPreface,
  decodeGreeting,
  encodeBeat,
  encodeBeatPreface,
  encodeGreeting,
  GREETING_BYTES_MAX,
} from '#wire/link/beat.ts'
import { NONCE_BYTES, PREFACE_BYTES, PROOF_BYTES, proves } from '#wire/link/opening.ts'

/* One connection between two heartbeat threads, from its first byte on.
 *
 *     preface ─► proof (keyed) ─► greeting ─► beats
 *
 * Reads by steps: each waits for a number of bytes and names the next one. A byte that does not fit ends the connection; the
 * dialler begins again. Whoever has not come to the beats after OPENING_MS is hung up on, and so is a peer that falls silent later:
 * the exchange looks at both once per beat.
 */

export const OPENING_MS = 5_000

export interface ConnectionParts {
  readonly socket: Socket
  readonly side: 'dialler' | 'listener'
  readonly self: BeatGreeting
  /** null: TLS says who is there. */
  readonly secret: Uint8Array | null
  /** CLOCK_BOOTTIME, ms. */
  readonly now: () => number
  /** As in a beat. */
  readonly stuckMs: () => number
  readonly onBeat: (connection: Connection, beat: Beat) => void
  /** Once, also when `close` was called. */
  readonly onClosed: (connection: Connection, reason: string) => void
}

interface Step {
  readonly bytes: number
  readonly take: (bytes: Buffer) => Step
}

class Unwanted extends Error {}

export class Connection {
  readonly #parts: ConnectionParts
  readonly #nonce = randomBytes(NONCE_BYTES)
  #step: Step
  #pending: Buffer = Buffer.alloc(0)
  #sent = 0
  #received = 0
  #open = true
  /** When something last arrived, or the connection was made. CLOCK_BOOTTIME, ms. */
  #heardMs: number
  /** Who is there; null before the greeting. */
  peer: BeatGreeting | null = null
  /** Called once, when the peer has said who it is. */
  onGreeted: (peer: BeatGreeting) => void = () => undefined
  readonly #sinceMs: number

  constructor(parts: ConnectionParts) {
    this.#parts = parts
    this.#heardMs = parts.now()
    this.#sinceMs = this.#heardMs
    this.#step = { bytes: PREFACE_BYTES, take: (bytes) => this.#preface(bytes) }
    const { socket, side } = parts
    socket.setNoDelay(true)
    socket.on('data', (chunk: Buffer) => this.#read(chunk))
    socket.on('error', (error) => this.close(error.message))
    socket.on('end', () => this.close('the peer hung up'))
    socket.on('close', () => this.close('the connection was closed'))
    if (side === 'dialler') this.#sendPreface()
  }

  /** Beats flow. */
  get greeted(): boolean {
    return this.peer !== null
  }

  get open(): boolean {
    return this.#open
  }

  /** Ends what has been silent for `silenceMs`, or is too slow to open. */
  checkSilence(silenceMs: number): void {
    const now = this.#parts.now()
    if (this.greeted && now - this.#heardMs > silenceMs) this.close('no beats')
    if (!this.greeted && now - this.#sinceMs > OPENING_MS) this.close('too slow to open')
  }

  beat(stuckMs: number): void {
    if (!this.greeted || !this.#open) return
    const heardMs = this.#received === 0 ? BEAT_MS_MAX : this.#parts.now() - this.#heardMs
    this.#parts.socket.write(encodeBeat({ number: ++this.#sent, stuckMs, heardMs }))
  }

  close(reason: string): void {
    if (!this.#open) return
    this.#open = false
    this.#parts.socket.destroy()
    this.#parts.onClosed(this, reason)
  }

  #read(chunk: Buffer): void {
    if (!this.#open) return
    let bytes = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk])
    try {
      while (this.#open && bytes.length >= this.#step.bytes) {
        const step = this.#step
        this.#step = step.take(bytes.subarray(0, step.bytes))
        bytes = bytes.subarray(step.bytes)
      }
    } catch (error) {
      if (!(error instanceof Unwanted)) throw error
      return this.close(error.message)
    }
    this.#pending = Buffer.from(bytes)
  }

  #sendPreface(): void {
    const keyed = this.#parts.secret !== null
    const own = encodeBeatPreface({ version: BEAT_VERSION, keyed, nonce: this.#nonce })
    this.#parts.socket.write(own)
  }

  #preface(bytes: Buffer): Step {
    const { socket, side, secret } = this.#parts
    const peer = decodeBeatPreface(bytes)
    if (peer === undefined) throw new Unwanted('the peer speaks something else')
    if (side === 'listener') this.#sendPreface()
    if (peer.version !== BEAT_VERSION) {
      throw new Unwanted(`the peer speaks version ${peer.version}, this side ${BEAT_VERSION}`)
    }
    if (peer.keyed !== (secret !== null)) {
      throw new Unwanted('one side wants TLS, the other a keyed connection')
    }
    if (secret === null) return this.#greet()
    const key = beatKey(secret)
    const [dialler, listener] =
      side === 'dialler' ? [this.#nonce, peer.nonce] : [peer.nonce, this.#nonce]
    if (side === 'dialler') socket.write(beatProof(key, 'dialler', dialler, listener))
    return {
      bytes: PROOF_BYTES,
      take: (given) => {
        const other = side === 'dialler' ? 'listener' : 'dialler'
        if (!proves(beatProof(key, other, dialler, listener), given)) {
          throw new Unwanted('the peer does not know the link key')
        }
        if (side === 'listener') socket.write(beatProof(key, 'listener', dialler, listener))
        return this.#greet()
      },
    }
  }

  /** The listener proves first and greets only who has greeted. */
  #greet(): Step {
    const { socket, side, self } = this.#parts
    if (side === 'dialler') socket.write(encodeGreeting(self))
    return {
      bytes: 2,
      take: (head) => {
        const length = head.readUInt16BE(0)
        if (length === 0 || length > GREETING_BYTES_MAX) throw new Unwanted('a wrong greeting')
        return { bytes: length, take: (body) => this.#greeting(body) }
      },
    }
  }

  #greeting(body: Buffer): Step {
    const { socket, side, self, secret } = this.#parts
    const peer = decodeGreeting(body)
    if (peer === undefined) throw new Unwanted('the greeting is not understood')
    if (secret === null && !shows(socket as TLSSocket, peer)) {
      throw new Unwanted(`a certificate that is not of agent ${peer.agent} at site ${peer.site}`)
    }
    if (side === 'listener') socket.write(encodeGreeting(self))
    this.peer = peer
    this.onGreeted(peer)
    this.beat(this.#parts.stuckMs())
    return this.#beats()
  }

  #beats(): Step {
    return {
      bytes: BEAT_BYTES,
      take: (bytes) => {
        const beat = decodeBeat(bytes)
        if (beat === undefined || beat.number !== this.#received + 1) {
          throw new Unwanted('something that is no beat')
        }
        this.#received = beat.number
        this.#heardMs = this.#parts.now()
        this.#parts.onBeat(this, beat)
        // The peer learns at once that it is heard; from then on the timer is soon enough.
        if (beat.number === 1) this.beat(this.#parts.stuckMs())
        return this.#beats()
      },
    }
  }
}

/** An agent may speak for itself only. */
function shows(socket: TLSSocket, { site, agent }: BeatGreeting): boolean {
  const certificate: Partial<PeerCertificate> = socket.getPeerCertificate()
  const name = certificate.subject?.CN
  const identity = parseCommonName((Array.isArray(name) ? name[0] : name) ?? '')
  return identity?.kind === 'agent' && identity.site === site && identity.agent === agent
}
