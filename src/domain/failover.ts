import { ALONE, type Ownership } from './ownership.ts'

/**
 * What a failover to the other site has to do first, and what it gives up. Pure.
 *
 * A writer that may be acknowledging alone is frozen first: the witness renews its lease no more, and when it has been told, it has given
 * up by itself. So the DR side need not wait for the lease of a writer that answers, and a writer that cannot be told ends with its lease.
 */
type Record = Pick<Ownership, 'state' | 'writer' | 'mode' | 'preferred' | 'alone'>

/** The writer may go on without the witness's word, for as long as it likes: no lease bounds it. */
export const unbounded = (record: Omit<Record, 'alone'>): boolean =>
  record.mode === 'static-priority' && record.writer === record.preferred

/** Whether the witness is to freeze `record` before the right to write goes to `to`. */
export function freezesFirst(record: Omit<Record, 'alone'>, to: string, force: boolean): boolean {
  if (record.writer === to || record.state === 'failed_over') return false
  if (ALONE.has(record.state)) return force
  return record.state === 'in_sync' && unbounded(record)
}

/** Nobody knows more than a lower bound: what the writer did since it last spoke to the witness is known to it alone. */
export interface GivenUp {
  /** nothing: the DR side holds every acknowledged write · at_least: `bytes` and more · unknown: not even that is known */
  readonly kind: 'nothing' | 'at_least' | 'unknown'
  /** Payload bytes written alone; null unless `at_least`. */
  readonly bytes: number | null
  /** Wall clock, ms: since then writes are missing; null: nothing is, or it is not known. */
  readonly since: number | null
}

const NOTHING: GivenUp = { kind: 'nothing', bytes: null, since: null }

/** What the DR side says of its own copy. */
export interface DrWord {
  /** Wall clock, ms: since when it may lack what production answered; null: in touch, or not known. */
  readonly outOfTouchMs: number | null
  /** It went through a loss of power, and nobody has compared it since: what it lacks may be older than anything that was noted. */
  readonly torn: boolean
  /** It was in step with production in this session before: what it lacks is what production has written alone since. */
  readonly risen: boolean
}

/** `dr`: null when it was not asked, or does not answer. */
export function givenUp(record: Record, dr: DrWord | null): GivenUp {
  const outOfTouchMs = dr?.outOfTouchMs ?? null
  switch (record.state) {
    case 'closed':
    case 'failed_over':
      return NOTHING
    case 'in_sync':
      if (dr?.torn === true) return { kind: 'unknown', bytes: null, since: null }
      // By the witness's word the writer cannot have answered alone; a preferred site needs no such word.
      if (!unbounded(record) || outOfTouchMs === null) return NOTHING
      return { kind: 'unknown', bytes: null, since: outOfTouchMs }
    case 'solo':
    case 'resyncing':
    case 'frozen': {
      const { alone } = record
      const since = missingSince(alone?.since ?? null, dr)
      // That production has said nothing of is not nothing: right after a restart it has only begun to count.
      if (alone === null || alone.bytes === 0) return { kind: 'unknown', bytes: null, since }
      return { kind: 'at_least', bytes: alone.bytes, since }
    }
  }
}

/** The time of which both sites' words are true; null: neither says. */
function missingSince(aloneMs: number | null, dr: DrWord | null): number | null {
  if (dr === null) return aloneMs
  if (dr.torn) return null
  // Either clock may be the one that is behind: the earlier time is the safe one to show.
  if (dr.outOfTouchMs !== null) return Math.min(dr.outOfTouchMs, aloneMs ?? dr.outOfTouchMs)
  // A copy of before this session lacks what was written before production began to count.
  return dr.risen ? aloneMs : null
}

/** One sentence for people. */
export function describeGivenUp({ kind, bytes, since }: GivenUp): string {
  const from = since === null ? '' : ` since ${new Date(since).toISOString()}`
  switch (kind) {
    case 'nothing':
      return 'Nothing: the DR side holds every write that was acknowledged.'
    case 'at_least':
      return `At least ${bytes ?? 0} bytes that production wrote alone${from}.`
    case 'unknown':
      return `Whatever production acknowledged${from} that the DR side does not hold; how much that is only production knows.`
  }
}
