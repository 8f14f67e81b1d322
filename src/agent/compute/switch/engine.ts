import { rmSync } from 'node:fs'
import {
  Inlet,
  isReady,
  Outlet,
  POLL_ENTRY_BYTES,
  POLL_IN,
  POLL_OUT,
  poll,
  setPollEntry,
} from './datagrams.ts'
import { FRAME_BYTES_MAX } from './ethernet.ts'
import { forward } from './forward.ts'
import type { DropReason, Verdict } from './verdict.ts'
import { Bucket, type Pace } from './pace.ts'
import { type Asked, Questions, usesItsAddress, whoHasItsAddress } from './questions.ts'
import { type Nic, Table } from './table.ts'
import type { Question } from './tcp-client.ts'

/* The switch at work: sockets, queues and turns.
 *
 *     guest's NIC ──► inlet (a path only this NIC's process was told) ──► forward(table, nic, frame) ──► queue ──► outlet ──► guest's NIC
 *
 * A NIC is known by the socket that its frames arrive at, never by what is in them. One turn waits until something is ready, then takes
 * some frames of each NIC that has any, so that a NIC with many makes the others wait for one share and no longer. What a receiver cannot
 * take yet waits in a short queue; what does not fit is dropped, and counted at the sender.
 */

/** Frames of one NIC in one turn. */
const SHARE = 32
/** Frames that wait for one receiver: 384 KiB. As in most switches, longer queues only make latency. */
const QUEUE_FRAMES_MAX = 256

export interface Paths {
  /** Where the guest's NIC sends to: the switch is bound to it. */
  readonly inlet: string
  /** Where the guest's NIC is bound. */
  readonly outlet: string
}

export interface NicCounters {
  /** As it came from the guest. */
  frames: number
  bytes: number
  bridged: number
  flooded: number
  routed: number
  answered: number
  /** Frames given to the guest. */
  delivered: number
  deliveredBytes: number
  /** The guest has sent something from its address since it was plugged. */
  addressed: boolean
  /** By reason; only reasons that occurred. */
  dropped: Partial<Record<DropReason, number>>
}

interface Place {
  nic: Nic
  readonly paths: Paths
  readonly inlet: Inlet
  readonly outlet: Outlet
  readonly bucket: Bucket
  readonly queue: Buffer[]
  readonly counters: NicCounters
  readonly questions: Questions
}

export class Engine {
  readonly #pace: Pace
  readonly #now: () => number
  readonly #places = new Map<string, Place>()
  /** In the order of poll entries: two for each place. */
  #order: Place[] = []
  #entries: Buffer = Buffer.alloc(0)
  #table = new Table([])
  #turn = 0
  // One byte more than the largest frame, so that a larger one is seen as such.
  readonly #frame = Buffer.alloc(FRAME_BYTES_MAX + 1)

  /** `now`: CLOCK_BOOTTIME, ms. */
  constructor(pace: Pace, now: () => number) {
    this.#pace = pace
    this.#now = now
  }

  get idle(): boolean {
    return this.#places.size === 0
  }

  /** Throws what the system says when the socket cannot be made. Plugged already: follows the definition. */
  plug(nic: Nic, paths: Paths): void {
    const place = this.#places.get(nic.key)
    if (
      place !== undefined &&
      place.paths.inlet === paths.inlet &&
      place.paths.outlet === paths.outlet
    ) {
      place.nic = nic
    } else {
      if (place !== undefined) this.unplug(nic.key)
      // Left by a switch that was killed. A guest that runs sends by path, so it finds the new socket.
      rmSync(paths.inlet, { force: true })
      this.#places.set(nic.key, {
        nic,
        paths,
        inlet: new Inlet(paths.inlet),
        outlet: new Outlet(paths.outlet),
        bucket: new Bucket(this.#pace, this.#now()),
        queue: [],
        counters: noCounters(),
        questions: new Questions(),
      })
    }
    this.#rebuild()
  }

  /** Unknown: no change. Nobody may use the place any more: both its sockets are removed. */
  unplug(key: string): void {
    const place = this.#places.get(key)
    if (place === undefined) return
    this.#places.delete(key)
    place.questions.end()
    place.inlet.close()
    place.outlet.close()
    rmSync(place.paths.inlet, { force: true })
    rmSync(place.paths.outlet, { force: true })
    this.#rebuild()
  }

  /** Asks the guest behind a NIC; `settle` is called once, in a later turn or at once. Unknown NIC: unplugged. */
  ask(key: string, question: Question, settle: (asked: Asked) => void): void {
    const place = this.#places.get(key)
    if (place === undefined) return settle({ kind: 'unplugged', answer: Buffer.alloc(0) })
    this.#send(place, place.questions.ask(place.nic, question, this.#now(), settle))
  }

  /** Lets the guest show that it has its address; `counters` tells. */
  prod(key: string): void {
    const place = this.#places.get(key)
    if (place !== undefined) this.#send(place, [whoHasItsAddress(place.nic)])
  }

  counters(): ReadonlyMap<string, NicCounters> {
    return new Map([...this.#places].map(([key, { counters }]) => [key, counters]))
  }

  /** Waits at most `waitMs` for work and does one share of it. */
  turn(waitMs: number): void {
    const now = this.#now()
    let limitMs = waitMs
    for (const [index, place] of this.#order.entries()) {
      const pauseMs = place.bucket.waitMs(now)
      if (pauseMs > 0) limitMs = Math.min(limitMs, pauseMs)
      setPollEntry(this.#entries, 2 * index, pauseMs > 0 ? -1 : place.inlet.fd, POLL_IN)
      const waiting = place.queue.length > 0
      setPollEntry(this.#entries, 2 * index + 1, waiting ? place.outlet.fd : -1, POLL_OUT)
      if (place.questions.idle) continue
      this.#send(place, place.questions.tick(place.nic, now))
      limitMs = Math.min(limitMs, Math.max(0, Math.ceil(place.questions.nextMs() - now)))
    }
    if (poll(this.#entries, 2 * this.#order.length, limitMs) === 0) return
    const order = this.#order
    for (const [index, place] of order.entries()) {
      if (isReady(this.#entries, 2 * index + 1)) this.#empty(place)
    }
    // Another first one each time: nobody is always served before the others.
    this.#turn = (this.#turn + 1) % Math.max(1, order.length)
    for (let count = 0; count < order.length; count++) {
      const index = (this.#turn + count) % order.length
      const place = order[index]
      if (place !== undefined && isReady(this.#entries, 2 * index)) this.#serve(place)
    }
  }

  close(): void {
    for (const place of this.#places.values()) {
      place.questions.end()
      place.inlet.close()
      place.outlet.close()
    }
    this.#places.clear()
    this.#rebuild()
  }

  #rebuild(): void {
    this.#order = [...this.#places.values()]
    this.#entries = Buffer.alloc(2 * this.#order.length * POLL_ENTRY_BYTES)
    this.#table = new Table(this.#order.map(({ nic }) => nic))
  }

  #serve(place: Place): void {
    const { inlet, bucket, counters, nic } = place
    for (let count = 0; count < SHARE; count++) {
      const length = inlet.receive(this.#frame)
      if (length < 0) return
      counters.frames++
      counters.bytes += length
      const frame = this.#frame.subarray(0, Math.min(length, this.#frame.length))
      const verdict = forward(this.#table, nic, frame)
      counters.addressed ||= usesItsAddress(nic, frame)
      this.#carryOut(place, verdict)
      bucket.take('to' in verdict ? Math.max(1, verdict.to.length) : 1)
    }
  }

  #carryOut(place: Place, verdict: Verdict): void {
    const { counters } = place
    if (verdict.kind === 'dropped') return countDrop(counters, verdict.reason)
    if (verdict.kind === 'to_gateway') {
      const frames = place.questions.receive(place.nic, verdict.ip, this.#now())
      if (frames === undefined) return countDrop(counters, 'gateway')
      counters.answered++
      return this.#send(place, frames)
    }
    counters[verdict.kind]++
    for (const { key } of verdict.to) {
      const receiver = this.#places.get(key)
      if (receiver === undefined || !this.#deliver(receiver, verdict.frame)) {
        countDrop(counters, 'receiver')
      }
    }
  }

  /** Of the switch's own; what the guest cannot take is lost, and asked again. */
  #send(place: Place, frames: readonly Buffer[]): void {
    for (const frame of frames) this.#deliver(place, frame)
  }

  /** False: dropped. */
  #deliver(receiver: Place, frame: Buffer): boolean {
    const { queue, outlet } = receiver
    if (queue.length === 0) {
      const sent = outlet.send(frame)
      if (sent === 'away') return false
      if (sent === 'sent') {
        countDelivery(receiver, frame)
        return true
      }
    }
    if (queue.length >= QUEUE_FRAMES_MAX) return false
    // The frame's memory is used again for the next one.
    queue.push(Buffer.from(frame))
    return true
  }

  #empty(receiver: Place): void {
    const { queue, outlet } = receiver
    while (queue.length > 0) {
      const frame = queue[0] as Buffer
      const sent = outlet.send(frame)
      if (sent === 'full') return
      if (sent === 'away') {
        queue.length = 0
        return
      }
      countDelivery(receiver, frame)
      queue.shift()
    }
  }
}

function countDelivery({ counters }: Place, frame: Buffer): void {
  counters.delivered++
  counters.deliveredBytes += frame.length
}

function countDrop({ dropped }: NicCounters, reason: DropReason): void {
  dropped[reason] = (dropped[reason] ?? 0) + 1
}

const noCounters = (): NicCounters => ({
  frames: 0,
  bytes: 0,
  bridged: 0,
  flooded: 0,
  routed: 0,
  answered: 0,
  delivered: 0,
  deliveredBytes: 0,
  addressed: false,
  dropped: {},
})
