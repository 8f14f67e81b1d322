import { type Changes, CHANGES_REGION_BYTES, decodeChanges } from '#wire/link/changes.ts'
import { STATUS, type Status } from '#wire/link/frame.ts'
import type { Sender } from './writer/sender.ts'

/** Why a question got no answer: the link is gone, or the replica could not read. The one who asked begins anew. */
export class QueryFailed extends Error {
  override readonly name = 'QueryFailed'
  /** What the replica answered; null: nothing, or something that is no answer. */
  readonly status: Status | null

  constructor(text: string, status: Status | null = null) {
    super(text)
    this.status = status
  }
}

interface Waiting {
  readonly resolve: (payload: Buffer) => void
  readonly reject: (error: Error) => void
}

/** Questions of the writer to the replica over one link. */
export class PeerQueries {
  readonly #sender: Sender
  readonly #waiting = new Map<number, Waiting>()
  #id = 0
  #ended = false

  constructor(sender: Sender) {
    this.#sender = sender
  }

  /** Checksums of the blocks of the range, at most a frame's length of it. `atOnce`: as they are at this very place in the stream,
   *  one block at most. */
  checksums(member: number, offset: number, length: number, atOnce = false): Promise<Buffer> {
    return this.#ask((id) => this.#sender.checksum(member, id, offset, length, atOnce))
  }

  block(member: number, offset: number, length: number): Promise<Buffer> {
    return this.#ask((id) => this.#sender.fetch(member, id, offset, length))
  }

  /** What the replica has changed itself in `regions` regions from region `first` on; null: everything may differ. */
  async changes(member: number, first: number, regions: number): Promise<Changes | null> {
    const offset = first * CHANGES_REGION_BYTES
    const answer = await this.#ask((id) => this.#sender.changes(member, id, offset, regions))
    return decodeChanges(answer, regions)
  }

  #ask(send: (id: number) => void): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(new QueryFailed('the link is down'))
      const id = ++this.#id
      this.#waiting.set(id, { resolve, reject })
      send(id)
    })
  }

  answered(id: number, status: Status, payload: Buffer): void {
    const waiting = this.#waiting.get(id)
    if (waiting === undefined) return
    this.#waiting.delete(id)
    // The payload lies in memory that the socket's next chunk may not outlive.
    if (status === STATUS.OK) waiting.resolve(Buffer.from(payload))
    else waiting.reject(new QueryFailed(`the replica answered with status ${status}`, status))
  }

  end(): void {
    this.#ended = true
    for (const { reject } of this.#waiting.values()) reject(new QueryFailed('the link is down'))
    this.#waiting.clear()
  }
}
