import { newId } from '#base/ids.ts'
import { movePair } from '#control/resources/groups.ts'
import { drServer, findInstance, moveInstance, ownPairs } from '#control/resources/instances.ts'
import { readServer } from '#control/resources/servers.ts'
import type { Transaction } from '#control/store/store.ts'
import { decideInstance, type InstanceRefusal } from '#domain/protected-instance.ts'
import { allOrNothing } from '../all-or-nothing.ts'
import { instanceFacts } from './instance-facts.ts'
import type { AcceptedInstance } from './instance-requests.ts'
import {
  deleteInstance,
  deleteInstances,
  INSTANCE_BATCH,
  INSTANCE_RESOURCE,
  instanceEntities,
} from './instances.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'

/** The end of protected instances. */

export interface DeletionFlags {
  readonly deleteTargetServer: boolean
}

export type DeleteInstanceRefusal =
  | 'INSTANCE_UNKNOWN'
  | 'INSTANCES_OF_SEVERAL_GROUPS'
  | InstanceRefusal

export async function requestInstanceDeletion(
  services: RequestServices,
  project: string,
  id: string,
  flags: DeletionFlags,
): Promise<Outcome<AcceptedInstance, DeleteInstanceRefusal>> {
  return await allOrNothing(services, (tx) => deleteIn(tx, services, project, id, flags, null))
}

/** All of one group, all or none. */
export async function requestInstancesDeletion(
  services: RequestServices,
  project: string,
  ids: readonly string[],
  flags: DeletionFlags,
): Promise<Outcome<{ readonly operation: string }, DeleteInstanceRefusal>> {
  return await allOrNothing(services, async (tx) => {
    const instances = await Promise.all(ids.map((id) => findInstance(tx, project, id)))
    const [first] = instances
    if (first === undefined) return refused('INSTANCE_UNKNOWN')
    if (instances.some((one) => one !== undefined && one.group_id !== first.group_id)) {
      return refused('INSTANCES_OF_SEVERAL_GROUPS')
    }
    const operation = await services.operations.submit(tx, deleteInstances, {
      project,
      resourceType: INSTANCE_BATCH,
      resourceId: newId(),
      input: {},
      entities: { server_group_id: first.group_id, name: first.name },
    })
    for (const id of new Set(ids)) {
      const outcome = await deleteIn(tx, services, project, id, flags, operation)
      if (!outcome.ok) return outcome
    }
    return { ok: true, operation }
  })
}

async function deleteIn(
  tx: Transaction,
  services: RequestServices,
  project: string,
  id: string,
  { deleteTargetServer }: DeletionFlags,
  parent: string | null,
): Promise<Outcome<AcceptedInstance, DeleteInstanceRefusal>> {
  const { operations, clock } = services
  const instance = await findInstance(tx, project, id)
  if (instance === undefined) return refused('INSTANCE_UNKNOWN')
  const { facts, group, pairs } = await instanceFacts(tx, instance)
  const decision = decideInstance(facts, { kind: 'delete', deleteTargetServer })
  if (!decision.ok) return decision
  const now = clock.wallMs()
  const other = await readServer(tx, drServer(group, instance))
  // Something is being done to the server that is to go.
  if (deleteTargetServer && other !== undefined && other.task !== null) {
    return refused('INSTANCE_DELETE_STATE')
  }
  await moveInstance(tx, id, 'deleting', now)
  for (const { pair } of ownPairs(pairs, id)) await movePair(tx, pair.id, 'deleting', now)
  const operation = await operations.submit(tx, deleteInstance, {
    project,
    resourceType: INSTANCE_RESOURCE,
    resourceId: id,
    input: { deleteTargetServer },
    entities: instanceEntities(instance),
    ...(parent === null ? {} : { parent }),
  })
  return { ok: true, instance, operation }
}
