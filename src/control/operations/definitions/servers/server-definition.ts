import { assert } from '#base/assert.ts'
import { Fault, fault } from '#base/fault.ts'
import { disksOf, readServer } from '#control/resources/servers.ts'
import { listChores } from '#control/resources/surroundings.ts'
import { fromJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import { findFlavor } from '#domain/flavor.ts'
import type { ServerDefinition, ServerInfo } from '#wire/site/servers.ts'
import type { OperationServices } from '../../services.ts'

/* The way from the rows of a server to its agent.
 *
 * The definition is always made from the rows, whole, and numbered: whoever changes a row that it is made from raises the generation in
 * the same transaction (`raiseGeneration`). So one number means one definition, an agent that was given a later one refuses an
 * earlier one, and a change that did not reach the agent shows in its reports as a generation that is too low; then it is defined again
 * (power-sync.ts). Nobody has to undo anything at an agent.
 */

export const SERVER_GONE = fault({
  code: 'SERVER_GONE',
  retry: 'never',
  text: 'The server was deleted meanwhile.',
  hint: 'Nothing is left to be done.',
})

export const SITE_OWES = fault({
  code: 'SITE_OWES',
  retry: 'later',
  text: 'The site has not yet been told of servers that were deleted or stopped while it was silent.',
  hint: 'It is repeated by itself; the site is told as soon as it is heard.',
})

type Db = Queries | Transaction
type Services = Pick<OperationServices, 'store' | 'sites'>

export interface CallOptions {
  readonly signal?: AbortSignal
  /** Longest wait for the agent's answer. Default: that of SiteClient. */
  readonly timeoutMs?: number
}

/** The definition that the rows say, to be read in one transaction or snapshot. Throws SERVER_GONE. */
export async function definitionOf(db: Db, serverId: string): Promise<ServerDefinition> {
  const server = await readServer(db, serverId)
  if (server === undefined) throw new Fault(SERVER_GONE, `defining server ${serverId}`)
  const flavor = findFlavor(server.flavor)
  assert(flavor !== undefined, 'a server has a flavor of the list')
  const disks = (await disksOf(db, [serverId])).get(serverId) ?? []
  return {
    server: server.id,
    generation: server.generation,
    name: server.name,
    vcpus: flavor.vcpus,
    memory_mb: flavor.memoryMb,
    disks: disks
      .filter((disk) => disk.state !== 'detaching')
      .map((disk) => ({
        volume: disk.volume,
        device: disk.device,
        boot_index: disk.boot_index,
      })),
    nics: await nicsOf(db, serverId),
  }
}

async function nicsOf(db: Db, serverId: string): Promise<ServerDefinition['nics']> {
  const rows = await db
    .selectFrom('ports')
    .innerJoin('subnets', 'subnets.id', 'ports.subnet')
    .select([
      'ports.id as port',
      'ports.mac',
      'ports.address',
      'subnets.id as network',
      'subnets.vpc',
      'subnets.cidr',
      'subnets.gateway',
      'subnets.dns',
    ])
    .where('ports.server', '=', serverId)
    .orderBy('ports.place')
    .orderBy('ports.id')
    .execute()
  return rows.map((row) => ({
    port: row.port,
    mac: row.mac,
    address: row.address,
    prefix_length: Number(row.cidr.split('/')[1]),
    gateway: row.gateway === '' ? null : row.gateway,
    dns: fromJson<string[]>(row.dns).slice(0, 5),
    network: row.network,
    domain: row.vpc,
  }))
}

/** In the transaction of every change of what the definition is made from: name, flavor, disks, ports and their subnets. */
export async function raiseGeneration(tx: Transaction, serverId: string): Promise<void> {
  await tx
    .updateTable('servers')
    .set((eb) => ({ generation: eb('generation', '+', 1) }))
    .where('id', '=', serverId)
    .execute()
}

/**
 * Gives the site the definition as it is now. Safe to repeat. A running guest gets and gives back disks and NICs; the answer says what
 * it has. Faults: those of SiteClient.command; SERVER_GONE; SITE_OWES, because a guest that should be gone may have one of the disks.
 */
export async function defineServer(
  services: Services,
  serverId: string,
  options: CallOptions = {},
): Promise<ServerInfo> {
  const { az, definition } = await services.store.read(async (db) => {
    const definition = await definitionOf(db, serverId)
    const { az } = await theServer(db, serverId)
    await refuseOwedDisks(db, az, definition)
    return { az, definition }
  })
  return await services.sites.command(az, 'server.define', { definition }, options)
}

/** What a silent site is to do later. The agent does not look at `volumes`: disks that the guest has until then. */
export interface RemovalChore {
  readonly server: string
  readonly volumes: readonly string[]
}

async function refuseOwedDisks(
  db: Db,
  site: string,
  { server, disks }: ServerDefinition,
): Promise<void> {
  const wanted = new Set(disks.map(({ volume }) => volume))
  for (const { command, request } of await listChores(db, site)) {
    if (command !== 'server.remove') continue
    const owed = fromJson<RemovalChore>(request)
    if (owed.volumes.some((volume) => wanted.has(volume))) {
      throw new Fault(SITE_OWES, `defining ${server} at ${site}`, { site, owed: owed.server })
    }
  }
}

/** How long a guest that was asked to power off may take before it is powered off. */
export const GRACE_MS = 30_000
/** Beyond the grace: the way there and back, and the end of the process. */
const ANSWER_MS = 30_000

/** Answers when the guest is off. Safe to repeat. Faults: those of SiteClient.command; SERVER_GONE. */
export async function powerOffServer(
  services: Services,
  serverId: string,
  { hard, ...options }: Pick<CallOptions, 'signal'> & { readonly hard: boolean },
): Promise<ServerInfo> {
  const { az } = await theServer(services.store.db, serverId)
  const graceMs = hard ? 0 : GRACE_MS
  return await services.sites.command(
    az,
    'server.stop',
    { server: serverId, hard, grace_ms: graceMs },
    { ...options, timeoutMs: graceMs + ANSWER_MS },
  )
}

export async function theServer(db: Db, id: string): Promise<ServerRow> {
  const row = await readServer(db, id)
  if (row === undefined) throw new Fault(SERVER_GONE, `working on server ${id}`)
  return row
}
