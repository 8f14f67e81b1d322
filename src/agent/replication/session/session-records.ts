import type { OwnershipRecord } from '#wire/site/witness.ts'
import type { Role } from './phases.ts'
import type { CopyScope, PeerHello, StoredSession } from './session-types.ts'

/* What follows from a record and from what is stored: questions without a memory of their own. */

type State = OwnershipRecord['state']

/** States in which the writer answers without its peer, under a lease. */
export const ALONE: ReadonlySet<State> = new Set<State>(['resyncing', 'solo', 'failed_over'])
/** States in which the recorded replica takes the writer's stream. */
const LINKED: ReadonlySet<State> = new Set<State>(['resyncing', 'in_sync', 'solo', 'frozen'])

/** So far does break-glass jump: no witness counts so many changes of one group. */
const BREAK_GLASS_EPOCHS = 1_000_000

/** The role that `record` gives to `site`. */
export function roleOf(record: OwnershipRecord, site: string): Role {
  if (record.state === 'closed') return 'none'
  if (record.writer === site) return 'writer'
  return record.replica === site && LINKED.has(record.state) ? 'replica' : 'fenced'
}

/** A session that was never opened at this site. */
export function unopened(session: string): StoredSession {
  const record: OwnershipRecord = {
    session,
    epoch: 0,
    state: 'closed',
    writer: '',
    replica: '',
    mode: 'witness',
    preferred: '',
  }
  return {
    record,
    consistent: false,
    base: false,
    riseAsked: false,
    divergent: false,
    promoting: false,
    clean: null,
    baseEpoch: 0,
    priorBase: 0,
    exact: true,
    whole: true,
    kept: null,
    ackedAlone: false,
    unwitnessed: false,
    promoted: false,
    wanted: null,
    offered: false,
    unconfirmed: false,
    outOfTouchMs: null,
    torn: false,
  }
}

/** The record that `site` makes for itself, without the witness. */
export function breakGlass(record: OwnershipRecord, site: string): OwnershipRecord {
  const other = record.writer === site ? record.replica : record.writer
  const epoch = record.epoch + BREAK_GLASS_EPOCHS
  return { ...record, epoch, state: 'failed_over', writer: site, replica: other }
}

/** Epoch of the record that the site had before it made `record` so. */
export const epochBefore = (record: OwnershipRecord): number => record.epoch - BREAK_GLASS_EPOCHS

/** Whether static priority lets this site go on without the witness: by the record, and by an operator's wish that may be the record already. */
export function preferredHere({ record, wanted }: StoredSession, site: string): boolean {
  return preferredBy(record, site) && (wanted === null || prefers(wanted, site))
}

/** Whether the record alone does: until the witness has been heard under it, that proves nothing. */
export const preferredBy = (record: OwnershipRecord, site: string): boolean =>
  record.writer === site && prefers(record, site)

const prefers = (by: { mode: string; preferred: string }, site: string): boolean =>
  by.mode === 'static-priority' && by.preferred === site

/** Whether the change maps of both sides count from the same moment. A replica may not have heard of the last rise. */
export function sameBase({ baseEpoch, priorBase }: StoredSession, hello: PeerHello): boolean {
  const theirs = hello.baseEpoch
  return theirs > 0 && (theirs === baseEpoch || theirs === priorBase)
}

export interface CopyPlan {
  readonly scope: CopyScope
  readonly regions: boolean
}

/** What a block resync to the replica behind `hello` has to look at. */
export function copyPlan(stored: StoredSession, hello: PeerHello): CopyPlan {
  if (!sameBase(stored, hello)) return { scope: 'all', regions: false }
  return { scope: 'delta', regions: !stored.exact || !hello.clean }
}

/**
 * Whether the replica behind `hello` can be brought up in order, out of a frame log that holds everything behind `logFrom`. Its number
 * must mean what ours means, so it was in step with this process.
 */
export function continues(
  stored: StoredSession,
  hello: PeerHello,
  logFrom: number | null,
  sequence: number,
): boolean {
  const { clean, consistent, divergent, applied } = hello
  if (!clean || !consistent || divergent || !sameBase(stored, hello)) return false
  return logFrom !== null && logFrom <= applied && applied <= sequence
}

/**
 * Name of the next kept copy. A second one under the same epoch (the link went between the end of a copy and its rise) must not be taken for the first, which
 * may have become a divergence: under its name it would be replaced. So rare that the simulator meets it once in a thousand seeds, and hardly ever
 * with a divergence: session-replica.test.ts has it.
 */
export function nextKept({ record, kept }: StoredSession): string {
  const last = /^kept-(\d+)-(\d+)$/.exec(kept ?? '')
  const count = last !== null && Number(last[1]) === record.epoch ? Number(last[2]) + 1 : 1
  return `kept-${record.epoch}-${count}`
}

/** The record of the rise that this replica has just declared itself ready for. */
export function isRiseOf(stored: StoredSession, record: OwnershipRecord): boolean {
  const from = stored.record
  return (
    record.epoch === from.epoch + 1 &&
    record.state === 'in_sync' &&
    record.writer === from.writer &&
    (from.state === 'resyncing' || from.state === 'solo') &&
    stored.consistent
  )
}
