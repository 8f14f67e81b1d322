import assert from 'node:assert/strict'
import { FRAME_BYTES, STATUS, type Status } from '#wire/link/frame.ts'
import type { LinkMessage } from '#wire/link/messages.ts'
import { Io, type IoError, type IoKind } from '#agent/nbd/device.ts'
import { SlabPool } from '#agent/nbd/slab.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import { Copy } from './copy/copy.ts'
import {
  type Broken,
  deliver,
  FrameWatch,
  guarded,
  MemoryChanges,
  MemoryIntent,
  MemoryVolume,
  nextTurn,
  SECTOR_BYTES,
  stampsOf,
  TestClock,
  TestSocket,
} from './data-path.test-kit.ts'
import { DialledBuffer } from './link.ts'
import type { OpenMember } from './members.ts'
import { PeerQueries } from './peer-queries.ts'
import { Receiver } from './replica/receiver.ts'
import type { RunFile } from './run-file.ts'
import { AckGate, type GateMode } from './session/ack-gate.ts'
import { Contact, Silence } from './session/contact.ts'
import { Lease } from './session/lease.ts'
import { Sender } from './writer/sender.ts'
import { Writer, type WriterMember } from './writer/writer.ts'

/* The whole data path of a session in one process, without disks, sockets and time: writer, sender, receiver and copy are the real ones, and the test
 * does what the session would decide. Clients write at random while the link is lost and comes back at random moments; what the path promises is looked
 * at whenever something is written, sent or answered, and at the end both sides must be equal. */

export const KIB = 1024
/** Two intent regions and a bit, which ends in the middle of a block. */
export const SIZES = [4 * KIB * KIB + 200 * KIB + SECTOR_BYTES, 130 * KIB]
const FOR_EVER_MS = 1e9

/** Client memory: what a frame that leaves too late finds there is somebody else's request. */
const SLABS = new SlabPool({ slabBytes: 256 * KIB, idleCountMax: 64 })
/** The largest frame of these tests, and what a socket may deliver beyond. */
const LINK_BUFFER_BYTES = 1280 * KIB

interface Side {
  readonly volumes: readonly MemoryVolume[]
  readonly gate: AckGate
  readonly lease: Lease
  /** What the run file holds. */
  noted: number
}

interface Asked {
  readonly kind: IoKind
  readonly member: number
  readonly stamp: number
  readonly fua: boolean
  /** Of a flush: what had been answered before it came, by both. */
  readonly before: readonly number[]
  readonly io: Io
}

type State = 'sync' | 'solo' | 'resync'
type Phase = 'unlinked' | 'following' | 'catching_up' | 'copying' | 'rising'

export class World {
  readonly broken: Broken = []
  readonly clock = new TestClock()
  readonly a: Side = this.#side()
  readonly b: Side = this.#side()
  readonly intents = SIZES.map(() => new MemoryIntent())
  readonly changes = SIZES.map(() => new MemoryChanges())
  readonly writer: Writer
  readonly members: readonly WriterMember[]
  readonly #random: () => number
  readonly #weight: number
  state: State = 'sync'
  phase: Phase = 'unlinked'
  #down = new TestSocket()
  #up = new TestSocket()
  #buffer = new DialledBuffer(LINK_BUFFER_BYTES)
  #receiver: Receiver | null = null
  #copy: Copy | null = null
  #queries: PeerQueries | null = null
  #stamp = 0
  #risingTo = 0
  /** What is left to copy is named by `todo`. */
  #planned = false
  readonly open = new Set<Asked>()
  /** Stamps of writes that were answered while both sides had to have them, by member. */
  #answered: number[][] = SIZES.map(() => [])
  answers = 0
  rises = 0
  logsDropped = 0

  /** `logBytes`: of the frame log. `weight`: a link that takes little at a time. */
  constructor(random: () => number, logBytes = 512 * KIB, weight = 1) {
    this.#random = random
    this.#weight = weight
    const { a } = this
    this.writer = new Writer({
      gate: a.gate,
      clock: this.clock,
      run: { store: (n: number) => (a.noted = n) } as unknown as RunFile,
      holdBytes: KIB * KIB,
      frameLogBytes: logBytes,
      onLocalError: (_, error) => void this.broken.push(`a local error: ${String(error)}`),
      onLogDropped: () => void this.logsDropped++,
    })
    this.members = SIZES.map((_, index) => {
      const volume = a.volumes[index] as MemoryVolume
      const intent = this.intents[index] as MemoryIntent
      const changes = this.changes[index] as MemoryChanges
      volume.onChange = (offset, length) => this.#localChange(index, offset, length)
      return this.writer.addMember({
        index: index + 1,
        volume,
        intent,
        changes,
      } as unknown as OpenMember)
    })
    for (const { volumes } of [this.a, this.b]) for (const one of volumes) guarded(one, this.broken)
    a.gate.mode = 'both'
    this.writer.setInput(true)
    this.connect()
  }

  #side(): Side {
    const lease = new Lease()
    const contact = new Contact(FOR_EVER_MS)
    contact.heard(0)
    const gate = new AckGate(lease, contact)
    return { volumes: SIZES.map((size) => new MemoryVolume(size)), gate, lease, noted: 0 }
  }

  // -- clients --------------------------------------------------------------------------------------------------------

  write(member: number, offset: number, parts: readonly number[], fua: boolean): void {
    const batch: Io[] = []
    const slab = SLABS.take()
    let at = 0
    let place = offset
    for (const [i, length] of parts.entries()) {
      const stamp = ++this.#stamp
      // Not always back to back in memory.
      at += FRAME_BYTES + (this.#random() < 0.3 ? 4 : 0)
      const pattern = Buffer.alloc(4)
      pattern.writeUInt32BE(stamp)
      slab.bytes.fill(pattern, at, at + length)
      const io = this.#io('write', member, stamp, fua, () => slab.release())
      Object.assign(io, { offset: place, length, slab, at, more: i < parts.length - 1 })
      slab.retain()
      batch.push(io)
      at += length
      place += length
    }
    slab.release()
    this.#submit(member, batch)
  }

  zero(member: number, offset: number, length: number, fua: boolean): void {
    const io = this.#io('zero', member, 0, fua)
    Object.assign(io, { offset, length, mayUnmap: true })
    this.#submit(member, [io])
  }

  flush(member: number): void {
    this.#submit(member, [this.#io('flush', member, 0, false)])
  }

  read(member: number, offset: number, length: number): void {
    const slab = SLABS.take()
    const io = this.#io('read', member, 0, false, () => slab.release())
    Object.assign(io, { offset, length, slab, at: FRAME_BYTES })
    this.#submit(member, [io])
  }

  #submit(member: number, batch: Io[]): void {
    for (const io of batch) io.arm()
    ;(this.members[member] as WriterMember).device.submit(batch, batch.length)
  }

  #io(
    kind: IoKind,
    member: number,
    stamp: number,
    fua: boolean,
    release: () => void = () => undefined,
  ): Io {
    const io = new Io({
      done: (_, error) => {
        this.#judge(asked, error)
        this.open.delete(asked)
        release()
      },
    })
    const before = kind === 'flush' ? [...(this.#answered[member] as number[])] : []
    const asked: Asked = { kind, member, stamp, fua, before, io }
    Object.assign(io, { kind, fua })
    this.open.add(asked)
    return io
  }

  /** What an answer promises. */
  #judge({ kind, member, stamp, fua, before, io }: Asked, error: IoError): void {
    this.answers++
    const here = this.a.volumes[member] as MemoryVolume
    const there = this.b.volumes[member] as MemoryVolume
    const both = this.a.gate.needsReplica
    const say = (text: string) => void this.broken.push(`${kind} ${stamp}: ${text}`)
    if (error !== 0) return say(`error ${error}`)
    if (kind === 'write') {
      if (!here.saw(stamp)) say('answered before it was carried out here')
      if (both && !there.saw(stamp)) say('answered before the replica had it')
      if (fua && !here.isDurable(stamp)) say('not durable here')
      if (fua && both && !there.isDurable(stamp)) say('not durable at the replica')
      if (both) (this.#answered[member] as number[]).push(stamp)
    }
    if (kind === 'flush') {
      for (const one of before) {
        if (!here.isDurable(one)) say(`write ${one} is not durable here`)
        if (both && !there.isDurable(one)) say(`write ${one} is not durable at the replica`)
      }
    }
    if (kind !== 'read' || !both || io.slab === undefined) return
    for (const one of stampsOf(io.slab.bytes.subarray(io.at, io.at + io.length))) {
      if (!there.saw(one)) say(`shows write ${one}, which the replica does not have`)
    }
  }

  #localChange(index: number, offset: number, length: number): void {
    const intent = this.intents[index] as MemoryIntent
    if (!intent.touch(offset, length)) this.broken.push('changed before its intent was durable')
    const { mode } = this.a.gate
    const alone = this.phase === 'unlinked' || mode === 'alone' || mode === 'rising'
    if (alone && !(this.changes[index] as MemoryChanges).covers(offset, length)) {
      this.broken.push(`changed and not marked: ${mode}, ${this.phase}`)
    }
  }

  // -- link -----------------------------------------------------------------------------------------------------------

  /** Bytes of the link arrive at both ends. */
  pump(bytes = Number.POSITIVE_INFINITY): void {
    deliver(this.#down, this.#buffer, bytes)
    for (const answer of this.#up.queue.splice(0)) this.#down.emit('data', answer)
    this.#followUp()
  }

  get quiet(): boolean {
    return this.#down.queue.length === 0 && this.#up.queue.length === 0
  }

  connect(): void {
    const { a, b, writer } = this
    this.#down = new TestSocket()
    this.#down.weight = this.#weight
    this.#up = new TestSocket()
    this.#buffer = new DialledBuffer(LINK_BUFFER_BYTES)
    const watch = new FrameWatch(this.broken, () => a.noted)
    this.#down.onWrite = (bytes) => watch.look(bytes)
    // The process of the replica may be another one: it knows what it noted.
    b.gate.applied(b.noted)
    const down = this.#down
    const sender: Sender = new Sender(down.asSocket(), {
      acknowledged: (sequence, status) => {
        assert.equal(status, STATUS.OK)
        writer.acknowledged(sequence)
        this.#copy?.acknowledged()
      },
      flushed: (id: number, status: Status) => writer.flushed(id, status),
      message: (message) => this.#fromReplica(message),
      echoed: () => undefined,
      checksums: (id, status, payload) => queries.answered(id, status, payload),
      block: (id, status, payload) => queries.answered(id, status, payload),
      changes: (id, status, payload) => queries.answered(id, status, payload),
      closed: (reason) => void this.broken.push(`the writer gave the link up: ${reason}`),
    })
    const queries: PeerQueries = new PeerQueries(sender)
    this.#queries = queries
    this.#receiver = this.#receive()
    sender.start(Buffer.alloc(0))
    if (this.state === 'sync') {
      this.phase = 'following'
      this.#resend(sender)
    } else if (this.state === 'solo') this.#catchUp(sender)
    else this.#beginCopy(sender)
    this.#receiver.start()
  }

  #receive(): Receiver {
    const { b } = this
    const up = this.#up
    return new Receiver({
      socket: up.asSocket(),
      buffer: this.#buffer,
      gate: b.gate,
      silence: new Silence(FOR_EVER_MS, 0),
      run: { store: (n: number) => (b.noted = n) } as unknown as RunFile,
      clock: this.clock,
      volume: (index) => b.volumes[index - 1] as unknown as Volume,
      onMessage: (message) => this.#atReplica(message),
      applies: () => true,
      copying: () => this.phase === 'copying',
      changes: () => Buffer.alloc(0),
      onRefused: (status, reason) => void this.broken.push(`refused: ${status} ${reason}`),
      onClosed: (reason) => void this.broken.push(`the replica gave the link up: ${reason}`),
    })
  }

  #resend(sender: Sender): void {
    this.writer.setSender(sender)
    assert.ok(this.writer.resend(this.b.noted), 'in sync every frame is kept')
  }

  #catchUp(sender: Sender): void {
    const { logFrom } = this.writer
    const { gate } = this.a
    const applied = this.b.noted
    if (logFrom === null || applied < logFrom || applied > gate.sequence) {
      this.state = 'resync'
      this.writer.forgetFrames(true)
      this.writer.logFrames(false)
      return this.#beginCopy(sender)
    }
    this.phase = 'catching_up'
    gate.acknowledge(applied)
    this.writer.setSender(sender)
    assert.ok(this.writer.resend(applied), 'the log reaches back')
    this.writer.watchCatchUp(() => this.#rise(sender))
  }

  #beginCopy(sender: Sender): void {
    const { a, writer, changes, members } = this
    this.phase = 'copying'
    writer.forgetFrames(true)
    a.gate.numberFrom(a.gate.sequence)
    sender.message({ kind: 'copy_begin', sequence: a.gate.sequence })
    writer.setSender(sender)
    // A copy that was interrupted goes on where it was, or is planned anew: then what was written meanwhile is known in two ways.
    const goesOn = this.#planned && this.#random() < 0.5
    this.#planned = true
    for (const [i, { todo }] of goesOn ? [] : members.entries()) {
      todo.clear()
      changes[i]?.addTo(todo.send)
      // Half of it may have changed only.
      for (let block = 0; block < todo.send.blocks; block++) {
        if (todo.send.has(block) && this.#random() < 0.3) {
          todo.send.delete(block)
          todo.compare.add(block)
        }
      }
    }
    this.#copy = new Copy({
      writer,
      gate: a.gate,
      sender,
      queries: this.#queries as PeerQueries,
      clock: this.clock,
      blank: new Set(),
      rateBytes: () => 0,
      onDone: () => this.phase === 'copying' && this.#rise(sender),
      onError: (error) => void this.broken.push(`the copy failed: ${String(error)}`),
    })
    this.#copy.kick()
  }

  #rise(sender: Sender): void {
    this.phase = 'rising'
    this.a.gate.mode = 'rising'
    this.writer.sendAll()
    sender.message({ kind: 'rise', epoch: ++this.#risingTo, members: [] })
    this.writer.requirePeer()
  }

  async #atReplica(message: LinkMessage): Promise<void> {
    const { b } = this
    if (message.kind === 'copy_begin') {
      b.gate.applied(message.sequence)
      b.noted = message.sequence
    }
    if (message.kind !== 'rise') return
    const receiver = this.#receiver
    await Promise.all(b.volumes.map((volume) => volume.flush()))
    receiver?.message({ kind: 'risen', epoch: message.epoch })
  }

  #fromReplica(message: LinkMessage): void {
    if (message.kind !== 'risen' || message.epoch !== this.#risingTo) return
    if (this.phase !== 'rising') return
    this.#copy?.stop()
    this.#copy = null
    this.#planned = false
    for (const [i, volume] of this.a.volumes.entries()) {
      const other = this.b.volumes[i] as MemoryVolume
      if (this.writer.settled && !volume.bytes.equals(other.bytes)) {
        this.broken.push(`risen with a difference at ${firstDifference(volume, other)}`)
      }
    }
    for (const one of this.changes) one.marked.clear()
    this.writer.changesCleared()
    this.writer.logFrames(false)
    this.state = 'sync'
    this.phase = 'following'
    this.#mode('both')
    this.rises++
  }

  #mode(mode: GateMode): void {
    this.a.gate.mode = mode
    this.writer.release()
  }

  /** Whatever is on its way is lost. */
  cut(): void {
    if (this.phase === 'unlinked') return
    this.#down.destroy()
    this.#up.destroy()
    this.#receiver?.destroy()
    this.#queries?.end()
    this.#copy?.stop()
    this.#copy = null
    if (this.phase === 'rising') this.a.gate.mode = 'alone'
    this.phase = 'unlinked'
    this.writer.setSender(null)
    this.#judgeMarks()
    if (this.state !== 'sync') this.writer.release()
  }

  /** From now on this side may go on alone, and die: what the replica lacks is named by the change map. */
  #judgeMarks(): void {
    for (const [i, volume] of this.a.volumes.entries()) {
      const other = this.b.volumes[i] as MemoryVolume
      if (volume.bytes.equals(other.bytes)) continue
      for (let at = 0; at < volume.sizeBytes; at += 64 * KIB) {
        const end = Math.min(at + 64 * KIB, volume.sizeBytes)
        const same = volume.bytes.compare(other.bytes, at, end, at, end) === 0
        if (same || (this.changes[i] as MemoryChanges).covers(at, end - at)) continue
        this.broken.push(`the link is lost, and block ${at / 64 / KIB} differs unmarked`)
      }
    }
  }

  /** The witness has said yes: what is held is answered. */
  goAlone(): void {
    if (this.phase !== 'unlinked' || this.state !== 'sync') return
    this.state = 'solo'
    this.writer.logFrames(true)
    this.a.lease.granted(0, FOR_EVER_MS)
    this.#mode('alone')
  }

  #followUp(): void {
    if (this.phase !== 'unlinked' && this.phase !== 'following') this.#copy?.kick()
  }

  // -- the end --------------------------------------------------------------------------------------------------------

  /** The link stays, and everything comes to its end. */
  async settle(): Promise<void> {
    if (this.phase === 'unlinked') this.connect()
    for (let turns = 0; turns < 3_000; turns++) {
      this.pump()
      this.clock.pass(1)
      await nextTurn()
      const over = this.phase === 'following' && this.open.size === 0 && this.quiet
      if ((over && this.writer.idle) || this.broken.length > 0) break
    }
    assert.deepEqual(this.broken, [])
    assert.equal(this.phase, 'following')
    assert.deepEqual(
      [...this.open].map(({ kind, stamp }) => `${kind} ${stamp}`),
      [],
    )
    for (const [i, volume] of this.a.volumes.entries()) {
      const other = this.b.volumes[i] as MemoryVolume
      assert.equal(firstDifference(volume, other), -1, `member ${i}`)
    }
  }
}

function firstDifference(one: MemoryVolume, other: MemoryVolume): number {
  if (one.bytes.equals(other.bytes)) return -1
  return one.bytes.findIndex((byte, at) => byte !== other.bytes[at])
}
