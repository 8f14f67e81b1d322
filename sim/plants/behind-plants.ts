import { decideOwnership } from '#domain/ownership.ts'
import type { ChangeKind } from '#domain/ownership.ts'
import type { WitnessHost } from '../world/witness-host.ts'
import { type Plant, wrapHandle } from './plant.ts'

/* Mistakes about what is decided behind the back of a writer that is cut off, and about what it had on its way. */

/** The witness forgets the lease in changes of these kinds. */
const forgetsLeaseIn =
  (...kinds: readonly ChangeKind[]) =>
  (witness: WitnessHost): void => {
    witness.decide = (record, request, time) => {
      const answer = decideOwnership(record, request, time)
      const changed = answer.ok && answer.record.epoch > record.epoch
      if (!changed || !kinds.some((kind) => kind === request.kind)) return answer
      return { ...answer, record: { ...answer.record, lease: null } }
    }
  }

export const BEHIND_PLANTS: readonly Plant[] = [
  {
    name: 'lease-ends-with-a-freeze',
    about: 'A freeze that the writer has not heard of ends its lease in the record.',
    foundWithin: 3_000,
    faults: ['link-cut', 'site-isolated', 'witness-cut'],
    staticShare: 0,
    witness: forgetsLeaseIn('freeze', 'thaw'),
  },
  {
    name: 'writes-on-their-way-not-compared',
    about:
      'What a writer in sync had on its way when it died, and what lost its power, is not compared in the next copy.',
    foundWithin: 50,
    faults: ['agent-crash'],
    session: (session) =>
      wrapHandle(session, (event, handle) =>
        handle(event).map((effect) =>
          effect.kind === 'start_copy' ? { ...effect, regions: false } : effect,
        ),
      ),
  },
]
