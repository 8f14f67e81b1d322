import type { Ownership, OwnershipState } from '#domain/ownership.ts'
import { OWNERSHIP_MOVES } from '#domain/ownership.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { OwnershipRow } from '#control/store/tables/sites.ts'
import type { EndedSession, Report, SessionStatus } from '#wire/site/witness.ts'

/* What two sites' reports say about a record whose history is in doubt. Pure.
 *
 * An agent persists an epoch before it acts under it. So the highest epoch that any of the two sites reports is the
 * newest state anybody acts under, and what the record lost above that was never acted under so far. It may still be on its way to an
 * agent; so the record goes on at an epoch above all of that (`leapOf`), and the sites are told.
 */

/* A record is in doubt for one of two reasons, which its history mark names:
 *
 *   doubt:MARK   the database may have lost its end: no word of any site is missing only when both have reported
 *   ahead:MARK   the database is complete, but a site acts under a higher epoch: after break-glass. It presents its record itself
 *                (`promoted`), which settles it; until then nothing is granted
 *
 * A site that goes on unwitnessed by static priority, or whose presented record the database has lost again, presents nothing: it asks under
 * an epoch that the witness does not know, and is refused. Its word is all that there will be (`goesOnAlone`).
 */

/** What each site said since the doubt began, by site. */
export type Heard = Readonly<Record<string, HeardStatus>>

export interface HeardStatus {
  /** 0: the site does not know the session. */
  readonly epoch: number
  readonly state: string
  readonly role: SessionStatus['role'] | null
  /** It acts without the witness's word. */
  readonly unwitnessed?: boolean
  /** It presents its record itself (`promoted`). Left out by a site that does not say. */
  readonly presents?: boolean
  /** How the record that it acts under is arbitrated: the one that was lost may have been another. */
  readonly arbitration?: Pick<Ownership, 'mode' | 'preferred'>
}

export const trusted = (row: Pick<OwnershipRow, 'history_mark'>, mark: string): boolean =>
  row.history_mark === mark

/** What the mark of a record says while it collects the sites' words under the database's present mark. */
export const doubtOf = (mark: string): string => `doubt:${mark}`

/** The same when the database's own history is complete. */
export const aheadOf = (mark: string): string => `ahead:${mark}`

/** The mark of a record that is brought, or stays, in doubt under the database's present mark. */
export const nextDoubt = (row: Pick<OwnershipRow, 'history_mark'>, mark: string): string =>
  trusted(row, mark) || row.history_mark === aheadOf(mark) ? aheadOf(mark) : doubtOf(mark)

/**
 * Whether what a site says may count. Where the database may have lost its end, words from before the doubt prove nothing: they may have
 * been on their way, and the site have followed what was lost since. `said`: the mark that the report repeats.
 */
export const provesNow = (
  row: Pick<OwnershipRow, 'history_mark'>,
  mark: string,
  said: string | undefined,
): boolean => nextDoubt(row, mark) !== doubtOf(mark) || said === mark

/** Whether the report says what its site knows of the session: even if that is nothing. */
export function speaksOf(report: SessionWords, session: string): boolean {
  const { sessions, ended_after: after, ended_up_to: upTo } = report
  if (sessions.some((status) => status.session === session)) return true
  return (after === undefined || session > after) && (upTo === undefined || session <= upTo)
}

type SessionWords = Pick<Report, 'sessions' | 'ended_after' | 'ended_up_to'>

/** The words that were collected under the present mark; those of an earlier doubt count for nothing. */
export const heardUnder = (row: OwnershipRow, mark: string): string =>
  row.history_mark === doubtOf(mark) || row.history_mark === aheadOf(mark) ? row.heard : '{}'

/** A record just presented by the site that acts under it: nothing higher is known, and the database is complete. */
export function settledBy(record: Ownership, row: OwnershipRow, mark: string): boolean {
  if (row.history_mark !== mark && row.history_mark !== aheadOf(mark)) return false
  const heard = fromJson<Heard>(heardUnder(row, mark))
  return Object.values(heard).every(({ epoch }) => epoch <= record.epoch)
}

export interface DoubtView {
  /** restored: the database may have lost its end · agent_ahead: a site acts under a higher epoch */
  readonly reason: 'restored' | 'agent_ahead'
  /** Sites whose word is awaited. */
  readonly awaits: readonly string[]
  /** Highest epoch that any site has reported; null: none has. */
  readonly reportedEpoch: number | null
}

/** Why nothing is granted for a record; null: it is trusted. */
export function doubtView(row: OwnershipRow, mark: string): DoubtView | null {
  if (trusted(row, mark)) return null
  const heard = fromJson<Heard>(heardUnder(row, mark))
  const epochs = Object.values(heard).map(({ epoch }) => epoch)
  const ahead = Object.entries(heard)
    .filter(([, said]) => presents(said) && said.epoch > row.epoch)
    .map(([site]) => site)
  const silent = [row.writer, row.replica].filter((site) => heard[site] === undefined)
  return {
    reason: row.history_mark === aheadOf(mark) ? 'agent_ahead' : 'restored',
    awaits: ahead.length > 0 ? ahead : silent,
    reportedEpoch: epochs.length === 0 ? null : Math.max(...epochs),
  }
}

/**
 * Adds one site's words. A site that does not know the session has spoken too, and so has one at which it ended: a record
 * restored from before that end must not come to life again, for its writer went on outside of the session.
 */
export function hears(
  heard: Heard,
  site: string,
  status: SessionStatus | undefined,
  ended?: EndedSession,
): Heard {
  const said: HeardStatus =
    status === undefined
      ? {
          epoch: ended?.epoch ?? 0,
          state: 'closed',
          role: ended === undefined ? null : ended.writer === site ? 'writer' : 'fenced',
        }
      : {
          epoch: status.epoch,
          state: status.state,
          role: status.role,
          unwitnessed: status.unwitnessed,
          ...(status.presents === undefined ? {} : { presents: status.presents }),
          ...(status.arbitration === undefined ? {} : { arbitration: status.arbitration }),
        }
  return { ...heard, [site]: said }
}

/**
 * How far the epoch of a record leaps when it is trusted again under `mark`, which is new with every doubt. A lost end of the database
 * may have given out epochs that no site has acted under so far: commands and answers that are still on their way. The next change
 * must not make one of these epochs a second time, with another content. Far more than one record ever changes without any site
 * hearing of it, far less than break-glass adds; and not the same after two restores of one backup.
 */
export function leapOf(mark: string): number {
  let sum = 0
  for (const char of mark) sum = (sum * 31 + char.charCodeAt(0)) % LEAPS
  return LEAP_EPOCHS * (1 + sum)
}

const LEAP_EPOCHS = 100
const LEAPS = 97

export type Adoption =
  | { readonly kind: 'waiting'; readonly heard: string }
  | { readonly kind: 'trusted'; readonly record: Ownership }

/**
 * The record that follows from the stored words and a change of them. `change` returns null when an operator
 * vouches: then whatever was heard has to do, and of two equal claims that of the site that is not `off` counts. `leap`: added to the
 * newest epoch, so that nothing that the lost end of the database gave out is taken for what comes now; 0: no end was lost.
 */
export function adopt(
  record: Ownership,
  stored: string,
  change: (heard: Heard) => Heard | null,
  off?: string,
  leap = 0,
): Adoption {
  const before = fromJson<Heard>(stored)
  const after = change(before)
  const heard = after ?? before
  const complete = heard[record.writer] !== undefined && heard[record.replica] !== undefined
  if (
    after !== null &&
    (!complete || contradictory(record, heard) || presentsItself(record, heard))
  ) {
    return { kind: 'waiting', heard: toJson(heard) }
  }
  const known = goesOnAlone(newest(record, heard, off), heard)
  // What was never opened has given nothing out that a site could take for an opening of another kind.
  const epoch = known.epoch === 0 ? 0 : known.epoch + leap
  return { kind: 'trusted', record: { ...known, epoch } }
}

/** A site that broke the glass says so with its own record, which tells more than its report. */
const presentsItself = (record: Ownership, heard: Heard): boolean =>
  Object.values(heard).some((said) => presents(said) && said.epoch > record.epoch)

const presents = (said: HeardStatus): boolean =>
  said.unwitnessed === true && said.presents !== false

/** Two sites that both claim to write under one epoch: two histories, which only an operator can choose between. */
function contradictory(record: Ownership, heard: Heard): boolean {
  const [one, other] = [heard[record.writer], heard[record.replica]]
  return (
    one?.role === 'writer' &&
    other?.role === 'writer' &&
    one.epoch === other.epoch &&
    one.epoch > record.epoch
  )
}

function newest(record: Ownership, heard: Heard, off: string | undefined): Ownership {
  let result = record
  const sites = [record.writer, record.replica]
  for (const site of off === record.writer ? sites.toReversed() : sites) {
    const said = heard[site]
    if (said === undefined || said.epoch <= result.epoch) continue
    const other = site === record.writer ? record.replica : record.writer
    const writes = said.role === 'writer'
    result = {
      ...record,
      ...said.arbitration,
      epoch: said.epoch,
      state: isState(said.state) ? said.state : record.state,
      writer: writes ? site : other,
      replica: writes ? other : site,
      attempt: `adopted-${said.epoch}`,
      lease: null,
      // What the lost end had said of is over, or goes on: the writer says it with its next renewal, and until then it is not known. Figures of another
      // time would never be taken back (`more` in domain/ownership.ts), and be given up by a failover that gives up nothing.
      alone: null,
    }
  }
  return result
}

/**
 * In sync that is no more: its writer has gone on alone without the witness's word, and the other site lacks what it has answered since. Both
 * know this epoch as one in sync, so it is the next one that says so. A writer that hears of it goes on where it is, under a lease.
 */
function goesOnAlone(record: Ownership, heard: Heard): Ownership {
  const said = heard[record.writer]
  const alone = said?.unwitnessed === true && said.role === 'writer' && said.epoch === record.epoch
  if (record.state !== 'in_sync' || !alone) return record
  const epoch = record.epoch + 1
  return { ...record, epoch, state: 'solo', attempt: `adopted-${epoch}`, lease: null, alone: null }
}

const STATES = new Set<string>(['closed', ...Object.values(OWNERSHIP_MOVES).flat(), 'failed_over'])
const isState = (state: string): state is OwnershipState => STATES.has(state)
