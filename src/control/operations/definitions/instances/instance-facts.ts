import { assert } from '#base/assert.ts'
import {
  groupStation,
  groupStatus,
  pairsOfGroup,
  pairStatus,
  readGroup,
} from '#control/resources/groups.ts'
import {
  attachedPairs,
  instancesOfGroup,
  instanceStatus,
  ownPairs,
  productionServer,
} from '#control/resources/instances.ts'
import { findImage } from '#control/resources/images.ts'
import { readServer } from '#control/resources/servers.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import type { ProtectedInstanceRow, ServerRow } from '#control/store/tables/servers.ts'
import { findFlavor } from '#domain/flavor.ts'
import {
  INSTANCE_BUSY,
  type InstanceFacts,
  shownInstanceStatus,
} from '#domain/protected-instance.ts'
import type { GroupFacts } from '#domain/protection-group.ts'
import type { Power, ServerBrief } from '#wire/site/servers.ts'

/* What protected instances say when a command on their group, or on one of them, is judged. */

type Db = Queries | Transaction
interface Sources {
  readonly agents: AgentRegistry
}

export type InstanceFactsOfGroup = Pick<
  GroupFacts,
  'instances' | 'busyInstances' | 'brokenInstances' | 'runningProduction' | 'runningDr'
>

/** In rows of one project the servers of these ids; both engines bound the number of parameters. */
export async function readServers(
  db: Db,
  ids: readonly string[],
): Promise<ReadonlyMap<string, ServerRow>> {
  const found = new Map<string, ServerRow>()
  for (let at = 0; at < ids.length; at += 500) {
    const rows = await db
      .selectFrom('servers')
      .selectAll()
      .where('id', 'in', ids.slice(at, at + 500))
      .execute()
    for (const row of rows) found.set(row.id, row)
  }
  return found
}

export async function instanceFactsOf(
  db: Db,
  sources: Sources,
  group: ProtectionGroupRow,
): Promise<{
  readonly facts: InstanceFactsOfGroup
  readonly instances: readonly ProtectedInstanceRow[]
}> {
  const instances = await instancesOfGroup(db, group.id)
  const servers = await readServers(
    db,
    instances.flatMap((one) => [one.source_server, one.target_server]),
  )
  const power = powerBook(sources)
  let runningProduction = 0
  let runningDr = 0
  let brokenInstances = 0
  for (const instance of instances) {
    const production = productionServer(group, instance)
    for (const id of [instance.source_server, instance.target_server]) {
      const server = servers.get(id)
      if (server === undefined || isOff(server, power(server))) continue
      if (id === production) runningProduction++
      else runningDr++
    }
    if (!servers.has(instance.source_server) || !servers.has(instance.target_server)) {
      brokenInstances++
    }
  }
  return {
    instances,
    facts: {
      instances: instances.length,
      busyInstances: instances.filter((one) => INSTANCE_BUSY.has(instanceStatus(one))).length,
      brokenInstances,
      runningProduction,
      runningDr,
    },
  }
}

/** What the hypervisors said last: in a report, or in answer to a command, which the row has before a report does. */
export function powerBook({ agents }: Sources): (server: ServerRow) => Power {
  const sites = new Map<string, ReadonlyMap<string, ServerBrief>>()
  return (server) => {
    let reported = sites.get(server.az)
    if (reported === undefined) {
      const servers = agents.at(server.az)?.report.servers ?? []
      reported = new Map(servers.map((one) => [one.server, one]))
      sites.set(server.az, reported)
    }
    const brief = reported.get(server.id)
    // Both times are of the site's own clock.
    return brief !== undefined && brief.power_since > server.power_at
      ? brief.power
      : (server.power as Power)
  }
}

/** Nothing runs and nothing is about to. A server whose start is under way counts as running. */
export const isOff = (server: ServerRow, power: Power): boolean =>
  power === 'off' &&
  server.task === null &&
  (server.status === 'stopped' || server.status === 'error')

// ---------------------------------------------------------------- one instance

/** Everything by which a command on the instance is judged. */
export async function instanceFacts(
  tx: Db,
  instance: ProtectedInstanceRow,
): Promise<{
  readonly facts: InstanceFacts
  readonly group: ProtectionGroupRow
  readonly pairs: readonly ReplicationPairRow[]
}> {
  const group = await readGroup(tx, instance.group_id)
  assert(group !== undefined, 'an instance has a group')
  const pairs = await pairsOfGroup(tx, group.id)
  const attached = attachedPairs(pairs, instance.id).map(({ pair }) => pairStatus(pair))
  let servers = 0
  for (const id of [instance.source_server, instance.target_server]) {
    if ((await readServer(tx, id)) !== undefined) servers++
  }
  return {
    group,
    pairs,
    facts: {
      status: shownInstanceStatus(instanceStatus(instance), attached, servers),
      group: groupStatus(group),
      station: groupStation(group),
      ownPairs: ownPairs(pairs, instance.id).map(({ pair }) => pairStatus(pair)),
    },
  }
}

/** A flavor of the list, with the memory that the server's image needs. */
export async function flavorSuits(
  tx: Db,
  server: Pick<ServerRow, 'image'>,
  name: string,
): Promise<boolean> {
  const flavor = findFlavor(name)
  if (flavor === undefined) return false
  const image = server.image === null ? undefined : await findImage(tx, server.image)
  return image === undefined || image.min_memory_mb <= flavor.memoryMb
}
