import { assert } from '#base/assert.ts'
import type { Stamp } from './stamp.ts'

/* What was written, what was acknowledged, and the judgement over what is found afterwards.
 *
 * Slots are used again and again, so a later write may lie over an acknowledged one. For each slot the write found there must
 * be one that was issued for just this slot, and none older than the last one acknowledged there. Across the
 * volumes, the writes of a chain must be there up to some step and none after it: since each was issued only after the
 * one before was acknowledged, a gap would mean that the order of the group was broken.
 */

/** Visits the slots of a volume in an order that jumps about but repeats only after all were visited. */
const STRIDE = 40_503

export interface Judgement {
  readonly issued: number
  readonly acknowledged: number
  /** Acknowledged writes that are gone. The one number that has to be zero. */
  readonly lost: number
  /** Blocks that hold neither zeroes nor a whole stamp of this run, or one that belongs elsewhere. */
  readonly damaged: number
  /** Chains with a later write present and an earlier one missing. */
  readonly outOfOrder: number
  /** Writes that were not acknowledged and are present all the same, as they may be. */
  readonly unacknowledgedPresent: number
}

export class Ledger {
  readonly #slots: number
  /** By volume: how many writes were given out. */
  readonly #given: number[]
  /** By chain: its writes in order. */
  readonly #chains: Stamp[][]
  readonly #acknowledged = new Set<number>()
  #issued = 0

  constructor(volumes: number, slotsPerVolume: number, chains: number) {
    assert(
      slotsPerVolume % STRIDE !== 0 && chains * 2 < slotsPerVolume,
      'slots suffice for the chains',
    )
    this.#slots = slotsPerVolume
    this.#given = Array.from({ length: volumes }, () => 0)
    this.#chains = Array.from({ length: chains }, () => [])
  }

  get acknowledged(): number {
    return this.#acknowledged.size
  }

  /** The next write of a chain. Chains go round the volumes, so that neighbours in a chain lie on different ones. */
  issue(chain: number): Stamp {
    const writes = this.#chain(chain)
    const volume = (chain + writes.length) % this.#given.length
    const nth = this.#given[volume] ?? 0
    this.#given[volume] = nth + 1
    const stamp: Stamp = {
      sequence: ++this.#issued,
      volume,
      slot: (nth * STRIDE) % this.#slots,
      chain,
      step: writes.length + 1,
    }
    writes.push(stamp)
    return stamp
  }

  acknowledge(stamp: Stamp): void {
    this.#acknowledged.add(stamp.sequence)
  }

  /** `found(volume, slot)`: the stamp read there. */
  judge(found: (volume: number, slot: number) => Stamp | 'empty' | 'damaged'): Judgement {
    const bySequence = new Map<number, Stamp>()
    for (const writes of this.#chains) for (const one of writes) bySequence.set(one.sequence, one)

    let damaged = 0
    const sequenceAt = this.#given.map(() => new Uint32Array(this.#slots))
    for (const [volume, sequences] of sequenceAt.entries()) {
      for (let slot = 0; slot < this.#slots; slot++) {
        const stamp = found(volume, slot)
        if (stamp === 'empty') continue
        const issued = stamp === 'damaged' ? undefined : bySequence.get(stamp.sequence)
        if (issued?.volume === volume && issued.slot === slot) sequences[slot] = issued.sequence
        else damaged++
      }
    }

    // A write is there when its slot holds it, or one issued later for the same slot.
    const present = ({ volume, slot, sequence }: Stamp) =>
      (sequenceAt[volume]?.[slot] ?? 0) >= sequence
    let lost = 0
    let outOfOrder = 0
    let unacknowledgedPresent = 0
    for (const writes of this.#chains) {
      const there = writes.map(present)
      if (there.lastIndexOf(true) !== there.indexOf(false) - 1 && there.includes(false))
        outOfOrder++
      for (const [index, write] of writes.entries()) {
        const acknowledged = this.#acknowledged.has(write.sequence)
        if (acknowledged && there[index] !== true) lost++
        if (!acknowledged && there[index] === true) unacknowledgedPresent++
      }
    }
    const { size } = this.#acknowledged
    return {
      issued: this.#issued,
      acknowledged: size,
      lost,
      damaged,
      outOfOrder,
      unacknowledgedPresent,
    }
  }

  #chain(chain: number): Stamp[] {
    const writes = this.#chains[chain]
    assert(writes !== undefined, `chain ${chain} exists`)
    return writes
  }
}
