import { decideOwnership } from '#domain/ownership.ts'
import type { Session, SessionEffect, SessionEvent } from '#agent/replication/session.ts'
import type { Plan } from '../world/plan.ts'

/* Mistakes that somebody could make, planted one at a time to show that the simulator would find them. The product's code
 * is not touched: a plant wraps a method of the session, its gate, lease or contact, or of the witness, or tells the
 * simulated shell to skip a step (see world/plan.ts). A checker that no longer finds one of them has gone blind.
 */

export interface Plant extends Plan {
  /** What was done wrong, in a sentence. */
  readonly about: string
  /** Seeds from 1 within which it must be found. */
  readonly foundWithin: number
}

type Handle = (event: SessionEvent) => readonly SessionEffect[]

/** Puts `around` between the shell and the session's decisions. */
function wrapHandle(
  session: Session,
  around: (event: SessionEvent, handle: Handle) => readonly SessionEffect[],
): void {
  const handle = session.handle.bind(session)
  session.handle = (event) => around(event, handle)
}

export const PLANTS: readonly Plant[] = [
  {
    name: 'acknowledge-before-peer',
    about: 'In sync, a write is answered when it is done here, without waiting for the replica.',
    foundWithin: 20,
    session: ({ gate }) => {
      const releasable = gate.releasableUpTo.bind(gate)
      gate.releasableUpTo = (now) => (releasable(now) < 0 ? -1 : gate.sequence)
    },
  },
  {
    name: 'flush-here-only',
    about: 'In sync, a flush is answered when it is durable here, without asking the replica.',
    foundWithin: 20,
    flushHereOnly: true,
  },
  {
    name: 'no-fsync-at-rise',
    about: 'The replica declares itself risen without making its volumes durable.',
    foundWithin: 400,
    faults: ['power-loss', 'power-loss-both', 'slow-fsync'],
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        const effects = handle(event)
        const rise = event.kind === 'message' && event.message.kind === 'rise'
        return rise ? effects.filter((effect) => effect.kind !== 'make_durable') : effects
      }),
  },
  {
    name: 'no-fsync-before-rise-at-writer',
    about: 'The writer asks for a rise while writes from before the session are not durable.',
    foundWithin: 600,
    faults: ['power-loss', 'power-loss-both', 'slow-fsync'],
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        const effects = handle(event)
        const risen = event.kind === 'message' && event.message.kind === 'risen'
        return risen ? effects.filter((effect) => effect.kind !== 'make_durable') : effects
      }),
  },
  {
    name: 'old-epoch-still-linked',
    about: 'A site that was made the writer goes on answering the heartbeats of the old one.',
    foundWithin: 100,
    echoesAnybody: true,
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        const effects = handle(event)
        return session.phase === 'promoting'
          ? effects.filter((effect) => effect.kind !== 'drop_link')
          : effects
      }),
  },
  {
    name: 'rise-unwitnessed',
    about:
      'The writer takes the replica being ready for the rise itself and does not ask the witness.',
    foundWithin: 20,
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        const effects = handle(event)
        const asked = effects.find((effect) => effect.kind === 'ask' && effect.ask.kind === 'rise')
        if (asked?.kind !== 'ask') return effects
        const { record } = session.stored
        const risen = { ...record, epoch: record.epoch + 1, state: 'in_sync' as const }
        const { now } = event
        const answer = { ok: true as const, record: risen, lease_ms: null }
        const more = handle({ kind: 'witness', now, ask: asked.ask, sentMs: now, answer })
        return [...effects.filter((effect) => effect !== asked), ...more]
      }),
  },
  {
    name: 'refusal-ignored',
    about: 'A renewal that the witness refused counts as granted.',
    foundWithin: 300,
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        if (event.kind !== 'witness' || event.answer?.ok !== false) return handle(event)
        if (event.ask.kind !== 'renew') return handle(event)
        const { record } = session.stored
        return handle({ ...event, answer: { ok: true, record, lease_ms: 8_000 } })
      }),
  },
  {
    name: 'lease-not-looked-at',
    about:
      'A lease once granted counts until it is given up: after a pause nobody looks at the clock.',
    foundWithin: 600,
    staticShare: 0,
    faults: ['agent-pause', 'site-isolated', 'witness-cut'],
    session: ({ lease }) => {
      lease.valid = () => lease.untilMs > 0
    },
  },
  {
    name: 'lease-counted-from-the-answer',
    about: 'The holder counts its lease from when the answer came, not from before it asked.',
    foundWithin: 3_000,
    faults: ['network-slow', 'witness-cut', 'site-isolated', 'agent-pause'],
    session: ({ lease }, world) => {
      const granted = lease.granted.bind(lease)
      const process = () => world.sites.map((site) => world.agentAt(site))
      lease.granted = (sentMs, leaseMs) => {
        const owner = process().find((agent) => agent?.session.lease === lease)
        granted(owner?.now() ?? sentMs, leaseMs)
      }
    },
  },
  {
    name: 'contact-not-waited-out',
    about:
      'A promoted site serves at once, while the old writer may still be in contact by its clock.',
    foundWithin: 300,
    session: ({ silence }) => {
      silence.overAtMs = () => 0
    },
  },
  {
    name: 'contact-not-looked-at',
    about: 'The writer in sync answers reads although it has not heard the replica for long.',
    foundWithin: 200,
    session: ({ contact }) => {
      contact.valid = () => true
    },
  },
  {
    name: 'lease-forgotten-by-witness',
    about: 'The witness lets another site take over while a lease lives.',
    foundWithin: 400,
    witness: (witness) => {
      witness.decide = (record, request, time) =>
        decideOwnership(
          request.kind === 'failover' ? { ...record, lease: null } : record,
          request,
          time,
        )
    },
  },
  {
    name: 'epoch-file-not-written',
    about: 'A site acts under a new record that it has not persisted.',
    foundWithin: 50,
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        const { epoch } = session.stored.record
        return handle(event).filter(
          (effect) => effect.kind !== 'persist' || effect.stored.record.epoch === epoch,
        )
      }),
  },
  {
    name: 'intent-bit-after-touch',
    about: 'A region is written before its intent bit is durable.',
    foundWithin: 1_000,
    faults: ['power-loss', 'slow-fsync'],
    intentAfterTouch: true,
  },
  {
    name: 'copy-ignores-writes',
    about: 'The copy sends what it read although a client wrote there meanwhile.',
    foundWithin: 50,
    copyIgnoresWrites: true,
  },
  {
    name: 'run-file-of-another-boot',
    about: 'A replica takes the number in the run file for exact after its host lost power.',
    foundWithin: 200,
    trustsOldRunFile: true,
  },
  {
    name: 'no-reconcile',
    about: 'A writer that stopped uncleanly serves what it has without asking the replica.',
    foundWithin: 100,
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        const effects = handle(event)
        if (!effects.some((effect) => effect.kind === 'reconcile')) return effects
        const rest = effects.filter((effect) => effect.kind !== 'reconcile')
        return [...rest, ...handle({ kind: 'reconciled', now: event.now })]
      }),
  },
]
