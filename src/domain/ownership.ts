import { assert, unreachable } from '#base/assert.ts'

/**
 * The ownership record: the witness's truth about one replicated group, and the rules that change it.
 *
 * Every change of state raises the epoch by one. A record is changed only by compare-and-set: the request
 * names the epoch it was made under, and carries an attempt id. Repeating the attempt that made the last
 * change returns the same answer, so that a reply lost on the network or in a crash changes nothing.
 *
 *     closed ──open──► resyncing ──rise──► in_sync ──reverse──► in_sync (writer and replica swapped)
 *       ▲               ▲  ▲  ▲            ▲ │ │ │
 *       │               │  │  └────drop────┼─┘ │ └──failover──► failed_over
 *       │               │  │               │  solo                  │
 *       │               │  └───resync───┐  │   │                    │
 *       │               │              solo ◄──┘                    │
 *       │               │               └──rise──► in_sync          │
 *       │               └───────────────reprotect───────────────────┘
 *       │     any but closed ──freeze──► frozen ──thaw──► solo
 *       │                                   └──failover──► failed_over
 *       └──close── (from any)
 *
 * Invariants:
 * - In `in_sync` nobody holds a lease: the writer cannot acknowledge without the replica.
 * - In `resyncing`, `solo` and `failed_over` the writer acknowledges alone and therefore holds a lease. A
 *   different writer needs that lease ended, or its holder's consent.
 * - A change of state that the writer has not asked for itself, or been told of, does not end its lease: it goes on under
 *   what it knows until then. So a lease lives on in `frozen`, through a thaw, and even through a close and the next open.
 * - `frozen` acknowledges nowhere once its writer has heard of it; until then the lease that it had may run on, and is not
 *   renewed. A writer that has persisted the frozen record has consented to whatever comes next.
 * - In mode `static-priority` the preferred site may write alone without the witness's word, so nobody but an operator who
 *   states that it is off, or that site itself, takes the right to write from it.
 * - After break-glass an agent presents a record of an epoch that no witness reached; the higher epoch wins.
 * - A request that its sender has given up can still arrive later. A writer that asked for `rise` therefore goes on
 *   asking with the same attempt until a higher epoch answers, and acknowledges nothing alone before that.
 * Whoever stores the record persists it before answering.
 */
export interface Ownership {
  /** The group's opaque session id. */
  readonly session: string
  /** 1 at the first `open`; raised by one with every change of state. */
  readonly epoch: number
  readonly state: OwnershipState
  /** The site that may write (last did, in `closed`), and the other one. */
  readonly writer: string
  readonly replica: string
  readonly lease: Lease | null
  /** What the writer has done alone since the sites lost each other, as it last said; null: nothing that the other side lacks. */
  readonly alone: AloneWork | null
  readonly mode: 'witness' | 'static-priority'
  readonly preferred: string
  /** Incarnation of the database under which the record was last changed. */
  readonly incarnation: string
  /** Attempt id of the last change, for repeats. */
  readonly attempt: string
}

export type OwnershipState = 'closed' | 'resyncing' | 'in_sync' | 'solo' | 'frozen' | 'failed_over'

/** At least so much is given up by a failover by force. */
export interface AloneWork {
  readonly sequence: number
  /** Payload bytes. */
  readonly bytes: number
  /** Wall clock of the writer, ms. */
  readonly since: number
}

export interface Lease {
  readonly holder: string
  /** CLOCK_BOOTTIME of the witness's host when the lease ends, milliseconds. */
  readonly endsBootMs: number
}

/** States in which the writer acknowledges without its peer, under a lease. */
export const ALONE: ReadonlySet<OwnershipState> = new Set(['resyncing', 'solo', 'failed_over'])

/** Every legal change of state. The documented table and the simulator's coverage are printed from it. */
export const OWNERSHIP_MOVES: Record<ChangeKind, readonly OwnershipState[]> = {
  open: ['closed'],
  rise: ['resyncing', 'solo'],
  drop: ['in_sync'],
  solo: ['in_sync'],
  resync: ['solo'],
  configure: ['in_sync'],
  reverse: ['in_sync'],
  freeze: ['in_sync', 'resyncing', 'solo', 'failed_over'],
  thaw: ['frozen'],
  failover: ['in_sync', 'resyncing', 'solo', 'frozen'],
  reprotect: ['failed_over', 'solo'],
  close: ['in_sync', 'resyncing', 'solo', 'failed_over', 'frozen'],
}

export type ChangeKind =
  | 'open'
  | 'rise'
  | 'drop'
  | 'solo'
  | 'resync'
  | 'configure'
  | 'reverse'
  | 'freeze'
  | 'thaw'
  | 'failover'
  | 'reprotect'
  | 'close'

export type OwnershipRequest =
  /** Reads the record; an agent asks after every start and while it hears nothing from its peer. */
  | { readonly kind: 'confirm'; readonly site: string }
  /** Extends or takes the lease of the recorded writer in a state where it acknowledges alone. */
  | {
      readonly kind: 'renew'
      readonly site: string
      readonly epoch: number
      readonly alone?: AloneWork | undefined
    }
  /** By the writer: the replica holds everything durably, and the writer has stopped acknowledging alone. */
  | {
      readonly kind: 'rise'
      readonly site: string
      readonly epoch: number
      readonly attempt: string
    }
  /** By the writer: the replica came back without its unsynced writes and must be brought up again. */
  | {
      readonly kind: 'drop'
      readonly site: string
      readonly epoch: number
      readonly attempt: string
    }
  /** By the writer: the link is lost, and it wants to go on alone. */
  | {
      readonly kind: 'solo'
      readonly site: string
      readonly epoch: number
      readonly attempt: string
    }
  /** By the writer: the link is back, but the replica can only be brought up by a block resync. */
  | {
      readonly kind: 'resync'
      readonly site: string
      readonly epoch: number
      readonly attempt: string
    }
  /** By the writer, on an operator's word, after it has made the stricter of both modes its own. */
  | {
      readonly kind: 'configure'
      readonly site: string
      readonly epoch: number
      readonly attempt: string
      readonly mode: Ownership['mode']
      readonly preferred: string
    }
  /** By an agent after break-glass: it has been writing under this record without the witness. */
  | {
      readonly kind: 'promoted'
      readonly site: string
      readonly attempt: string
      readonly record: Pick<Ownership, 'epoch' | 'writer' | 'replica' | 'mode' | 'preferred'>
      /** Epoch of the newest record that it had been shown before; left out: it does not say. */
      readonly known?: number | undefined
    }
  /** By an operation, before a failover by force: nobody is to acknowledge; the lease is not renewed any more. */
  | { readonly kind: 'freeze'; readonly epoch: number; readonly attempt: string }
  /** By an operation: the writer of a frozen group goes on alone after all. */
  | { readonly kind: 'thaw'; readonly epoch: number; readonly attempt: string }
  /** By an operation: the other site becomes the writer; both hold everything, the old one has drained. */
  | { readonly kind: 'reverse'; readonly epoch: number; readonly attempt: string }
  /**
   * By an operation: the replica becomes the writer and replication stops. `force` accepts that a replica that
   * is not in sync lacks writes. `consent` states that the old writer has itself given up this epoch. `preferredOff` is the
   * operator's statement that the preferred site of a static-priority group is off.
   */
  | {
      readonly kind: 'failover'
      readonly epoch: number
      readonly attempt: string
      readonly force: boolean
      readonly consent: boolean
      readonly preferredOff?: boolean
    }
  /** By an operation: replicate from the present writer to the other site again. */
  | { readonly kind: 'reprotect'; readonly epoch: number; readonly attempt: string }
  /** By an operation: start replicating from `writer`. */
  | {
      readonly kind: 'open'
      readonly epoch: number
      readonly attempt: string
      readonly writer: string
      readonly replica: string
      /** Default: as the record says. */
      readonly mode?: Ownership['mode']
      /** Default: as the record says; the writer at the first time. One of the two. */
      readonly preferred?: string
    }
  /** By an operation: stop replicating. The old writer keeps its volumes as plain ones. */
  | { readonly kind: 'close'; readonly epoch: number; readonly attempt: string }

export type Refusal =
  /**
   * The epoch named is not the record's: another change happened. A site that the record still names as
   * writer adopts the record; for any other site it is final and it demotes.
   */
  | 'STALE_EPOCH'
  /** The site is not the recorded writer. Final: it demotes. */
  | 'NOT_WRITER'
  /** The move is not legal from this state. */
  | 'WRONG_STATE'
  /** The present writer's lease has not ended; ask again after `retryAfterMs`. */
  | 'LEASE_HELD'
  /** The replica is not in sync, and `force` was not given. */
  | 'NOT_IN_SYNC'
  /** The preferred site of a static-priority group may be writing without the witness: `preferredOff` was not stated. */
  | 'PREFERRED_MAY_RUN'
  /** The witness started without proof of its history and waits; ask again after `retryAfterMs`. */
  | 'WITNESS_WAITING'

export type OwnershipAnswer =
  | { readonly ok: true; readonly record: Ownership; readonly leaseMs: number | null }
  | {
      readonly ok: false
      readonly refusal: Refusal
      readonly record: Ownership
      readonly retryAfterMs: number | null
    }

export interface WitnessTime {
  /** CLOCK_BOOTTIME of the witness now, milliseconds. */
  readonly bootMs: number
  /** Nothing may be granted to a different writer before this CLOCK_BOOTTIME (0: no wait in force). */
  readonly waitUntilBootMs: number
  /** False until both agents have reported after a restored or foreign database (or an override). */
  readonly historyTrusted: boolean
  /** The lease to grant, milliseconds. */
  readonly leaseMs: number
  /** Added when the witness judges that a lease has ended: bounds the drift of two clocks over one lease. */
  readonly driftMs: number
  readonly incarnation: string
}

/** The record of a group that was never opened. Its first `open` makes epoch 1. */
export function closedRecord(
  session: string,
  writer: string,
  replica: string,
  incarnation: string,
): Ownership {
  return {
    session,
    epoch: 0,
    state: 'closed',
    writer,
    replica,
    lease: null,
    alone: null,
    mode: 'witness',
    preferred: writer,
    incarnation,
    attempt: '',
  }
}

/** Decides; does nothing. The caller persists `answer.record` if it is not the one it passed in, then answers. */
export function decideOwnership(
  record: Ownership,
  request: OwnershipRequest,
  time: WitnessTime,
): OwnershipAnswer {
  if (request.kind === 'confirm') return yes(record, null)
  if (request.kind === 'renew') return renew(record, request, time)
  if (request.kind === 'promoted') return promoted(record, request, time)
  if (request.attempt === record.attempt) return yes(record, null)
  if (request.epoch !== record.epoch) return no(record, 'STALE_EPOCH')
  if ('site' in request && request.site !== record.writer) return no(record, 'NOT_WRITER')
  if (!OWNERSHIP_MOVES[request.kind].includes(record.state)) return no(record, 'WRONG_STATE')
  if (!time.historyTrusted) return no(record, 'WITNESS_WAITING', time.leaseMs)
  switch (request.kind) {
    case 'open':
      assert(request.writer !== request.replica, 'a group replicates between two different sites')
      if (record.epoch > 0 && request.writer !== record.writer) return no(record, 'NOT_WRITER')
      assert(
        request.preferred === undefined ||
          request.preferred === request.writer ||
          request.preferred === request.replica,
        'the preferred site is one of the two',
      )
      return change(record, request.attempt, time, {
        state: 'resyncing',
        writer: request.writer,
        replica: request.replica,
        lease: record.lease,
        mode: request.mode ?? record.mode,
        preferred: request.preferred ?? preferredOf(record, request),
      })
    case 'rise':
      return change(record, request.attempt, time, { state: 'in_sync' })
    case 'drop':
      return change(record, request.attempt, time, { state: 'resyncing' })
    case 'solo':
      // The lease comes with the first renewal under the new epoch.
      return change(record, request.attempt, time, { state: 'solo' })
    case 'resync':
      return change(record, request.attempt, time, {
        state: 'resyncing',
        lease: record.lease,
        alone: record.alone,
      })
    case 'configure': {
      const { mode, preferred } = request
      assert(
        preferred === record.writer || preferred === record.replica,
        'the preferred site is one of the two',
      )
      return change(record, request.attempt, time, { state: 'in_sync', mode, preferred })
    }
    case 'freeze':
      return change(record, request.attempt, time, {
        state: 'frozen',
        lease: record.lease,
        alone: record.alone,
      })
    case 'thaw':
      // Its writer may never have heard of the freeze, and still answer under the lease of the time before.
      return change(record, request.attempt, time, {
        state: 'solo',
        lease: record.lease,
        alone: record.alone,
      })
    case 'reverse':
      return change(record, request.attempt, time, {
        state: 'in_sync',
        writer: record.replica,
        replica: record.writer,
      })
    case 'failover': {
      if (record.state !== 'in_sync' && !request.force) return no(record, 'NOT_IN_SYNC')
      const unbounded = record.mode === 'static-priority' && record.writer === record.preferred
      if (unbounded && !request.consent && request.preferredOff !== true) {
        return no(record, 'PREFERRED_MAY_RUN')
      }
      const waitMs = request.consent ? 0 : leaseLeftMs(record, time)
      if (waitMs > 0) return no(record, 'LEASE_HELD', waitMs)
      return change(record, request.attempt, time, {
        state: 'failed_over',
        writer: record.replica,
        replica: record.writer,
      })
    }
    case 'reprotect':
      // The writer goes on acknowledging alone under the lease it has until it learns of the new epoch.
      return change(record, request.attempt, time, {
        state: 'resyncing',
        lease: record.lease,
        alone: record.alone,
      })
    case 'close':
      return change(record, request.attempt, time, { state: 'closed', lease: record.lease })
    default:
      return unreachable(request)
  }
}

/** The preferred site of the time before, if it takes part in the group that is opened now. */
function preferredOf(record: Ownership, { writer, replica }: { writer: string; replica: string }) {
  const { epoch, preferred } = record
  return epoch > 0 && (preferred === writer || preferred === replica) ? preferred : writer
}

/** Milliseconds until the recorded lease has certainly ended, and any wait after a start is over. */
export function leaseLeftMs(record: Ownership, time: WitnessTime): number {
  const leaseEnds = record.lease === null ? 0 : record.lease.endsBootMs + time.driftMs
  // Of a restored database not even `in_sync` says that nobody holds a lease.
  const leaseMayExist = record.state !== 'in_sync'
  const restored = record.incarnation !== time.incarnation
  const waitEnds = leaseMayExist || restored ? time.waitUntilBootMs : 0
  return Math.max(0, Math.ceil(Math.max(leaseEnds, waitEnds) - time.bootMs))
}

function renew(
  record: Ownership,
  request: Extract<OwnershipRequest, { kind: 'renew' }>,
  time: WitnessTime,
): OwnershipAnswer {
  if (request.epoch !== record.epoch) return no(record, 'STALE_EPOCH')
  if (request.site !== record.writer) return no(record, 'NOT_WRITER')
  if (!ALONE.has(record.state)) return no(record, 'WRONG_STATE')
  if (!time.historyTrusted) return no(record, 'WITNESS_WAITING', time.leaseMs)
  assert(
    record.lease === null || record.lease.holder === record.writer,
    'only the recorded writer ever holds the lease',
  )
  const lease = { holder: record.writer, endsBootMs: time.bootMs + time.leaseMs }
  return yes({ ...record, lease, alone: more(record.alone, request.alone ?? null) }, time.leaseMs)
}

/** The larger of two statements about work done alone: one that lost count in a restart takes nothing back. */
function more(known: AloneWork | null, told: AloneWork | null): AloneWork | null {
  if (known === null || told === null) return known ?? told
  return {
    sequence: Math.max(known.sequence, told.sequence),
    bytes: Math.max(known.bytes, told.bytes),
    since: Math.min(known.since, told.since),
  }
}

/** The higher epoch wins, whatever the witness decided meanwhile: the operator who forced it knows more than the record. */
function promoted(
  record: Ownership,
  request: Extract<OwnershipRequest, { kind: 'promoted' }>,
  time: WitnessTime,
): OwnershipAnswer {
  const { site, attempt } = request
  const { epoch, writer, replica } = request.record
  if (attempt === record.attempt) return yes(record, null)
  const sites = new Set([record.writer, record.replica])
  if (writer !== site || writer === replica || !sites.has(writer) || !sites.has(replica)) {
    return no(record, 'NOT_WRITER')
  }
  // Taken over from reports already, when somebody vouched for it.
  if (epoch === record.epoch && writer === record.writer) return yes(record, null)
  if (epoch <= record.epoch) return no(record, 'STALE_EPOCH')
  const lease = record.lease?.holder === writer ? record.lease : null
  const arbitration = presented(record, request)
  const to = { state: 'failed_over', writer, replica, lease, ...arbitration } as const
  const next = change(record, attempt, time, to)
  return yes({ ...next.record, epoch }, null)
}

/**
 * How the presented record is arbitrated, where the site knew a newer record than this database holds: it was restored from before that, and a change of
 * the arbitration may be lost with its end. A site that had missed such a change knows an older one.
 */
function presented(
  known: Ownership,
  request: Extract<OwnershipRequest, { kind: 'promoted' }>,
): Partial<Pick<Ownership, 'mode' | 'preferred'>> {
  const { mode, preferred } = request.record
  const newer = request.known !== undefined && request.known > known.epoch
  return newer && (preferred === known.writer || preferred === known.replica)
    ? { mode, preferred }
    : {}
}

function change(
  record: Ownership,
  attempt: string,
  time: WitnessTime,
  to: Partial<
    Pick<Ownership, 'state' | 'writer' | 'replica' | 'mode' | 'preferred' | 'lease' | 'alone'>
  >,
): OwnershipAnswer {
  const next: Ownership = {
    ...record,
    lease: null,
    alone: null,
    ...to,
    epoch: record.epoch + 1,
    incarnation: time.incarnation,
    attempt,
  }
  assert(next.writer !== next.replica, 'writer and replica are different sites')
  return yes(next, null)
}

function yes(record: Ownership, leaseMs: number | null): OwnershipAnswer {
  return { ok: true, record, leaseMs }
}

function no(
  record: Ownership,
  refusal: Refusal,
  retryAfterMs: number | null = null,
): OwnershipAnswer {
  return { ok: false, refusal, record, retryAfterMs }
}
