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

/** `outOfTouchMs`: the DR side's own note, wall clock, since when it has not heard the writer; null: in touch, or not asked. */
export function givenUp(record: Record, outOfTouchMs: number | null): GivenUp {
  switch (record.state) {
    case 'closed':
    case 'failed_over':
      return NOTHING
    case 'in_sync':
      // By the witness's word the writer cannot have answered alone; a preferred site needs no such word.
      if (!unbounded(record) || outOfTouchMs === null) return NOTHING
      return { kind: 'unknown', bytes: null, since: outOfTouchMs }
    case 'solo':
    case 'resyncing':
    case 'frozen': {
      const { alone } = record
      if (alone === null) return { kind: 'unknown', bytes: null, since: outOfTouchMs }
      // Either clock may be the one that is behind: the earlier time is the safe one to show.
      const since = Math.min(alone.since, outOfTouchMs ?? alone.since)
      return { kind: 'at_least', bytes: alone.bytes, since }
    }
  }
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
      return `Whatever production acknowledged alone${from}; how much that is only production knows.`
  }
}
