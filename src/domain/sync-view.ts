import type { Ownership } from './ownership.ts'
import type { GroupSyncFact } from './protection-group.ts'

/**
 * What may be said about a group's replication, from the witness's record and what the two sites last reported.
 *
 * The rule behind every line: *in sync* is claimed only when the record says so, the production site was heard a
 * moment ago, speaks about this very epoch, and hears its peer. Anything older or different is "not known to be in
 * sync", which the API calls inactive. The age of the knowledge travels with it.
 */
export interface SideView {
  /** Milliseconds since the site's agent last reported; null: never. */
  readonly ageMs: number | null
  /** What the agent said about this session; null: it does not run it. */
  readonly session: SessionView | null
}

export interface SessionView {
  readonly epoch: number
  readonly link: 'up' | 'down'
  /** By the writer's word: the replica that is linked can hold no copy now, its disk has failed or is full. */
  readonly replicaUnfit: boolean
  /** Acknowledgements have been held for so long; null: they flow. */
  readonly heldMs: number | null
  /** 0-100 of the copy under way. */
  readonly progress: number
  readonly members: readonly MemberView[]
}

export interface MemberView {
  readonly pair: string
  readonly joined: boolean
  readonly copiedBytes: number
  readonly sizeBytes: number
}

export interface SyncInput {
  /** null: no replication was ever started. */
  readonly record: Pick<Ownership, 'epoch' | 'state' | 'writer' | 'replica'> | null
  /** Pairs that belong to the session, and the epoch under which each was added to it. */
  readonly members: readonly { readonly pair: string; readonly addedEpoch: number }[]
  readonly sides: ReadonlyMap<string, SideView>
  /** Site that is production now. */
  readonly production: string
  /** A report older than this says nothing about the present. */
  readonly silenceMs: number
}

/** active: in sync · copying · inactive: not known to be in sync · active-stopped: ended on purpose */
export type ReplicationStatus = 'active' | 'inactive' | 'copying' | 'active-stopped'

export interface PairSync {
  readonly status: ReplicationStatus
  /** 0-100, 100 only in sync; null: nothing is under way or known, so the last stored figure holds. */
  readonly progress: number | null
}

export interface SyncView {
  readonly fact: GroupSyncFact
  /** "0" fine · "2" production cannot be read or written, fail over · "5" nothing reaches a copy at the DR side, do not fail over */
  readonly faultLevel: '0' | '2' | '5'
  readonly productionHeard: boolean
  /** Milliseconds since the writer last reported; null: never. */
  readonly ageMs: number | null
  readonly pairs: ReadonlyMap<string, PairSync>
}

/** Derived; asks nobody. */
export function viewSync(input: SyncInput): SyncView {
  const { record } = input
  const heard = (side: SideView | undefined): side is SideView =>
    side !== undefined && side.ageMs !== null && side.ageMs <= input.silenceMs
  const productionHeard = heard(input.sides.get(input.production))
  const ageOf = (site: string) => input.sides.get(site)?.ageMs ?? null
  const every = (sync: PairSync) => new Map(input.members.map(({ pair }) => [pair, sync]))

  if (record === null || record.state === 'closed' || record.state === 'failed_over') {
    const begun = record !== null && record.epoch > 0
    return {
      fact: 'idle',
      faultLevel: record?.state === 'failed_over' && !productionHeard ? '2' : '0',
      productionHeard,
      ageMs: ageOf(input.production),
      pairs: every({ status: begun ? 'active-stopped' : 'inactive', progress: null }),
    }
  }

  const writer = input.sides.get(record.writer)
  const told = heard(writer) && writer.session?.epoch === record.epoch ? writer.session : null
  const linkUp = told !== null && reachesCopy(told)
  const pairs = new Map(
    input.members.map((member) => [member.pair, viewMember(record, member, told)]),
  )
  const copying = [...pairs.values()].some(({ status }) => status === 'copying')
  const allJoined = input.members.every((member) => isJoined(record, member, told))
  return {
    fact: fact(),
    // Under a frozen record no site may write, alive or not.
    faultLevel: !productionHeard || record.state === 'frozen' ? '2' : linkLost() ? '5' : '0',
    productionHeard,
    ageMs: ageOf(record.writer),
    pairs,
  }

  /** By the production site's own words; and a record of going on alone stands for them until it has spoken under it. */
  function linkLost(): boolean {
    return told === null ? record?.state === 'solo' : !reachesCopy(told)
  }

  function fact(): GroupSyncFact {
    if (record?.state !== 'in_sync' || !allJoined) return copying ? 'copying' : 'stalled'
    if (linkUp) return 'in_sync'
    if (!productionHeard) return 'production_silent'
    return told === null ? 'settling' : 'link_down'
  }
}

/**
 * Every rise proves that all members were copied. A pair that was added to a group already in sync is proved by the
 * writer's report instead, until the next rise.
 */
function isJoined(
  record: { readonly epoch: number; readonly state: string },
  member: { readonly pair: string; readonly addedEpoch: number },
  told: SessionView | null,
): boolean {
  if (record.state !== 'in_sync') return false
  if (record.epoch > member.addedEpoch) return true
  return told?.members.some((one) => one.pair === member.pair && one.joined) ?? false
}

function viewMember(
  record: { readonly epoch: number; readonly state: string },
  member: { readonly pair: string; readonly addedEpoch: number },
  told: SessionView | null,
): PairSync {
  // Equal once, not known to be equal now: the highest figure that does not claim it.
  if (told === null) {
    return { status: 'inactive', progress: isJoined(record, member, null) ? 99 : null }
  }
  const reported = told.members.find((one) => one.pair === member.pair)
  const joined = isJoined(record, member, told)
  if (!reachesCopy(told)) return { status: 'inactive', progress: joined ? 99 : part() }
  if (joined) return { status: 'active', progress: 100 }
  // A frozen record is about to change; nothing is copied under it. Under `solo` the DR side catches up in order.
  if (record.state === 'frozen') return { status: 'inactive', progress: null }
  return { status: 'copying', progress: part() }

  /** 100 is kept for "in sync": a finished copy that has not risen yet shows 99. */
  function part(): number {
    if (reported === undefined || reported.sizeBytes <= 0) return clamp(told?.progress ?? 0)
    if (reported.joined) return clamp(told?.progress ?? 0)
    return clamp((reported.copiedBytes * 100) / reported.sizeBytes)
  }
}

const reachesCopy = ({ link, replicaUnfit }: SessionView): boolean => link === 'up' && !replicaUnfit

const clamp = (percent: number): number => Math.max(0, Math.min(99, Math.floor(percent)))
