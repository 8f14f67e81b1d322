import { assert } from '#base/assert.ts'
import { fromJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { PortRow, SecurityGroupRow, SubnetRow } from '#control/store/tables/networks.ts'
import type { ImageRow, ServerDiskRow, ServerRow } from '#control/store/tables/servers.ts'
import { findFlavor, type Flavor } from '#domain/flavor.ts'

/* Servers with everything that an API shows of them. A list of any length costs the same few queries, because what belongs to one
 * project is read as a whole and put together here; of a few servers only their own rows are read. */
type Db = Queries | Transaction

/** Only what is shown: with a thousand servers, columns cost more than rows. */
const DISK_COLUMNS = [
  'volume',
  'server',
  'device',
  'boot_index',
  'state',
  'delete_with_server',
] as const
const PORT_COLUMNS = [
  'id',
  'subnet',
  'mac',
  'address',
  'server',
  'place',
  'security_groups',
] as const

/** Up to here, rows are asked for by the ids of their servers; beyond it by project. */
const BY_ID_MAX = 100

export type DiskView = Pick<ServerDiskRow, (typeof DISK_COLUMNS)[number]>

export interface NicView {
  readonly port: Pick<PortRow, (typeof PORT_COLUMNS)[number]>
  readonly subnet: SubnetRow
  /** Ids, in the order in which they were given. */
  readonly groups: readonly string[]
}

export interface ServerView {
  readonly server: ServerRow
  readonly flavor: Flavor
  /** Null: the root disk was there before the server, or its image is no longer offered. */
  readonly image: ImageRow | null
  /** The root disk first, the others by device. */
  readonly disks: readonly DiskView[]
  /** The primary one first. */
  readonly nics: readonly NicView[]
  /** The groups of all NICs, each once. */
  readonly groups: readonly SecurityGroupRow[]
  readonly tags: Readonly<Record<string, string>>
}

/** One view for each row, in their order. The rows are of one project. */
export async function viewServers(
  db: Db,
  project: string,
  servers: readonly ServerRow[],
): Promise<ServerView[]> {
  if (servers.length === 0) return []
  const only = servers.length > BY_ID_MAX ? null : servers.map(({ id }) => id)
  const disks = groupBy(await readDisks(db, project, only), (disk) => disk.server)
  const ports = groupBy(await readPorts(db, project, only), (port) => port.server ?? '')
  const tags = groupBy(await readTags(db, project, only), (tag) => tag.resource)
  const subnets = new Map((await readOf(db, 'subnets', project)).map((row) => [row.id, row]))
  const groups = new Map((await readOf(db, 'security_groups', project)).map((row) => [row.id, row]))
  const images = await db.selectFrom('images').selectAll().execute()
  return servers.map((server) => {
    const flavor = findFlavor(server.flavor)
    assert(flavor !== undefined, 'a server has a flavor of the list')
    const nics = (ports.get(server.id) ?? []).flatMap((port): NicView[] => {
      const subnet = subnets.get(port.subnet)
      return subnet === undefined ? [] : [{ port, subnet, groups: groupsOf(port) }]
    })
    return {
      server,
      flavor,
      image: images.find(({ id }) => id === server.image) ?? null,
      disks: disks.get(server.id) ?? [],
      nics,
      groups: [...new Set(nics.flatMap((nic) => nic.groups))].flatMap((id) => {
        const group = groups.get(id)
        return group === undefined ? [] : [group]
      }),
      tags: Object.fromEntries((tags.get(server.id) ?? []).map(({ key, value }) => [key, value])),
    }
  })
}

const groupsOf = (port: NicView['port']): string[] => fromJson<string[]>(port.security_groups)

async function readDisks(
  db: Db,
  project: string,
  servers: readonly string[] | null,
): Promise<DiskView[]> {
  let query = db.selectFrom('server_disks').select(DISK_COLUMNS).where('project', '=', project)
  if (servers !== null) query = query.where('server', 'in', servers)
  return (await query.execute()).sort(diskOrder)
}

/** What is booted from first, then by device. */
function diskOrder(a: DiskView, b: DiskView): number {
  const rank = (disk: DiskView) => disk.boot_index ?? Number.MAX_SAFE_INTEGER
  return rank(a) - rank(b) || (a.device < b.device ? -1 : a.device > b.device ? 1 : 0)
}

async function readPorts(
  db: Db,
  project: string,
  servers: readonly string[] | null,
): Promise<NicView['port'][]> {
  let query = db.selectFrom('ports').select(PORT_COLUMNS).where('project', '=', project)
  query =
    servers === null ? query.where('server', 'is not', null) : query.where('server', 'in', servers)
  const rows = await query.execute()
  return rows.sort((a, b) => a.place - b.place || (a.id < b.id ? -1 : 1))
}

async function readTags(db: Db, project: string, servers: readonly string[] | null) {
  let query = db
    .selectFrom('tags')
    .select(['resource', 'key', 'value'])
    .where('project', '=', project)
    .where('kind', '=', 'server')
    .orderBy('key')
  if (servers !== null) query = query.where('resource', 'in', servers)
  return await query.execute()
}

function readOf(db: Db, table: 'subnets', project: string): Promise<SubnetRow[]>
function readOf(db: Db, table: 'security_groups', project: string): Promise<SecurityGroupRow[]>
async function readOf(db: Db, table: 'subnets' | 'security_groups', project: string) {
  return await db.selectFrom(table).selectAll().where('project', '=', project).execute()
}

function groupBy<Row>(rows: readonly Row[], key: (row: Row) => string): Map<string, Row[]> {
  const found = new Map<string, Row[]>()
  for (const row of rows) {
    const list = found.get(key(row))
    if (list === undefined) found.set(key(row), [row])
    else list.push(row)
  }
  return found
}
