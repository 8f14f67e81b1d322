import type { Queries, Transaction } from '#control/store/store.ts'
import type { OperationStatus } from '#control/store/tables/operations.ts'
import type { DrWord } from '#domain/failover.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import { rebuildPair } from './rebuild.ts'

/* Which DR disks were ever copied in full: a failover goes without the others, and a preflight says which those are.
 *
 * What a report proves about a copy that was replaced by an empty one.
 *
 * A report is up to a second old, and may be of the copy before: of all that a site can say, "it has all of this pair" is what a rebuild
 * makes untrue. So as long as a rebuild is at work no report counts; the operation ends well only when the DR side itself has said, asked
 * then, that it has recorded the new copy as whole. After one that was given up, only a report counts that was begun behind its end.
 */

/** The newest rebuild of a pair's copy that was begun. */
export interface Rebuild {
  readonly status: OperationStatus
  /** Wall clock, ms; null: it is at work. */
  readonly endAt: number | null
}

/** Longer than a report is on its way, and than two clocks of control planes are apart, ms. */
const REPORT_LATE_MS = 10_000

/** `receivedMs`: wall clock, when the report came. */
export function isOfThisCopy(rebuild: Rebuild | undefined, receivedMs: number): boolean {
  if (rebuild === undefined || rebuild.status === 'succeeded') return true
  return rebuild.endAt !== null && receivedMs > rebuild.endAt + REPORT_LATE_MS
}

/** What a site says of a session. */
export interface SiteWord {
  readonly status: {
    readonly epoch: number
    readonly members: readonly { readonly pair: string; readonly joined: boolean }[]
  }
  /** Wall clock, ms, when its report came; null: it was asked just now, and what it says is durable there. */
  readonly receivedMs: number | null
}

export interface CopyEvidence {
  /** Of the ownership record as it is now, and of its last rise to in sync; null: it never rose. */
  readonly epoch: number
  readonly rise: number | null
  /** By pair. */
  readonly rebuilds: ReadonlyMap<string, Rebuild>
  /** Null: nothing was ever heard from it. */
  readonly dr: SiteWord | null
  readonly production: SiteWord | null
}

/** Of these pairs those whose DR disk is not known to have been copied in full. Out of the session is none of them. */
export function notCopied(
  pairs: readonly {
    readonly id: string
    readonly in_session: number
    readonly added_epoch: number
  }[],
  { epoch, rise, rebuilds, dr, production }: CopyEvidence,
): string[] {
  const says = (word: SiteWord | null, id: string): boolean =>
    word !== null &&
    word.status.members.some(({ pair, joined }) => pair === id && joined) &&
    (word.receivedMs === null || isOfThisCopy(rebuilds.get(id), word.receivedMs))
  return pairs
    .filter(({ id, in_session, added_epoch }) => {
      if (in_session === 0) return false
      const rebuild = rebuilds.get(id)
      // A rise may have been with the copy before; what the DR side has of this one is good under any epoch.
      if (rebuild !== undefined && rebuild.status !== 'succeeded') return !says(dr, id)
      if (rise !== null && rise > added_epoch) return false
      // After a restart reports may be of an older epoch, and of copies of that time.
      return ![dr, production].some((word) => word?.status.epoch === epoch && says(word, id))
    })
    .map(({ id }) => id)
}

/** By pair; those that were never rebuilt are not in it. */
export async function rebuildsOf(
  db: Queries | Transaction,
  pairs: readonly string[],
): Promise<ReadonlyMap<string, Rebuild>> {
  if (pairs.length === 0) return new Map()
  const rows = await db
    .selectFrom('operations')
    .select(['resource_id', 'status', 'end_at'])
    .where('kind', '=', rebuildPair.name)
    .where('resource_id', 'in', [...pairs])
    .where('begin_at', 'is not', null)
    .orderBy('ordinal')
    .execute()
  return new Map(
    rows.map(({ resource_id, status, end_at }) => [resource_id, { status, endAt: end_at }]),
  )
}

/** What the DR side says of the copy that it would go on with; `undefined`: it says nothing. */
export function drWord(status: SessionStatus | undefined): DrWord | null {
  if (status === undefined) return null
  const { out_of_touch_ms: outOfTouchMs, torn = false, base_epoch: base } = status
  // A side that does not say which rise was its last is of a release that kept no copy over a stop.
  return { outOfTouchMs, torn, risen: base !== 0 }
}
