import { newId } from '#base/ids.ts'
import {
  GROUP_RESOURCE,
  findGroup,
  insertGroup,
  moveGroup,
  movePair,
  updateGroup,
} from '#control/resources/groups.ts'
import { instanceStatus, moveInstance } from '#control/resources/instances.ts'
import { ensureDefaults, findVpc } from '#control/resources/networks.ts'
import { listDomains, quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import type { Arbitration } from '#control/sites/witness.ts'
import type { Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import {
  decideGroup,
  GROUP_TRANSITIONS,
  type GroupCommand,
  type GroupForm,
  type GroupRefusal,
  type GroupTransitionName,
} from '#domain/protection-group.ts'
import { instanceFollowsGroup, type InstanceStatus } from '#domain/protected-instance.ts'
import { fits } from '#domain/quota.ts'
import { followsGroup, type PairStatus } from '#domain/replication-pair.ts'
import type { OperationKind, SubmitRequest } from '../../operation.ts'
import { type Failover, failoverGroup } from './failover.ts'
import {
  createGroup,
  deleteGroup,
  reprotectGroup,
  reverseGroup,
  startGroup,
  stopGroup,
} from './groups.ts'
import { isPaused } from './paused-failover-requests.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'
import { groupFacts } from './sync-views.ts'

export interface NewGroupRequest {
  readonly project: string
  readonly name: string
  readonly description: string | null
  readonly sourceAz: string
  readonly targetAz: string
  readonly domain: string
  readonly vpc: string
  /** How it is decided who goes on when the sites lose each other; the preferred site is one of the two. Default: by the witness. */
  readonly arbitration?: Arbitration
  /** A failover or reversal starts the servers of the new production site. Default false. */
  readonly startServers?: boolean
}

export interface AcceptedGroup {
  readonly group: ProtectionGroupRow
  readonly operation: string
}

export type CreateGroupRefusal =
  | 'DOMAIN_UNKNOWN'
  | 'AZ_NOT_IN_DOMAIN'
  | 'VPC_UNKNOWN'
  | 'QUOTA_GROUPS'

export async function requestGroup(
  services: RequestServices,
  request: NewGroupRequest,
): Promise<Outcome<AcceptedGroup, CreateGroupRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const domain = (await listDomains(tx)).find(({ id }) => id === request.domain)
    if (domain === undefined) return refused('DOMAIN_UNKNOWN')
    const azs = [domain.local_az, domain.remote_az]
    const { sourceAz, targetAz, project } = request
    if (sourceAz === targetAz || !azs.includes(sourceAz) || !azs.includes(targetAz)) {
      return refused('AZ_NOT_IN_DOMAIN')
    }
    await ensureDefaults(tx, project)
    if ((await findVpc(tx, project, request.vpc)) === undefined) return refused('VPC_UNKNOWN')
    const used = await quotaUsed(tx, project, 'server_groups')
    if (!fits(await quotaLimit(tx, project, 'server_groups'), used)) return refused('QUOTA_GROUPS')
    const now = clock.wallMs()
    const group: ProtectionGroupRow = {
      id: newId(),
      project,
      form: 'sdrs',
      name: request.name,
      description: request.description,
      status: 'creating',
      station: 'source',
      reversing_to: null,
      source_az: sourceAz,
      target_az: targetAz,
      domain: domain.id,
      vpc: request.vpc,
      start_servers: request.startServers === true ? 1 : 0,
      next_member: 1,
      failure_detail: null,
      created_at: now,
      updated_at: now,
    }
    await insertGroup(tx, group)
    const operation = await operations.submit(tx, createGroup, {
      project,
      resourceType: GROUP_RESOURCE,
      resourceId: group.id,
      input: request.arbitration === undefined ? {} : { arbitration: request.arbitration },
      entities: { server_group_id: group.id, name: group.name },
    })
    return { ok: true, group, operation }
  })
}

export type GroupRequestRefusal = 'GROUP_UNKNOWN' | GroupRefusal

/**
 * Every command but rename: judges it, moves group and pairs to the transient state, submits the operation.
 * `form`: groups of other APIs are unknown. Default: all are known.
 */
export async function requestGroupCommand(
  services: RequestServices,
  project: string,
  id: string,
  command: Exclude<GroupCommand, { readonly kind: 'rename' }>,
  form?: GroupForm,
  /** Runs in the transaction that submits the operation; what it throws undoes all of it. */
  also?: (tx: Transaction, operation: string) => Promise<void>,
): Promise<Outcome<AcceptedGroup, GroupRequestRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const group = await findGroup(tx, project, id, form)
    if (group === undefined) return refused('GROUP_UNKNOWN')
    // It has no session: the failover of one is another operation (`requestPausedFailover`), also when that one has failed.
    if (command.kind === 'failover' && (await isPaused(tx, group))) return refused('GROUP_STATE')
    const { facts, pairs, instances } = await groupFacts(tx, services, group)
    const decision = decideGroup(facts, command)
    if (!decision.ok) return decision
    const name = decision.transition
    if (name === null || name === 'create' || name === 'update') return refused('GROUP_STATE')
    const { via } = GROUP_TRANSITIONS[name]
    const now = clock.wallMs()
    await moveGroup(tx, id, via, now)
    if (command.kind === 'reverse') await updateGroup(tx, id, { reversing_to: command.to }, now)
    const moved = pairs.filter((pair) => followsGroup(pair.status as PairStatus))
    for (const pair of moved) {
      if (name !== 'delete') await movePair(tx, pair.id, via as PairStatus, now)
    }
    for (const instance of instances) {
      if (name === 'delete' || !instanceFollowsGroup(instanceStatus(instance))) continue
      await moveInstance(tx, instance.id, via as InstanceStatus, now)
    }
    const request: SubmitRequest<never> = {
      project,
      resourceType: GROUP_RESOURCE,
      resourceId: id,
      input: inputOf(command) as never,
      entities: {
        server_group_id: id,
        name: group.name,
        pairs: moved.map((pair) => ({ id: pair.id, member: pair.member })),
      },
    }
    const operation = await operations.submit(tx, KINDS[name] as OperationKind<never>, request)
    await also?.(tx, operation)
    return { ok: true, group, operation }
  })
}

const inputOf = (command: GroupCommand): Failover | Record<string, never> =>
  command.kind === 'failover'
    ? { force: command.force, preferredOff: command.preferredOff === true }
    : {}

const KINDS: Record<Exclude<GroupTransitionName, 'create' | 'update'>, OperationKind<never>> = {
  start: startGroup,
  reprotect: reprotectGroup,
  stop: stopGroup,
  reverse: reverseGroup,
  failover: failoverGroup,
  delete: deleteGroup,
}

export async function renameGroup(
  services: RequestServices,
  project: string,
  id: string,
  name: string,
): Promise<Outcome<object, 'GROUP_UNKNOWN'>> {
  return await services.store.write(async (tx) => {
    if ((await findGroup(tx, project, id, 'sdrs')) === undefined) return refused('GROUP_UNKNOWN')
    await updateGroup(tx, id, { name }, services.clock.wallMs())
    return { ok: true }
  })
}
