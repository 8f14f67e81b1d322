import { decideOwnership } from '#domain/ownership.ts'
import type { Session } from '#agent/replication/session/session.ts'
import type { WitnessAnswer } from '#wire/site/witness.ts'
import { BEHIND_PLANTS } from './behind-plants.ts'
import { COPY_PLANTS } from './copy-plants.ts'
import { type Plant, wrapHandle } from './plant.ts'
import { RULE_PLANTS } from './rule-plants.ts'

/* Mistakes that somebody could make, planted one at a time to show that the simulator would find them. The product's code
 * is not touched: a plant wraps a method of the session, its gate, lease or contact, or of the witness, or tells the
 * simulated shell to skip a step (see world/plan.ts). A checker that no longer finds one of them has gone blind.
 */

/** Takes an answer to `solo` that `wrong` says for a yes. */
function answerSolo(session: Session, wrong: (answer: WitnessAnswer | null) => boolean): void {
  wrapHandle(session, (event, handle) => {
    if (event.kind !== 'witness' || event.ask.kind !== 'solo' || !wrong(event.answer)) {
      return handle(event)
    }
    const { record } = session.stored
    const alone = { ...record, epoch: record.epoch + 1, state: 'solo' as const }
    handle({ ...event, answer: { ok: true, record: alone, lease_ms: null } })
    const ask = { kind: 'renew' as const, site: record.writer, epoch: alone.epoch }
    const { now } = event
    const answer = { ok: true as const, record: alone, lease_ms: 8_000 }
    return handle({ kind: 'witness', now, sentMs: now, ask, answer })
  })
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
    steady: true,
    foundWithin: 250,
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
    foundWithin: 1_200,
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
    foundWithin: 900,
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
    faults: ['network-slow', 'agent-pause', 'link-cut'],
    staticShare: 0,
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
    foundWithin: 600,
    session: ({ contact }) => {
      contact.valid = () => true
    },
  },
  {
    name: 'lease-forgotten-by-witness',
    about: 'The witness lets another site take over while a lease lives.',
    steady: true,
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
  {
    name: 'bits-cleared-early',
    about: 'What an interrupted copy had before it counts as copied.',
    foundWithin: 400,
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        const copying = session.phase === 'copying'
        const effects = handle(event)
        if (event.kind !== 'link_down' || !copying) return effects
        return [...effects, { kind: 'clear_changes', epoch: session.stored.baseEpoch }]
      }),
  },
  {
    name: 'marks-forgotten',
    about: 'A writer that answers alone does not mark its writes in the change map.',
    foundWithin: 600,
    forgetsMarks: true,
  },
  {
    name: 'frames-forgotten-at-solo',
    about: 'Frames on their way when the link was lost are neither kept nor marked.',
    foundWithin: 300,
    session: (session) =>
      wrapHandle(session, (event, handle) =>
        handle(event).map((effect) =>
          effect.kind === 'log_frames' && effect.on
            ? { kind: 'forget_frames', mark: false }
            : effect,
        ),
      ),
  },
  {
    name: 'frame-log-with-a-hole',
    about: 'The frame log loses a frame in its middle.',
    foundWithin: 300,
    logHole: true,
  },
  {
    name: 'catch-up-beyond-the-log',
    about: 'The writer begins to catch up although its log does not reach back that far.',
    foundWithin: 400,
    session: (session) =>
      wrapHandle(session, (event, handle) =>
        handle(event.kind === 'link_up' ? { ...event, logFrom: 0 } : event),
      ),
  },
  {
    name: 'catch-up-from-a-stale-number',
    about:
      'The writer catches up from what it once saw acknowledged, not from what the replica has.',
    foundWithin: 600,
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        if (event.kind !== 'message' || event.message.kind !== 'catch_up') {
          return handle(event).map((effect) =>
            effect.kind === 'resend' && session.phase === 'catching_up'
              ? { kind: 'resend', after: effect.after + 1 }
              : effect,
          )
        }
        return handle(event)
      }),
  },
  {
    name: 'rise-before-caught-up',
    about: 'Out of solo the witness is asked for in_sync while the replica is still catching up.',
    steady: true,
    foundWithin: 3_000,
    glassShare: 0,
    faults: ['network-slow', 'link-cut', 'link-flaps', 'site-loss', 'agent-crash'],
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        const effects = handle(event)
        if (!effects.some((effect) => effect.kind === 'watch_catch_up')) return effects
        const { now } = event
        const early = handle({ kind: 'caught_up', now })
        const message = { kind: 'risen' as const, epoch: session.stored.record.epoch + 1 }
        return [...effects, ...early, ...handle({ kind: 'message', now, message })]
      }),
  },
  {
    name: 'solo-unwitnessed',
    about: 'In mode witness, a writer whose question is not answered goes on alone.',
    foundWithin: 300,
    faults: ['site-isolated', 'link-cut', 'witness-cut', 'witness-crash'],
    staticShare: 0,
    session: (session) => answerSolo(session, (answer) => answer === null),
  },
  {
    name: 'solo-refusal-ignored',
    about: 'A writer that is refused to go on alone does so all the same.',
    foundWithin: 600,
    faults: ['site-isolated', 'link-cut', 'agent-pause', 'network-slow'],
    session: (session) => answerSolo(session, (answer) => answer?.ok === false),
  },
  {
    name: 'lease-goes-on-after-freeze',
    about: 'A frozen writer has persisted the record, and goes on answering under its old lease.',
    foundWithin: 400,
    session: (session) => {
      const { lease } = session
      lease.end = () => undefined
      wrapHandle(session, (event, handle) => {
        const effects = handle(event)
        if (session.phase !== 'frozen') return effects
        session.gate.mode = 'alone'
        return effects.filter((effect) => effect.kind !== 'refuse')
      })
    },
  },
  {
    name: 'freeze-taken-for-consent',
    about: 'The witness lets another site take over from a frozen writer that has not heard of it.',
    foundWithin: 1_000,
    staticShare: 0,
    glassShare: 0,
    faults: ['site-isolated', 'witness-cut', 'agent-pause', 'network-slow'],
    witness: (witness) => {
      witness.decide = (record, request, time) =>
        decideOwnership(
          request.kind === 'failover' && record.state === 'frozen'
            ? { ...record, lease: null }
            : record,
          request,
          time,
        )
    },
  },
  {
    name: 'preferred-site-believed-off',
    about: 'A failover away from the preferred site needs nobody to state that it is off.',
    foundWithin: 1_500,
    staticShare: 1,
    faults: ['link-cut', 'witness-cut', 'site-isolated', 'agent-pause'],
    witness: (witness) => {
      witness.decide = (record, request, time) =>
        decideOwnership(
          record,
          request.kind === 'failover' ? { ...request, preferredOff: true } : request,
          time,
        )
    },
  },
  {
    name: 'power-loss-not-told',
    about: 'A replica that lost power says that it holds what it once acknowledged.',
    foundWithin: 300,
    session: (session) => {
      const hello = session.hello.bind(session)
      session.hello = (dirty, failed) => ({
        ...hello(dirty, failed),
        clean: true,
        divergent: false,
      })
    },
  },
  {
    name: 'epoch-of-break-glass-not-believed',
    about: 'A record whose epoch jumped is taken for nonsense by the writer that it fences.',
    foundWithin: 600,
    glassShare: 1,
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        const { epoch } = session.stored.record
        const shown =
          event.kind === 'witness' ? event.answer?.record : 'record' in event ? event.record : null
        const jumped = shown !== null && shown !== undefined && shown.epoch > epoch + 1_000
        if (!jumped || session.role !== 'writer') return handle(event)
        return event.kind === 'witness' ? handle({ ...event, answer: null }) : []
      }),
  },
  {
    name: 'verification-looks-once',
    about: 'A block that differs in the first look of a verification is called different at once.',
    foundWithin: 300,
    verifiesOnce: true,
  },
  ...COPY_PLANTS,
  ...BEHIND_PLANTS,
  ...RULE_PLANTS,
]
