import { Fault } from '#base/fault.ts'
import type { CommandRequest } from '#wire/site/commands.ts'
import type { SessionCore } from '../core.ts'
import { COPY_IS_GOOD, STALE_EPOCH, WRONG_STATE } from '../faults.ts'
import type { Members } from '../members.ts'
import type { ReplicaEnd } from '../replica/replica-end.ts'
import { VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'

/* A copy that is failed, or that nobody trusts any more, is replaced by an empty one.
 *
 *     link dropped ─► members.json: not joined, rebuild under way ─► old volume gone ─► empty one ─► members.json: done ─► dials again
 *
 * To the writer it is then a member that has had no copy yet, as a pair that was added later: it joins by a first copy, while the other members
 * stay as they are. Until that is complete, a failover is refused without force.
 *
 * Replica only. At the writer the volume is the truth, and there is nothing to rebuild it from that would not be a decision: fail over first.
 */

export interface RebuildParts {
  readonly core: SessionCore
  readonly members: Members
  readonly replicaEnd: ReplicaEnd
  /** Ids of the snapshots that live from a volume. */
  readonly snapshotsOf: (volume: string) => readonly string[]
}

/** Done and durable when it resolves; the copy itself takes its time. Refused before anything is changed. */
export function rebuildCopy(
  { core, members, replicaEnd, snapshotsOf }: RebuildParts,
  request: CommandRequest<'volume.rebuild'>,
): Promise<void> {
  const { volume, session: id, epoch, rebuild, force } = request
  const doing = `rebuilding volume ${volume} of session ${id}`
  return core.inTurn(async () => {
    const { session } = core
    if (core.broken !== null) throw core.broken
    const member = [...members.values()].find((one) => members.volumeId(one.stored) === volume)
    if (member === undefined) throw new Fault(VOLUME_UNKNOWN, doing, { volume })
    if (member.stored.rebuild?.id === rebuild && member.stored.rebuild.done) return
    if (epoch < session.stored.record.epoch) throw new Fault(STALE_EPOCH, doing, { epoch })
    if (session.role !== 'replica') {
      throw new Fault(WRONG_STATE, `${doing}: only the copy at the replica can be rebuilt`)
    }
    const lives = snapshotsOf(volume)
    if (lives.length > 0) {
      throw new Fault(WRONG_STATE, `${doing}: its snapshots ${lives.join(', ')} live from it`)
    }
    const good = member.volume.failed === undefined && member.stored.joined
    if (good && session.stored.consistent && !force) throw new Fault(COPY_IS_GOOD, doing)
    core.log.warn({ volume, rebuild, failed: member.volume.failed }, 'copy is replaced, begun anew')
    replicaEnd.stopDialling()
    replicaEnd.hangUp(null)
    await core.process({ kind: 'link_down', now: core.now() })
    await members.rebuild(member.index, rebuild)
    if (session.role === 'replica') replicaEnd.startDialling()
  })
}
