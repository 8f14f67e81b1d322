import {
  groupStatus,
  moveGroup,
  movePair,
  pairsOfGroup,
  updateGroup,
} from '#control/resources/groups.ts'
import { instancesOfGroup, moveInstance } from '#control/resources/instances.ts'
import type { Transaction } from '#control/store/store.ts'
import type { InstanceStatus } from '#domain/protected-instance.ts'
import {
  GROUP_TRANSITIONS,
  type GroupTransitionName,
  otherStation,
} from '#domain/protection-group.ts'
import type { PairStatus } from '#domain/replication-pair.ts'
import type { Failure, StepContext } from '../../operation.ts'
import { moveIdentities } from '../instances/instance-identity.ts'
import { theGroup } from './session.ts'

/* How the operations on groups end: what is written in the transaction of their last step, or of their failure. */

/** About 16 s of trying: an agent that was just killed is back by then, and a person still waits for the answer. */
export const OPEN_RETRY = { attemptsMax: 7 }

/** Ends an operation in its declared state: group, and every pair that went along. */
export async function settle(
  tx: Transaction,
  ctx: StepContext<unknown>,
  name: GroupTransitionName,
  end: 'to' | 'onError',
): Promise<void> {
  const { via, [end]: status } = GROUP_TRANSITIONS[name]
  if (status === null) return
  const now = ctx.services.clock.wallMs()
  const group = await theGroup(tx, ctx.resourceId)
  if (groupStatus(group) !== via) return
  await moveGroup(tx, group.id, status, now)
  if (end === 'to') await updateGroup(tx, group.id, { failure_detail: null }, now)
  for (const pair of await pairsOfGroup(tx, group.id)) {
    if (pair.status === via) await movePair(tx, pair.id, status as PairStatus, now)
  }
  for (const instance of await instancesOfGroup(tx, group.id)) {
    if (instance.status !== via) continue
    await moveInstance(tx, instance.id, status as InstanceStatus, now)
  }
}

/** What an operation does that has failed: the declared state, and why. */
export const failed =
  (name: GroupTransitionName) =>
  async (tx: Transaction, ctx: StepContext<unknown>, failure: Failure): Promise<void> => {
    await settle(tx, ctx, name, 'onError')
    const now = ctx.services.clock.wallMs()
    await updateGroup(tx, ctx.resourceId, { failure_detail: failure.code }, now)
  }

/** The other site is production from now on, and its servers wear the NICs. `spare`: see `moveIdentities`. */
export async function swapStation(
  tx: Transaction,
  ctx: StepContext<unknown>,
  spare: 'swapped' | 'waits',
): Promise<void> {
  const group = await theGroup(tx, ctx.resourceId)
  const station = otherStation(group.station === 'source' ? 'source' : 'target')
  const now = ctx.services.clock.wallMs()
  await updateGroup(tx, group.id, { station, reversing_to: null }, now)
  await moveIdentities(tx, { ...group, station }, spare, now)
}
