import { closeSync, openSync, writeSync } from 'node:fs'
import { assert } from '#base/assert.ts'
import { SLOTS } from './layout.ts'
import type { Found } from './stamp.ts'

/* What was written, what was acknowledged, and the judgement over what is found afterwards.
 *
 * At most one operation is under way per slot, and one that had no answer is repeated until it has, so that the operations of
 * a slot form a line. What a slot holds is a place in its line:
 *
 *     initial ── op 3 ── op 17 ── op 40 (no answer yet)
 *                          ▲
 *                          the last acknowledged one: the slot must hold it or op 40, nothing older
 *
 * Across slots and volumes the order of the group must hold whatever else happened: if some operation is present, then
 * everything that was acknowledged before it was issued is present too. Every event (issue, acknowledgement) has its own
 * number, the tick, so "before" needs no clock.
 *
 * Each event also goes to a file, one line each, which survives the runner.
 */

export type OpKind = 'write' | 'zero' | 'trim'

export interface Op {
  readonly sequence: number
  readonly kind: OpKind
  readonly volume: number
  /** First slot, and how many. */
  readonly slot: number
  readonly slots: number
  readonly issued: number
  readonly issuedMs: number
  /** Tick of the acknowledgement; 0: none yet. */
  acknowledged: number
  /** Flushed, or written with FUA: survives the power loss of both sites. */
  durable: boolean
}

export interface Judgement {
  /** Acknowledged operations that are gone. */
  readonly lost: readonly Op[]
  /** Of these, the ones whose absence breaks the order: something issued after their acknowledgement is present. */
  readonly disorder: readonly Op[]
  /** Of these, the ones that had been flushed. */
  readonly lostDurable: readonly Op[]
  /** Blocks that hold neither zeroes nor an operation of their slot. */
  readonly damaged: readonly { volume: number; slot: number; found: Found }[]
  /** Present without having been acknowledged, as they may be. */
  readonly unacknowledged: number
}

interface Line {
  /** The operation whose result the line begins with; undefined: zeroes. */
  base: Op | undefined
  ops: Op[]
}

export class Ledger {
  readonly #lines: Line[][]
  /** By sequence, as long as some line has it. */
  readonly #ops = new Map<number, Op>()
  readonly #fd: number
  #unwritten = ''
  #tick = 0
  #issued = 0
  #acknowledged = 0
  #givenUp = 0
  /** By volume: the operation acknowledged last. */
  readonly #last: Op[]
  readonly volumes: number

  constructor(volumes: number, file: string) {
    this.volumes = volumes
    this.#fd = openSync(file, 'a')
    this.#lines = Array.from({ length: volumes }, () =>
      Array.from({ length: SLOTS }, () => ({ base: undefined, ops: [] })),
    )
    this.#last = []
  }

  get issued(): number {
    return this.#issued
  }
  get acknowledged(): number {
    return this.#acknowledged
  }
  /** Acknowledged operations that a failover by force gave up. */
  get givenUp(): number {
    return this.#givenUp
  }
  get tick(): number {
    return this.#tick
  }

  /** By volume: the sequence of the operation acknowledged last. */
  depends(): number[] {
    return Array.from({ length: this.volumes }, (_, volume) => this.#last[volume]?.sequence ?? 0)
  }

  isBusy(volume: number, slot: number): boolean {
    return this.#line(volume, slot).ops.at(-1)?.acknowledged === 0
  }

  issue(kind: OpKind, volume: number, slot: number, slots: number, nowMs: number): Op {
    const op: Op = {
      sequence: ++this.#issued,
      kind,
      volume,
      slot,
      slots,
      issued: ++this.#tick,
      issuedMs: nowMs,
      acknowledged: 0,
      durable: false,
    }
    for (let at = slot; at < slot + slots; at++) {
      assert(!this.isBusy(volume, at), 'one operation per slot at a time')
      this.#line(volume, at).ops.push(op)
    }
    this.#ops.set(op.sequence, op)
    this.#note(`issue ${op.sequence} ${kind} ${volume} ${slot} ${slots} ${op.issued} ${nowMs}`)
    return op
  }

  acknowledge(op: Op, site: string, durable: boolean, nowMs: number): void {
    assert(op.acknowledged === 0, 'an operation is acknowledged once')
    op.acknowledged = ++this.#tick
    op.durable = durable
    this.#acknowledged++
    this.#last[op.volume] = op
    this.#note(`ack ${op.sequence} ${site} ${op.acknowledged} ${nowMs}`)
  }

  /** A flush that was issued at `tick` has been answered. */
  flushed(volume: number, tick: number): void {
    for (const line of this.#lines[volume] ?? []) {
      for (const op of line.ops) {
        if (op.acknowledged !== 0 && op.acknowledged <= tick) op.durable = true
      }
    }
  }

  /** The least that a read issued now must return: the sequence acknowledged last, 0 when there is none. */
  expected(volume: number, slot: number): number {
    const { base, ops } = this.#line(volume, slot)
    const op = ops.findLast((one) => one.acknowledged !== 0)
    return op?.sequence ?? base?.sequence ?? 0
  }

  /** True when a read issued while `least` was expected may have returned `found`. */
  mayRead(volume: number, slot: number, least: number, found: Found): boolean {
    const { base, ops } = this.#line(volume, slot)
    if (found === 'damaged') return ops.some((op) => op.acknowledged === 0)
    if (found !== 'empty') {
      return found.volume === volume && found.slot === slot && found.sequence >= least
    }
    if (least === 0) return true
    return [base, ...ops].some(
      (op) => op !== undefined && op.kind !== 'write' && op.sequence >= least,
    )
  }

  /** Changes nothing. `found(volume, slot)`: the stamp read there. */
  judge(found: (volume: number, slot: number) => Found): Judgement {
    const lost = new Set<Op>()
    const present = new Set<Op>()
    const damaged: { volume: number; slot: number; found: Found }[] = []
    let newest = 0
    this.#eachSlot((volume, slot, line) => {
      const here = found(volume, slot)
      const at = placeOf(line, volume, slot, here)
      if (at === undefined) {
        damaged.push({ volume, slot, found: here })
        return
      }
      const op = line.ops[at]
      if (op !== undefined && here !== 'empty') {
        present.add(op)
        newest = Math.max(newest, op.issued)
        for (const needed of (here as { depends: readonly number[] }).depends) {
          const other = this.#ops.get(needed)
          // What a line no longer has was found and judged before.
          if (other !== undefined && !this.#isPresent(other, found)) lost.add(other)
        }
      }
      for (const missing of line.ops.slice(at + 1))
        if (missing.acknowledged !== 0) lost.add(missing)
    })
    return {
      lost: [...lost],
      disorder: [...lost].filter((op) => op.acknowledged < newest),
      lostDurable: [...lost].filter((op) => op.durable),
      damaged,
      unacknowledged: [...present].filter((op) => op.acknowledged === 0).length,
    }
  }

  #isPresent(op: Op, found: (volume: number, slot: number) => Found): boolean {
    for (let slot = op.slot; slot < op.slot + op.slots; slot++) {
      const line = this.#line(op.volume, slot)
      const index = line.ops.indexOf(op)
      if (index < 0) continue
      const at = placeOf(line, op.volume, slot, found(op.volume, slot))
      if (at === undefined || at < index) return false
    }
    return true
  }

  /** What was found is from now on what must be there: a loss that was announced and accepted. Returns what is gone. */
  accept(found: (volume: number, slot: number) => Found): readonly Op[] {
    const gone = new Set<Op>()
    this.#eachSlot((volume, slot, line) => {
      const at = placeOf(line, volume, slot, found(volume, slot))
      if (at === undefined) return
      // What had no answer yet is repeated and comes after all that is there.
      const dropped = line.ops.slice(at + 1)
      for (const op of dropped) if (op.acknowledged !== 0) gone.add(op)
      line.ops = [...line.ops.slice(0, at + 1), ...dropped.filter((op) => op.acknowledged === 0)]
    })
    this.#givenUp += gone.size
    for (const op of gone) {
      this.#ops.delete(op.sequence)
      this.#note(`given-up ${op.sequence} ${this.#tick}`)
    }
    return [...gone]
  }

  /** Forgets everything before what is acknowledged now. Call it after a judgement in which all was there. */
  settle(): void {
    this.#ops.clear()
    this.#eachSlot((_volume, _slot, line) => {
      const at = line.ops.findLastIndex((op) => op.acknowledged !== 0)
      if (at >= 0) {
        line.base = line.ops[at]
        line.ops = line.ops.slice(at)
      }
      for (const op of line.ops) this.#ops.set(op.sequence, op)
    })
  }

  note(text: string): void {
    this.#note(`# ${text}`)
  }

  close(): void {
    this.#write()
    closeSync(this.#fd)
  }

  #line(volume: number, slot: number): Line {
    const line = this.#lines[volume]?.[slot]
    assert(line !== undefined, 'a slot of the load')
    return line
  }

  #eachSlot(visit: (volume: number, slot: number, line: Line) => void): void {
    for (const [volume, lines] of this.#lines.entries()) {
      for (const [slot, line] of lines.entries()) visit(volume, slot, line)
    }
  }

  #note(line: string): void {
    if (this.#unwritten === '') setImmediate(() => this.#write())
    this.#unwritten += `${line}\n`
  }

  #write(): void {
    if (this.#unwritten !== '') writeSync(this.#fd, this.#unwritten)
    this.#unwritten = ''
  }
}

/** Index in the line of the operation that `found` shows, -1 for what the line began with, undefined when it is none of it. */
function placeOf(line: Line, volume: number, slot: number, found: Found): number | undefined {
  if (found === 'damaged') return undefined
  if (found === 'empty') {
    const zeroed = line.ops.findLastIndex((op) => op.kind !== 'write')
    if (zeroed >= 0) return zeroed
    return line.base === undefined || line.base.kind !== 'write' ? -1 : undefined
  }
  if (found.volume !== volume || found.slot !== slot) return undefined
  const at = line.ops.findIndex((op) => op.sequence === found.sequence && op.kind === 'write')
  if (at >= 0) return at
  return undefined
}
