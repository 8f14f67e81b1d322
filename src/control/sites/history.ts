import type { Ownership, OwnershipState } from '#domain/ownership.ts'
import { OWNERSHIP_MOVES } from '#domain/ownership.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { OwnershipRow } from '#control/store/tables/sites.ts'
import type { SessionStatus } from '#wire/site/witness.ts'

/* What two sites' reports say about a record whose history is in doubt. Pure.
 *
 * An agent persists an epoch before it acts under it. So the highest epoch that any of the two sites reports is the
 * newest state anybody acts under, and what the record lost above that was never acted under.
 */

/** What each site said since the doubt began, by site. */
export type Heard = Readonly<Record<string, HeardStatus>>

export interface HeardStatus {
  /** 0: the site does not know the session. */
  readonly epoch: number
  readonly state: string
  readonly role: SessionStatus['role'] | null
}

export const trusted = (row: Pick<OwnershipRow, 'history_mark'>, mark: string): boolean =>
  row.history_mark === mark

/** What the mark of a record says while it collects the sites' words under the database's present mark. */
export const doubtOf = (mark: string): string => `doubt:${mark}`

/** Adds one site's words. A site that does not know the session has spoken too. */
export function hears(heard: Heard, site: string, status: SessionStatus | undefined): Heard {
  const said: HeardStatus =
    status === undefined
      ? { epoch: 0, state: 'closed', role: null }
      : { epoch: status.epoch, state: status.state, role: status.role }
  return { ...heard, [site]: said }
}

export type Adoption =
  | { readonly kind: 'waiting'; readonly heard: string }
  | { readonly kind: 'trusted'; readonly record: Ownership }

/**
 * The record that follows from the stored words and a change of them. `change` returns null when an operator
 * vouches: then whatever was heard has to do.
 */
export function adopt(
  record: Ownership,
  stored: string,
  change: (heard: Heard) => Heard | null,
): Adoption {
  const before = fromJson<Heard>(stored)
  const after = change(before)
  const heard = after ?? before
  const complete = heard[record.writer] !== undefined && heard[record.replica] !== undefined
  if (after !== null && (!complete || contradictory(record, heard))) {
    return { kind: 'waiting', heard: toJson(heard) }
  }
  return { kind: 'trusted', record: newest(record, heard) }
}

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

function newest(record: Ownership, heard: Heard): Ownership {
  let result = record
  for (const site of [record.writer, record.replica]) {
    const said = heard[site]
    if (said === undefined || said.epoch <= result.epoch) continue
    const other = site === record.writer ? record.replica : record.writer
    const writes = said.role === 'writer'
    result = {
      ...record,
      epoch: said.epoch,
      state: isState(said.state) ? said.state : record.state,
      writer: writes ? site : other,
      replica: writes ? other : site,
      attempt: `adopted-${said.epoch}`,
      lease: null,
    }
  }
  return result
}

const STATES = new Set<string>(['closed', ...Object.values(OWNERSHIP_MOVES).flat(), 'failed_over'])
const isState = (state: string): state is OwnershipState => STATES.has(state)
