import { assert } from '#base/assert.ts'
import type { Contact } from './contact.ts'
import type { Lease } from './lease.ts'

/**
 * closed   nothing is answered
 * alone    everything done here is answered, under the lease
 * rising   only what the replica acknowledged, under lease and contact: the witness may commit `in_sync` at any moment, after
 *          which contact is what counts, while before it the lease does. Holding both is right in either case
 * both     only what the replica acknowledged, under contact
 * unwitnessed  everything done here is answered, by nobody's leave: the preferred site of static priority, or break-glass
 */
export type GateMode = 'closed' | 'alone' | 'rising' | 'both' | 'unwitnessed'

/**
 * Numbers of writes and the question "which of them may be answered now?". Every release goes through it with a fresh
 * clock reading. Allocation-free.
 */
export class AckGate {
  readonly #lease: Lease
  readonly #contact: Contact
  mode: GateMode = 'closed'
  /** Writer: last number given out. Replica: last number applied. */
  #sequence = 0
  /** Writer: everything up to it is held by the replica. */
  #acknowledged = 0
  /** Writer: payload of clients' writes since the start of the process, bytes. The hot path adds to it. */
  bytes = 0
  /** Writer: payload of clients' writes that the replica has not acknowledged, bytes. Told by whoever keeps their frames. */
  unacknowledgedBytes: () => number = () => 0

  constructor(lease: Lease, contact: Contact) {
    this.#lease = lease
    this.#contact = contact
  }

  get sequence(): number {
    return this.#sequence
  }

  get acknowledged(): number {
    return this.#acknowledged
  }

  /** True when the replica holds all that was numbered. */
  get settled(): boolean {
    return this.#acknowledged === this.#sequence
  }

  /** Writer: the next number. */
  next(): number {
    return ++this.#sequence
  }

  /** Writer: the replica holds everything up to `sequence`. Late and repeated reports change nothing. */
  acknowledge(sequence: number): void {
    assert(sequence <= this.#sequence, 'the replica acknowledges only what was numbered')
    if (sequence > this.#acknowledged) this.#acknowledged = sequence
  }

  /** Replica: applied up to `sequence`. */
  applied(sequence: number): void {
    this.#sequence = sequence
    this.#acknowledged = sequence
  }

  /** Starts numbering behind `sequence`, which both sides hold. */
  numberFrom(sequence: number): void {
    this.#sequence = sequence
    this.#acknowledged = sequence
  }

  /** The right to answer anything at all, reads included, at this moment. */
  mayAnswer(nowMs: number): boolean {
    switch (this.mode) {
      case 'closed':
        return false
      case 'alone':
        return this.#lease.valid(nowMs)
      case 'rising':
        return this.#lease.valid(nowMs) && this.#contact.valid(nowMs)
      case 'both':
        return this.#contact.valid(nowMs)
      case 'unwitnessed':
        return true
    }
  }

  /** Writes numbered up to the result may be answered now, once done locally; -1: none. */
  releasableUpTo(nowMs: number): number {
    if (!this.mayAnswer(nowMs)) return -1
    return this.needsReplica ? this.#acknowledged : this.#sequence
  }

  /** True when an answer needs the replica (flushes: durable there too). */
  get needsReplica(): boolean {
    return this.mode !== 'alone' && this.mode !== 'unwitnessed'
  }
}
