import { assert } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { Fault, fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { doubtHistory, readMeta } from '#control/store/meta.ts'
import type { Store, Transaction } from '#control/store/store.ts'
import {
  closedRecord,
  decideOwnership,
  type Ownership,
  type OwnershipAnswer,
  type OwnershipRequest,
} from '#domain/ownership.ts'
import type { Report } from '#wire/site/witness.ts'
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
  speaksOf,
  trusted,
} from './history.ts'
import { Listening } from './listening.ts'
import {
  findRecord,
  foreignLeases,
  type LeaseReader,
  recordsDoubtedAt,
  recordsOf,
  saveRecord,
  toRecord,
} from './records.ts'

/** Keeps the ownership records and answers for them. */
export interface Witness {
  /** The record as it stands, or null for a session that was never registered. */
  record(session: string): Promise<Ownership | null>
  /** Registers a session in state closed, epoch 0. Again with the same sites: no change. Default arbitration: the witness's. */
  register(
    tx: Transaction,
    session: string,
    writer: string,
    replica: string,
    arbitration?: Arbitration,
  ): Promise<void>
  /** Forgets a closed session. Its history of changes stays. */
  forget(tx: Transaction, session: string): Promise<void>
  /** Decides, persists and only then answers. Null: unknown session. Repeating an attempt gives the same answer. */
  ask(session: string, request: OwnershipRequest, askedBy: string): Promise<OwnershipAnswer | null>
  /**
   * `ask` for operations: returns the new record or throws OWNERSHIP_REFUSED (never worth repeating) or
   * OWNERSHIP_WAIT (lease held, history not yet trusted; carries `retryAfterMs`).
   */
  change(session: string, request: OwnershipRequest, askedBy: string): Promise<Ownership>
  /** An operator vouches that the record is complete although `siteOff` has not reported. */
  trust(session: string, askedBy: string, siteOff?: string): Promise<void>
  /**
   * How a session that is closed shall be arbitrated when it is opened. Nobody acts under a closed record, so its epoch stays. Throws
   * OWNERSHIP_UNKNOWN, and OWNERSHIP_REFUSED for a session that is open: its writer has to ask.
   */
  arrange(session: string, arbitration: Arbitration, askedBy: string): Promise<Ownership>
  /**
   * Takes what a site says about its sessions: proof, or doubt, of the records' completeness. Returns the mark of the database's
   * history, for the answer: a report that does not repeat it may be of a time before the doubt, and proves nothing.
   */
  heard(report: Report): Promise<string>
  /**
   * Looks at the leases that were granted under other boot ids: they count from the first look. At the start, and again
   * and again where other control planes grant leases too.
   */
  watchLeases(): Promise<void>
}

export type Arbitration = Pick<Ownership, 'mode' | 'preferred'>

/* The witness. The rules are pure (domain/ownership.ts); this file makes them durable and gives them time and trust.
 *
 * One transaction reads the record, decides, and stores what was decided, the attempt with it; only after its commit the answer
 * leaves. Transactions are serialisable, so of two requests made under one epoch one sees the other's change.
 *
 * TIME. A lease's end is a reading of CLOCK_BOOTTIME on the host that granted it, stored with that host's boot id. Under the
 * same boot id it is compared as it is, also by a restarted control plane. A lease granted under another boot id (the host
 * was restarted, or another control plane on a shared database granted it) cannot be compared; it counts as granted in the moment in
 * which this process first saw it. The end is taken before the commit, yet after the request came in, and the holder
 * counts from before it sent the request: so the holder always ends first.
 *
 * TRUST. A database that lost its end could grant a second writer. Whatever casts doubt on it (store/meta.ts) changes the
 * history mark, and a record whose own mark differs is not trusted: nothing is granted for it until both its sites
 * have reported since, or an operator vouches for it. The reports show the highest epoch that anybody acts under; the record
 * becomes that. Leases granted by the lost end are unknown: with the trust a record gets a lease that began when this
 * process first met the doubt. A record becomes doubtful alone when a site reports an epoch above it: after break-glass. That site
 * presents its record (`promoted`), which settles the doubt if nobody is known to be further still (history.ts). A witness that was not there, or was
 * cut off, knows of no such site before it has reported: see listening.ts.
 */

export interface WitnessOptions {
  readonly store: Store
  readonly clock: Clock
  readonly log: Log
  /** Of this host: names the CLOCK_BOOTTIME that readings belong to. */
  readonly bootId: string
  readonly leaseMs: number
  readonly driftMs: number
  /**
   * How long a site that is heard again is not let alone without a report of its peer: after break-glass that one is ahead of the record, and says
   * so with its first. Default 0.
   */
  readonly reportGraceMs?: number
}

/** What lets a site acknowledge without the other. */
const letsAlone = (
  request: OwnershipRequest,
): request is Extract<OwnershipRequest, { kind: 'solo' | 'renew' }> =>
  request.kind === 'solo' || request.kind === 'renew'

const STORE_DOUBT_RETRY_MS = 500

export const OWNERSHIP_REFUSED = fault({
  code: 'OWNERSHIP_REFUSED',
  retry: 'never',
  text: 'The witness refused the change.',
  hint: 'Look at the state of the group; another change came first, or a side is not in sync.',
})
export const OWNERSHIP_WAIT = fault({
  code: 'OWNERSHIP_WAIT',
  retry: 'later',
  text: 'The witness cannot grant the change yet.',
  hint: 'It waits for the lease of the writing side to end or, after a doubtful start, for reports of both sites.',
})
export const OWNERSHIP_UNKNOWN = fault({
  code: 'OWNERSHIP_UNKNOWN',
  retry: 'never',
  text: 'The witness has no record of the session.',
  hint: 'The group was deleted, or the state was restored from before it was made.',
})
export const OWNERSHIP_OPEN = fault({
  code: 'OWNERSHIP_OPEN',
  retry: 'never',
  text: 'The session is not closed.',
  hint: 'Stop its protection first.',
})

export function createWitness(options: WitnessOptions): Witness {
  const { store, clock, log, bootId, leaseMs, driftMs } = options
  /** Foreign leases by session: when this process first saw the grant with this serial. */
  const foreignSeen = new Map<string, { serial: number; seenBootMs: number }>()
  /** History marks: when this process first met them. */
  const marksMet = new Map<string, number>()
  /** Identity that the database took on and whose doubt is not stored yet. */
  let newIdentity: string | null = null
  const listening = new Listening({ graceMs: options.reportGraceMs ?? 0, awayMs: leaseMs })

  store.onIdentityChange((identity) => {
    log.error(
      { identity },
      'the state database answers under another identity: a standby took over',
    )
    newIdentity = identity
    storeDoubt(identity)
  })

  /** Until it succeeds: before that nothing is granted. */
  function storeDoubt(identity: string): void {
    doubtHistory(store, identity).then(
      () => {
        if (newIdentity === identity) newIdentity = null
      },
      (error: unknown) => {
        log.error({ err: error }, 'the doubt could not be stored; it is tried again')
        clock.after(STORE_DOUBT_RETRY_MS, () => {
          if (newIdentity === identity) storeDoubt(identity)
        })
      },
    )
  }

  const readLease: LeaseReader = (row) => {
    if (row.lease_holder === null) return null
    assert(row.lease_ends_boot_ms !== null, 'a lease has an end')
    if (row.lease_boot_id === bootId) {
      return { holder: row.lease_holder, endsBootMs: row.lease_ends_boot_ms }
    }
    const seen = foreignSeen.get(row.session)
    const seenBootMs = seen?.serial === row.serial ? seen.seenBootMs : clock.bootMs()
    foreignSeen.set(row.session, { serial: row.serial, seenBootMs })
    return { holder: row.lease_holder, endsBootMs: seenBootMs + (row.lease_ms ?? leaseMs) }
  }

  /** When this process met the doubt that a new mark stands for. */
  const metBootMs = (mark: string): number => {
    const met = marksMet.get(mark) ?? clock.bootMs()
    marksMet.set(mark, met)
    return met
  }

  const refuseWhileDoubtful = () => {
    if (newIdentity === null) return
    throw new Fault(OWNERSHIP_WAIT, 'deciding on a database that changed its identity', {
      retryAfterMs: STORE_DOUBT_RETRY_MS,
    })
  }

  async function record(session: string): Promise<Ownership | null> {
    const row = await findRecord(store.db, session)
    return row === undefined ? null : toRecord(row, readLease)
  }

  async function ask(
    session: string,
    request: OwnershipRequest,
    askedBy: string,
  ): Promise<OwnershipAnswer | null> {
    if (request.kind === 'confirm') {
      const known = await record(session)
      return known === null ? null : { ok: true, record: known, leaseMs: null }
    }
    const answer = await store.write(async (tx) => {
      refuseWhileDoubtful()
      const row = await findRecord(tx, session)
      if (row === undefined) return null
      const meta = await readMeta(tx)
      const before = toRecord(row, readLease)
      const decided = decideOwnership(before, request, {
        bootMs: clock.bootMs(),
        waitUntilBootMs: 0,
        historyTrusted:
          trusted(row, meta.history_mark) && (!letsAlone(request) || isInformed(row, request.site)),
        leaseMs,
        driftMs,
        incarnation: meta.incarnation,
      })
      if (decided.ok && decided.record !== before) {
        const mark = meta.history_mark
        const settles = request.kind === 'promoted' && settledBy(decided.record, row, mark)
        await saveRecord(tx, row, decided.record, {
          kind: request.kind,
          askedBy,
          bootId,
          leaseMs,
          at: clock.wallMs(),
          ...(settles ? { historyMark: mark, heard: '{}' } : {}),
        })
      }
      return decided
    })
    if (answer !== null && request.kind !== 'renew') {
      const { epoch, state, writer } = answer.record
      const refusal = answer.ok ? undefined : answer.refusal
      log.info({ session, request, askedBy, epoch, state, writer, refusal }, 'ownership decided')
    }
    return answer
  }

  const isInformed = ({ writer, replica }: { writer: string; replica: string }, site: string) =>
    listening.informed(site, site === writer ? replica : writer, clock.bootMs())

  async function restoreTrust(
    tx: Transaction,
    session: string,
    change: (heard: Heard) => Heard | null,
    askedBy: string,
    siteOff?: string,
  ): Promise<void> {
    const row = await findRecord(tx, session)
    if (row === undefined) return
    const meta = await readMeta(tx)
    const before = toRecord(row, readLease)
    const base = { askedBy, bootId, leaseMs, at: clock.wallMs() }
    const doubt = nextDoubt(row, meta.history_mark)
    const mark = meta.history_mark
    const leap = doubt === doubtOf(mark) ? leapOf(mark) : 0
    const result = adopt(before, heardUnder(row, mark), change, siteOff, leap)
    if (result.kind === 'waiting') {
      if (row.history_mark === doubt && row.heard === result.heard) return
      log.warn({ session, record: before, heard: result.heard }, 'an ownership record is in doubt')
      const waiting = { ...base, kind: 'doubt', historyMark: doubt, heard: result.heard }
      await saveRecord(tx, row, before, waiting)
      return
    }
    const lease = {
      holder: result.record.writer,
      endsBootMs: metBootMs(meta.history_mark) + leaseMs,
    }
    const record = { ...result.record, lease, incarnation: meta.incarnation }
    log.warn({ session, before, record, askedBy }, 'an ownership record is trusted again')
    await saveRecord(tx, row, record, {
      ...base,
      kind: 'adopt',
      historyMark: meta.history_mark,
      heard: '{}',
    })
  }

  return {
    record,
    ask,
    async change(session, request, askedBy) {
      const answer = await ask(session, request, askedBy)
      const doing = `asking for ${request.kind} of session ${session}`
      if (answer === null) throw new Fault(OWNERSHIP_UNKNOWN, doing, { session })
      if (answer.ok) return answer.record
      const { refusal, retryAfterMs } = answer
      const waits = refusal === 'LEASE_HELD' || refusal === 'WITNESS_WAITING'
      throw new Fault(waits ? OWNERSHIP_WAIT : OWNERSHIP_REFUSED, `${doing}: ${refusal}`, {
        session,
        refusal,
        record: answer.record,
        retryAfterMs: retryAfterMs ?? undefined,
      })
    },
    async register(tx, session, writer, replica, arbitration) {
      assert(writer !== replica, 'a session joins two sites')
      if ((await findRecord(tx, session)) !== undefined) return
      const meta = await readMeta(tx)
      const fresh = { ...closedRecord(session, writer, replica, meta.incarnation), ...arbitration }
      await tx
        .insertInto('ownership')
        .values({
          session,
          epoch: fresh.epoch,
          state: fresh.state,
          writer,
          replica,
          mode: fresh.mode,
          preferred: fresh.preferred,
          incarnation: fresh.incarnation,
          attempt: fresh.attempt,
          lease_holder: null,
          lease_ends_boot_ms: null,
          lease_boot_id: null,
          lease_ms: null,
          alone: null,
          serial: 0,
          history_mark: meta.history_mark,
          heard: '{}',
          updated_at: clock.wallMs(),
        })
        .execute()
    },
    async forget(tx, session) {
      const row = await findRecord(tx, session)
      if (row === undefined) return
      if (row.state !== 'closed') throw new Fault(OWNERSHIP_OPEN, `forgetting ${session}`)
      await tx.deleteFrom('ownership').where('session', '=', session).execute()
    },
    async arrange(session, { mode, preferred }, askedBy) {
      return await store.write(async (tx) => {
        const row = await findRecord(tx, session)
        const doing = `arranging the arbitration of session ${session}`
        if (row === undefined) throw new Fault(OWNERSHIP_UNKNOWN, doing)
        const before = toRecord(row, readLease)
        assert(
          preferred === before.writer || preferred === before.replica,
          'the preferred site is one of the two',
        )
        if (before.mode === mode && before.preferred === preferred) return before
        if (before.state !== 'closed') {
          throw new Fault(OWNERSHIP_REFUSED, `${doing}: it is ${before.state}`, { session })
        }
        const record = { ...before, mode, preferred }
        const change = { kind: 'configure', askedBy, bootId, leaseMs, at: clock.wallMs() }
        await saveRecord(tx, row, record, change)
        return record
      })
    },
    async trust(session, askedBy, siteOff) {
      await store.write(async (tx) => {
        const row = await findRecord(tx, session)
        if (row === undefined) throw new Fault(OWNERSHIP_UNKNOWN, `vouching for ${session}`)
        const meta = await readMeta(tx)
        if (trusted(row, meta.history_mark)) return
        await restoreTrust(tx, session, () => null, askedBy, siteOff)
      })
    },
    async watchLeases() {
      const rows = await foreignLeases(store.db, bootId)
      const present = new Set(rows.map(({ session }) => session))
      for (const session of foreignSeen.keys()) {
        if (!present.has(session)) foreignSeen.delete(session)
      }
      for (const row of rows) readLease(row)
    },
    async heard(report) {
      // What the record lacks is looked for outside a transaction: nearly every report finds nothing.
      const { history_mark: mark } = await readMeta(store.db)
      metBootMs(mark)
      const sessions = new Map(report.sessions.map((status) => [status.session, status]))
      const ended = new Map(report.ended?.map((one) => [one.session, one]))
      const epochOf = (session: string) =>
        sessions.get(session)?.epoch ?? ended.get(session)?.epoch ?? 0
      const doubted = await recordsDoubtedAt(store.db, report.site, mark)
      const known = await recordsOf(store.db, [...sessions.keys(), ...ended.keys()])
      const concerned = new Set(doubted.map(({ session }) => session))
      for (const row of known) {
        if (epochOf(row.session) > row.epoch) concerned.add(row.session)
      }
      for (const session of concerned) {
        await store.write(async (tx) => {
          const row = await findRecord(tx, session)
          if (row === undefined || (row.writer !== report.site && row.replica !== report.site)) {
            return
          }
          const meta = await readMeta(tx)
          if (trusted(row, meta.history_mark) && epochOf(session) <= row.epoch) return
          if (!provesNow(row, meta.history_mark, report.mark) || !speaksOf(report, session)) return
          await restoreTrust(
            tx,
            session,
            (heard) => hears(heard, report.site, sessions.get(session), ended.get(session)),
            `site:${report.site}`,
          )
        })
      }
      // After it was judged: what it proves must be in the record before anybody is let alone because of it.
      listening.reported(report.site, clock.bootMs())
      return mark
    },
  }
}
