import {
  drServer,
  instancesOfGroup,
  instanceStatus,
  productionServer,
} from '#control/resources/instances.ts'
import { movePort, portsOf, readPort } from '#control/resources/networks.ts'
import { readServer, updateServer } from '#control/resources/servers.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import type { ProtectedInstanceRow } from '#control/store/tables/servers.ts'
import { identityMoves } from '#domain/protected-instance.ts'
import { raiseGeneration } from '../servers/server-definition.ts'

/* Who is who after a switch.
 *
 * A protected instance has one identity: the NICs (MAC, address) of its production server. It moves to the server at the other site in the
 * transaction that moves the group's station, so no committed state has two servers with it, or none. The server that is no longer
 * production shows the spare port: at once after a reversal, after a failover only once the group is protected again.
 *
 * Both servers' definitions get a new generation here. What the agents have is brought after them by the operation, and for a site that
 * is silent by power-sync.ts when it returns.
 */

type Db = Queries | Transaction

/** Instances of the group whose servers change their roles with it. */
export async function switchingInstances(db: Db, group: string): Promise<ProtectedInstanceRow[]> {
  const instances = await instancesOfGroup(db, group)
  return instances.filter((instance) => identityMoves(instanceStatus(instance)))
}

/**
 * Gives the ports to the servers that are production by `group`, which is the row as it is from now on. `spare`: where the spare port
 * goes, to the other server or to nobody. Safe to repeat.
 */
export async function moveIdentities(
  tx: Transaction,
  group: ProtectionGroupRow,
  spare: 'swapped' | 'waits',
  nowMs: number,
): Promise<void> {
  for (const instance of await switchingInstances(tx, group.id)) {
    const to = productionServer(group, instance)
    const from = drServer(group, instance)
    const ports = await portsOf(tx, [from, to])
    for (const port of ports.get(from) ?? []) {
      if (port.id !== instance.spare_port) await movePort(tx, port.id, to, port.place)
    }
    await placeSpare(tx, instance, to, from, spare)
    await standDown(tx, from, nowMs)
    await forgetStops(tx, [to])
    await raiseGeneration(tx, from)
    await raiseGeneration(tx, to)
  }
}

/** From the server that is production now, or from nobody. Where it is already, it stays. */
async function placeSpare(
  tx: Transaction,
  instance: ProtectedInstanceRow,
  production: string,
  other: string,
  spare: 'swapped' | 'waits',
): Promise<void> {
  if (instance.spare_port === null) return
  const port = await readPort(tx, instance.spare_port)
  if (port === undefined || (port.server !== production && port.server !== null)) return
  await movePort(tx, port.id, spare === 'swapped' ? other : null, 0)
}

/** It is not to run any more, whether its site hears that now or later. */
export async function standDown(tx: Transaction, server: string, nowMs: number): Promise<void> {
  const row = await readServer(tx, server)
  if (row === undefined || !RUNS.has(row.status)) return
  await updateServer(tx, server, { status: 'stopped' }, nowMs)
}
const RUNS = new Set(['active', 'rebooting', 'hard_rebooting'])

/** Protected again: the servers of the DR site get the ports that waited since the failover. */
export async function wearSpares(tx: Transaction, group: ProtectionGroupRow): Promise<void> {
  for (const instance of await switchingInstances(tx, group.id))
    await wearSpare(tx, group, instance)
}

export async function wearSpare(
  tx: Transaction,
  group: ProtectionGroupRow,
  instance: ProtectedInstanceRow,
): Promise<void> {
  const port = instance.spare_port === null ? undefined : await readPort(tx, instance.spare_port)
  if (port === undefined || port.server !== null) return
  const server = drServer(group, instance)
  await movePort(tx, port.id, server, 0)
  await raiseGeneration(tx, server)
}

/** An order to stop a server that has become production since is void. */
export async function forgetStops(tx: Transaction, servers: readonly string[]): Promise<void> {
  if (servers.length === 0) return
  const chores = await tx
    .selectFrom('site_chores')
    .select(['id', 'request'])
    .where('command', '=', 'server.stop')
    .execute()
  const stale = chores.filter(({ request }) => servers.some((id) => request.includes(`"${id}"`)))
  if (stale.length === 0) return
  await tx
    .deleteFrom('site_chores')
    .where(
      'id',
      'in',
      stale.map(({ id }) => id),
    )
    .execute()
}
