import { assert } from '#base/assert.ts'
import {
  brokenInstances,
  findInstance,
  instanceStatus,
  pairsByInstance,
} from '#control/resources/instances.ts'
import {
  existingServers,
  instancesWithPairs,
  pairGistsOf,
  readGroups,
  tagsOfInstances,
} from '#control/resources/protection-lists.ts'
import type { Queries } from '#control/store/store.ts'
import type { ProtectedInstanceRow } from '#control/store/tables/servers.ts'
import { type InstanceStatus, shownInstanceStatus } from '#domain/protected-instance.ts'
import { instanceObject } from './codec.ts'
import { type SdrsServices, viewsOf } from './services.ts'

/* What protected instances look like. A list of any length costs the same few queries. */

/** The API's objects of these instances, in their order. Reads what belongs to their groups only. */
export async function instanceObjects(
  db: Queries,
  services: SdrsServices,
  instances: readonly ProtectedInstanceRow[],
) {
  const groupIds = [...new Set(instances.map((instance) => instance.group_id))]
  const groups = await readGroups(db, groupIds)
  const pairs = await pairGistsOf(db, groupIds)
  const attached = pairsByInstance(pairs)
  const viewOf = await viewsOf(db, services, [...groups.values()], pairs)
  const tags = await tagsOfInstances(
    db,
    instances.map(({ id }) => id),
  )
  const servers = await existingServers(
    db,
    instances.flatMap((one) => [one.source_server, one.target_server]),
  )
  return instances.map((instance) => {
    const group = groups.get(instance.group_id)
    assert(group !== undefined, 'an instance has a group')
    const { id, source_server, target_server } = instance
    const parts = {
      group,
      attached: attached.get(id) ?? [],
      tags: tags.get(id) ?? [],
      servers: [source_server, target_server].filter((one) => servers.has(one)).length,
    }
    return instanceObject(instance, parts, viewOf(group.id))
  })
}

/** One instance; null: there is none. */
export async function showInstance(
  db: Queries,
  services: SdrsServices,
  project: string,
  id: string,
) {
  const instance = await findInstance(db, project, id)
  if (instance === undefined) return null
  const [shown] = await instanceObjects(db, services, [instance])
  return shown ?? null
}

/** What is shown as the state of any instance of a project: it depends on servers and pairs, and so is no column. */
export async function shownStatusOf(
  db: Queries,
  project: string,
): Promise<(instance: ProtectedInstanceRow) => InstanceStatus> {
  const broken = await brokenInstances(db, project)
  const faulty = await instancesWithPairs(db, project, FAULTY)
  return (instance) =>
    shownInstanceStatus(
      instanceStatus(instance),
      faulty.has(instance.id) ? ['fault'] : [],
      broken.has(instance.id) ? 1 : 2,
    )
}

/** States of a pair that make its instance faulty, see `shownInstanceStatus`. */
const FAULTY = ['error', 'fault', 'invalid']
