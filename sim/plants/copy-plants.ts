import { type Plant, wrapHandle } from './plant.ts'

/* Mistakes about the copies that a site keeps: for the time of a resync, over a stop, and as divergences. */

export const COPY_PLANTS: readonly Plant[] = [
  {
    name: 'no-kept-copy',
    about: 'A resync begins before the last consistent state of the replica is kept.',
    foundWithin: 100,
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        const effects = handle(event)
        const keep = effects.find((effect) => effect.kind === 'keep_copy')
        if (keep?.kind !== 'keep_copy') return effects
        const rest = effects.filter((effect) => effect !== keep)
        return [...rest, ...handle({ kind: 'kept', now: event.now, id: keep.id, ok: true })]
      }),
  },
  {
    name: 'kept-copy-dropped-early',
    about: 'The kept copy is let go when the copy begins, not when the rise is persisted.',
    foundWithin: 100,
    session: (session) =>
      wrapHandle(session, (event, handle) => {
        const effects = handle(event)
        if (event.kind !== 'kept' || session.phase !== 'receiving') return effects
        return [...effects, { kind: 'release_kept', id: event.id, divergence: false }]
      }),
  },
  {
    name: 'kept-copy-not-restored',
    about: 'A side that is made the writer in the middle of a resync serves what is there.',
    foundWithin: 600,
    session: (session) =>
      wrapHandle(session, (event, handle) =>
        handle(event).filter((effect) => effect.kind !== 'restore_kept'),
      ),
  },
  {
    name: 'left-copy-forgotten',
    about: 'A group that is started again overwrites what its stop has left at the other site.',
    foundWithin: 100,
    session: (session) =>
      wrapHandle(session, (event, handle) =>
        handle(event.kind === 'open' ? { ...event, left: false } : event),
      ),
  },
  {
    name: 'left-copy-not-durable',
    about: 'A stop notes the copy that it leaves before that is durable.',
    foundWithin: 400,
    faults: ['power-loss', 'power-loss-both', 'slow-fsync'],
    leavesUnflushed: true,
  },
  {
    name: 'torn-copy-taken-for-whole',
    about: 'A copy that went through a loss of power is kept and left as one of one moment.',
    foundWithin: 100,
    faults: ['power-loss', 'power-loss-both', 'slow-fsync'],
    session: (session) =>
      wrapHandle(session, (event, handle) =>
        handle(event).map((effect) =>
          effect.kind === 'persist'
            ? { ...effect, stored: { ...effect.stored, torn: false } }
            : effect,
        ),
      ),
  },
  {
    name: 'torn-copy-left-as-whole',
    about: 'A stop forgets that the copy which it leaves went through a loss of power.',
    foundWithin: 1_200,
    faults: ['power-loss', 'power-loss-both', 'slow-fsync'],
    session: (session) =>
      wrapHandle(session, (event, handle) =>
        handle(event).map((effect) =>
          effect.kind === 'persist' && effect.stored.record.state === 'closed'
            ? { ...effect, stored: { ...effect.stored, torn: false } }
            : effect,
        ),
      ),
  },
  {
    name: 'divergence-dropped',
    about: 'What a demoted writer had acknowledged alone is overwritten and let go.',
    foundWithin: 200,
    session: (session) =>
      wrapHandle(session, (event, handle) =>
        handle(event).map((effect) =>
          effect.kind === 'release_kept' ? { ...effect, divergence: false } : effect,
        ),
      ),
  },
]
