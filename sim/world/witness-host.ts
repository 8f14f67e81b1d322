import {
  adopt,
  doubtOf,
  type Heard,
  heardUnder,
  hears,
  leapOf,
  nextDoubt,
  provesNow,
  settledBy,
  trusted,
} from '#control/sites/history.ts'
import type { OwnershipRow } from '#control/store/tables/sites.ts'
import {
  closedRecord,
  decideOwnership,
  type Ownership,
  type OwnershipAnswer,
  type OwnershipRequest,
} from '#domain/ownership.ts'
import type { EndedSession, SessionStatus } from '#wire/site/witness.ts'
import type { Host } from './host.ts'
import { Process } from './host.ts'
import type { Random } from './random.ts'
import type { Timeline } from './timeline.ts'

/* The witness: the real rules over a record that is persisted before each answer.
 *
 * It crashes at any point: before the commit, after the commit and before the answer, between two requests. After the
 * reboot of its host the recorded ends of leases mean nothing, so it drops them and lets nobody take over for one
 * lease and the drift. The decision function can be wrapped, which is how mistakes are planted.
 *
 * Its database can be replaced by an older copy. What then restores the trust in the record is the product's code too
 * (control/sites/history.ts), fed with the sites' reports in the order of control/sites/witness.ts.
 */

export interface Decided {
  readonly kind: string
  readonly from: Ownership
  readonly record: Ownership
  readonly atMs: number
}

/** What a report says of the session. */
export interface Word {
  readonly status?: SessionStatus
  readonly ended?: EndedSession
  /** Of the last answer to a report. */
  readonly mark?: string
}

interface Copy {
  readonly stored: Ownership
  readonly bootId: string
}

/** So many commits back an older copy of the database can reach. */
const COPIES_MAX = 8

export interface WitnessSettings {
  readonly leaseMs: number
  readonly driftMs: number
}

export class WitnessHost {
  readonly host: Host
  readonly #timeline: Timeline
  readonly #random: Random
  readonly #settings: WitnessSettings
  process: Process
  /** What the database holds. */
  stored: Ownership
  /** Every committed change of state, oldest first. */
  readonly history: Decided[] = []
  decide = decideOwnership
  onCommit: (decided: Decided) => void = () => undefined
  onAdopt: (decided: Decided, vouchedOff: string | null) => void = () => undefined
  onRefusal: (kind: string, refusal: string) => void = () => undefined
  #waitUntilBootMs = 0
  #storedBootId: string
  /** What an operator could restore, oldest first. */
  readonly #copies: Copy[] = []
  #restores = 0
  /** The database's mark, and the record's: while they differ the record is in doubt. */
  #mark = 'mark-0'
  #doubt: Pick<OwnershipRow, 'history_mark' | 'heard'> = { history_mark: 'mark-0', heard: '{}' }
  /** When this process met the present mark; null: not yet. */
  #metBootMs: number | null = null
  #busyUntilMs = 0

  constructor(
    host: Host,
    timeline: Timeline,
    random: Random,
    settings: WitnessSettings,
    sites: readonly [string, string],
  ) {
    this.host = host
    this.#timeline = timeline
    this.#random = random
    this.#settings = settings
    this.stored = closedRecord('session', sites[0], sites[1], 'incarnation-0')
    this.#storedBootId = host.bootId
    this.process = new Process(host, timeline)
  }

  kill(): void {
    this.process.kill()
  }

  start(): void {
    this.process = new Process(this.host, this.#timeline)
    this.#busyUntilMs = 0
    this.#metBootMs = null
    const { leaseMs, driftMs } = this.#settings
    if (this.#storedBootId !== this.host.bootId) {
      this.stored = { ...this.stored, lease: null }
      this.#storedBootId = this.host.bootId
      this.#waitUntilBootMs = this.host.bootMs() + leaseMs + driftMs
    }
  }

  /** Nothing is granted while the record may lack its end. */
  get trusted(): boolean {
    return trusted(this.#doubt, this.#mark)
  }

  /** Names the history of its database. */
  get mark(): string {
    return this.#mark
  }

  get #incarnation(): string {
    return `incarnation-${this.#restores}`
  }

  /** Its database is replaced by an older copy while it is down. False: there is none. */
  restore(): boolean {
    if (this.#copies.length === 0) return false
    const copy = this.#random.pick(this.#copies)
    this.#copies.length = 0
    this.stored = copy.stored
    this.#storedBootId = copy.bootId
    this.#mark = `mark-${++this.#restores}`
    this.#doubt = { history_mark: `mark-${this.#restores - 1}`, heard: '{}' }
    return true
  }

  /** A site says what it knows of the session; the answer carries the mark of the database's history. */
  report(site: string, { status, ended, mark }: Word, reply: (mark: string) => void): void {
    this.process.deliver(() => {
      this.#metBootMs ??= this.process.bootMs()
      reply(this.#mark)
      if (this.trusted && ((status ?? ended)?.epoch ?? 0) <= this.stored.epoch) return
      if (!provesNow(this.#doubt, this.#mark, mark)) return
      this.#restoreTrust((heard) => hears(heard, site, status, ended))
    })
  }

  /** Sites whose word is awaited; none: nobody is waited for. */
  get awaits(): readonly string[] {
    if (this.trusted) return []
    const heard = JSON.parse(this.#heard) as Heard
    return [this.stored.writer, this.stored.replica].filter((site) => heard[site] === undefined)
  }

  /** Both sites claim to write under one epoch. */
  get disputed(): boolean {
    const words = Object.values(JSON.parse(this.#heard) as Heard)
    const writers = words.filter(({ role }) => role === 'writer')
    return writers.length === 2 && writers[0]?.epoch === writers[1]?.epoch
  }

  /** Highest epoch that the record or a site's word names. */
  get newestKnown(): number {
    const heard = JSON.parse(this.#heard) as Heard
    return Math.max(this.stored.epoch, ...Object.values(heard).map(({ epoch }) => epoch))
  }

  /** An operator vouches that the record is complete with what was heard. `off`: the site that said nothing. */
  vouch(off?: string): void {
    if (this.trusted || !this.process.alive) return
    this.#metBootMs ??= this.process.bootMs()
    this.#restoreTrust(() => null, off)
  }

  get #row(): OwnershipRow {
    return this.#doubt as OwnershipRow
  }

  get #heard(): string {
    return heardUnder(this.#row, this.#mark)
  }

  #restoreTrust(change: (heard: Heard) => Heard | null, off?: string): void {
    const doubt = nextDoubt(this.#doubt, this.#mark)
    const before = this.stored
    const leap = doubt === doubtOf(this.#mark) ? leapOf(this.#mark) : 0
    const result = adopt(before, this.#heard, change, off, leap)
    if (result.kind === 'waiting') {
      this.#doubt = { history_mark: doubt, heard: result.heard }
      return
    }
    const lease = {
      holder: result.record.writer,
      endsBootMs: (this.#metBootMs ?? 0) + this.#settings.leaseMs,
    }
    this.stored = { ...result.record, lease, incarnation: this.#incarnation }
    this.#storedBootId = this.host.bootId
    this.#doubt = { history_mark: this.#mark, heard: '{}' }
    const decided = {
      kind: 'adopt',
      from: before,
      record: this.stored,
      atMs: this.#timeline.nowMs,
    }
    this.history.push(decided)
    this.onAdopt(decided, off ?? null)
  }

  /** One request. `reply` may never come. Requests are decided one after the other, each behind a commit. */
  serve(request: OwnershipRequest, reply: (answer: OwnershipAnswer) => void): void {
    const process = this.process
    process.deliver(() => {
      const commitMs = this.#random.chance(0.03)
        ? this.#random.between(5, 500)
        : this.#random.between(0.3, 3)
      const start = Math.max(this.#busyUntilMs, this.#timeline.nowMs)
      this.#busyUntilMs = start + commitMs
      process.after(this.#busyUntilMs - this.#timeline.nowMs, () =>
        this.#decideNow(process, request, reply),
      )
    })
  }

  #decideNow(
    process: Process,
    request: OwnershipRequest,
    reply: (answer: OwnershipAnswer) => void,
  ): void {
    const before = this.stored
    const answer = this.decide(before, request, {
      bootMs: process.bootMs(),
      waitUntilBootMs: this.#waitUntilBootMs,
      historyTrusted: this.trusted,
      leaseMs: this.#settings.leaseMs,
      driftMs: this.#settings.driftMs,
      incarnation: this.#incarnation,
    })
    if (!answer.ok) this.onRefusal(request.kind, answer.refusal)
    if (answer.record !== before) {
      this.stored = answer.record
      if (request.kind === 'promoted' && settledBy(answer.record, this.#row, this.#mark)) {
        this.#doubt = { history_mark: this.#mark, heard: '{}' }
      }
      if (answer.record.epoch !== before.epoch) {
        const decided = {
          kind: request.kind,
          from: before,
          record: answer.record,
          atMs: this.#timeline.nowMs,
        }
        this.history.push(decided)
        this.#copies.push({ stored: before, bootId: this.#storedBootId })
        if (this.#copies.length > COPIES_MAX) this.#copies.shift()
        this.onCommit(decided)
      }
    }
    // A crash in this moment has committed, and answers nothing.
    process.after(this.#random.between(0, 0.3), () => reply(answer))
  }
}
