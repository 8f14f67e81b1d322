import type { Session, SessionEffect } from '#agent/replication/session/session.ts'
import { decideOwnership, type OwnershipRequest, type WitnessTime } from '#domain/ownership.ts'
import type { WitnessHost } from '../world/witness-host.ts'
import { type Plant, wrapHandle } from './plant.ts'

/* Mistakes about rights: what the witness looks at before it grants one, and what a site keeps before it uses one. */

/** The witness decides as if it had been asked something else, or at another time. */
const decidesOn =
  (
    asked: (request: OwnershipRequest, epoch: number) => OwnershipRequest,
    at: (time: WitnessTime) => WitnessTime = (time) => time,
  ) =>
  (witness: WitnessHost): void => {
    witness.decide = (record, request, time) =>
      decideOwnership(record, asked(request, record.epoch), at(time))
  }

const asItIs = (request: OwnershipRequest): OwnershipRequest => request

/** Of what a site keeps in its epoch file something is left out, although it acts upon it. */
const keepsWithout =
  (field: 'riseAsked' | 'unwitnessed' | 'ackedAlone') =>
  (session: Session): void =>
    wrapHandle(session, (event, handle) =>
      handle(event).map((effect) =>
        effect.kind === 'persist'
          ? { ...effect, stored: { ...effect.stored, [field]: false } }
          : effect,
      ),
    )

export const RULE_PLANTS: readonly Plant[] = [
  {
    name: 'lease-added-up',
    about: 'A renewal adds to the lease that there is, instead of moving its end.',
    foundWithin: 2_500,
    staticShare: 0,
    faults: ['agent-pause', 'site-isolated', 'witness-cut'],
    session: ({ lease }) => {
      const granted = lease.granted.bind(lease)
      lease.granted = (sentMs, leaseMs) =>
        granted(sentMs, leaseMs + Math.max(0, lease.untilMs - sentMs))
    },
  },
  {
    name: 'restored-witness-believed',
    about: 'A witness whose database lost its end grants all the same.',
    foundWithin: 600,
    witness: decidesOn(asItIs, (time) => ({ ...time, historyTrusted: true })),
  },
  {
    name: 'epoch-not-compared',
    about: 'The witness does not look at the epoch under which a change was asked for.',
    foundWithin: 1_000,
    witness: decidesOn((request, epoch) =>
      request.kind === 'confirm' || request.kind === 'promoted' ? request : { ...request, epoch },
    ),
  },
  {
    name: 'consent-not-asked-for',
    about: 'The witness takes every failover for one that the old writer has consented to.',
    foundWithin: 1_000,
    steady: true,
    staticShare: 0,
    faults: ['site-isolated', 'witness-cut', 'agent-pause'],
    witness: decidesOn((request) =>
      request.kind === 'failover' ? { ...request, consent: true } : request,
    ),
  },
  {
    name: 'rise-not-noted',
    about: 'A writer asks for a rise without having kept that it may be committed from now on.',
    foundWithin: 1_500,
    faults: ['agent-crash', 'network-slow', 'link-cut', 'witness-pause'],
    session: keepsWithout('riseAsked'),
  },
  {
    name: 'unwitnessed-not-noted',
    about: 'A writer goes on without the witness and has not kept that it does.',
    foundWithin: 200,
    staticShare: 1,
    session: keepsWithout('unwitnessed'),
  },
  {
    name: 'answered-alone-not-noted',
    about: 'A site forgets with its process that it has answered alone.',
    foundWithin: 600,
    session: keepsWithout('ackedAlone'),
  },
  {
    name: 'kept-copy-gone-before-restore',
    about: 'The copy that a site goes back to is let go first.',
    foundWithin: 600,
    session: (session) =>
      wrapHandle(session, (event, handle) =>
        handle(event).flatMap((effect): SessionEffect[] =>
          effect.kind === 'restore_kept'
            ? [{ kind: 'release_kept', id: effect.id, divergence: false }, effect]
            : [effect],
        ),
      ),
  },
  {
    name: 'peer-makes-a-writer',
    about: 'A replica takes the right to write from what the peer shows it, though it is behind.',
    foundWithin: 1_200,
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        if (event.kind !== 'peer_record' || event.record.state === 'closed') return handle(event)
        return handle({ ...event, kind: 'open', force: true, joined: true })
      }),
  },
  {
    name: 'contact-counted-from-the-answer',
    about:
      'The writer counts contact from when a heartbeat was answered, not from when it was sent.',
    foundWithin: 2_000,
    faults: ['network-slow', 'link-cut', 'link-cut-one-way', 'site-isolated'],
    session: ({ contact }, world) => {
      const heard = contact.heard.bind(contact)
      contact.heard = (sentMs) => {
        const agents = world.sites.map((site) => world.agentAt(site))
        heard(agents.find((agent) => agent?.session.contact === contact)?.now() ?? sentMs)
      }
    },
  },
]
