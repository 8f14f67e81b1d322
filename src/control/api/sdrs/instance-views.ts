import { assert } from '#base/assert.ts'
import { readServers } from '#control/operations/definitions/instance-facts.ts'
import { listGroups, pairsOfGroup, readGroup } from '#control/resources/groups.ts'
import {
  brokenInstances,
  findInstance,
  listPairGists,
  type PairGist,
  pairsByInstance,
} from '#control/resources/instances.ts'
import { tagsByResource, tagsOf } from '#control/resources/tags.ts'
import type { Queries } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import type { ProtectedInstanceRow } from '#control/store/tables/servers.ts'
import type { Tag } from '#domain/tag.ts'
import { type InstanceParts, instanceObject } from './codec.ts'
import { type SdrsServices, viewsOf } from './services.ts'

/* What protected instances look like. A list of any length costs the same few queries. */

/** Everything of a project that instances are shown with. */
export interface InstanceSurroundings {
  readonly groups: ReadonlyMap<string, ProtectionGroupRow>
  readonly pairs: readonly PairGist[]
  partsOf(instance: ProtectedInstanceRow): InstanceParts
}

export async function surroundingsOf(db: Queries, project: string): Promise<InstanceSurroundings> {
  const groups = new Map((await listGroups(db, project, 'sdrs')).map((group) => [group.id, group]))
  const pairs = await listPairGists(db, project)
  const broken = await brokenInstances(db, project)
  const tags = await tagsByResource(db, project, 'instance')
  return surroundings(groups, pairs, broken, tags)
}

function surroundings(
  groups: ReadonlyMap<string, ProtectionGroupRow>,
  pairs: readonly PairGist[],
  broken: ReadonlySet<string>,
  tags: ReadonlyMap<string, readonly Tag[]>,
): InstanceSurroundings {
  const attached = pairsByInstance(pairs)
  return {
    groups,
    pairs,
    partsOf(instance) {
      const group = groups.get(instance.group_id)
      assert(group !== undefined, 'an instance has a group')
      return {
        group,
        attached: attached.get(instance.id) ?? [],
        tags: tags.get(instance.id) ?? [],
        servers: broken.has(instance.id) ? 1 : 2,
      }
    },
  }
}

/** The API's objects of these instances, in their order. */
export async function instanceObjects(
  db: Queries,
  services: SdrsServices,
  around: InstanceSurroundings,
  instances: readonly ProtectedInstanceRow[],
) {
  const shown = new Set(instances.map((instance) => instance.group_id))
  const groups = [...shown].flatMap((id) => around.groups.get(id) ?? [])
  const pairs = around.pairs.filter((pair) => shown.has(pair.group_id))
  const viewOf = await viewsOf(db, services, groups, pairs)
  return instances.map((instance) =>
    instanceObject(instance, around.partsOf(instance), viewOf(instance.group_id)),
  )
}

/** One instance; null: there is none. Reads only what belongs to its group. */
export async function showInstance(
  db: Queries,
  services: SdrsServices,
  project: string,
  id: string,
) {
  const instance = await findInstance(db, project, id)
  if (instance === undefined) return null
  const group = await readGroup(db, instance.group_id)
  assert(group !== undefined, 'an instance has a group')
  const servers = await readServers(db, [instance.source_server, instance.target_server])
  const around = surroundings(
    new Map([[group.id, group]]),
    await pairsOfGroup(db, group.id),
    new Set(servers.size < 2 ? [id] : []),
    new Map([[id, await tagsOf(db, 'instance', id)]]),
  )
  const [shown] = await instanceObjects(db, services, around, [instance])
  return shown ?? null
}
