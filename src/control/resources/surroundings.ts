import { createHash } from 'node:crypto'
import { newId } from '#base/ids.ts'
import { toJson } from '#control/store/json.ts'
import type { Queries, Store, Transaction } from '#control/store/store.ts'
import type { VpcRow } from '#control/store/tables/networks.ts'
import type { ActiveDomainRow, SiteChoreRow } from '#control/store/tables/resources.ts'
import { QUOTAS, type QuotaKind } from '#domain/quota.ts'

/** What volumes and groups refer to: volume types, domains, networks, quotas; and what silent sites still have to do. */
type Db = Queries | Transaction

/** Names that existing automation asks for. One class of storage stands behind all of them. */
const VOLUME_TYPES = ['ESSD', 'GPSSD', 'SAS', 'SATA', 'SSD'] as const

/** The type of a volume that names none. */
export const DEFAULT_VOLUME_TYPE = 'SSD'

/** Fills the tables that every installation has, once; ids stay for its life. Run at every start. */
export async function seedResources(
  store: Store,
  options: { readonly region: string; readonly sites: readonly string[]; readonly nowMs: number },
): Promise<void> {
  const { region, sites, nowMs } = options
  await store.write(async (tx) => {
    const types = await tx.selectFrom('volume_types').select('name').execute()
    for (const name of VOLUME_TYPES) {
      if (types.some((one) => one.name === name)) continue
      const row = { id: newId(), name, description: `Files at the site's agent`, created_at: nowMs }
      await tx.insertInto('volume_types').values(row).execute()
    }
    const [local, remote] = sites
    if (local === undefined || remote === undefined) return
    const domains = await listDomains(tx)
    if (domains.some((one) => one.local_az === local && one.remote_az === remote)) return
    await tx
      .insertInto('active_domains')
      .values({
        id: newId(),
        name: `${region}-${local}-${remote}`,
        description: `Synchronous replication between ${local} and ${remote}`,
        local_az: local,
        remote_az: remote,
        created_at: nowMs,
      })
      .execute()
  })
}

export async function listDomains(db: Db): Promise<ActiveDomainRow[]> {
  return await db
    .selectFrom('active_domains')
    .selectAll()
    .orderBy('created_at')
    .orderBy('id')
    .execute()
}

// ---------------------------------------------------------------- networks

const DEFAULT_VPC_CIDR = '192.168.0.0/16'

/**
 * The default network of a project. Its id follows from the project's, so it is known before the row is written and
 * two control planes cannot make two of them.
 */
export function defaultVpcId(project: string): string {
  const hex = createHash('sha256').update(`default vpc of ${project}`).digest('hex')
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `4${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join('-')
}

/** Networks of a project, the default one first. It exists as soon as the project does, row or not. */
export async function listVpcs(db: Db, project: string): Promise<VpcRow[]> {
  const rows = await db
    .selectFrom('vpcs')
    .selectAll()
    .where('project', '=', project)
    .orderBy('created_at')
    .orderBy('id')
    .execute()
  const id = defaultVpcId(project)
  if (rows.some((row) => row.id === id)) return rows
  return [
    { id, project, name: 'default', cidr: DEFAULT_VPC_CIDR, description: '', created_at: 0 },
    ...rows,
  ]
}

// ---------------------------------------------------------------- quotas

export async function quotaLimit(db: Db, project: string, kind: QuotaKind): Promise<number> {
  const row = await db
    .selectFrom('quotas')
    .select('quota_limit')
    .where('project', '=', project)
    .where('kind', '=', kind)
    .executeTakeFirst()
  return row?.quota_limit ?? QUOTAS[kind].fallback
}

export async function setQuotaLimit(
  tx: Transaction,
  project: string,
  kind: QuotaKind,
  limit: number,
): Promise<void> {
  await tx
    .insertInto('quotas')
    .values({ project, kind, quota_limit: limit })
    .onConflict((conflict) =>
      conflict.columns(['project', 'kind']).doUpdateSet({ quota_limit: limit }),
    )
    .execute()
}

export async function quotaUsed(db: Db, project: string, kind: QuotaKind): Promise<number> {
  switch (kind) {
    case 'server_groups':
      return await count(db, 'protection_groups', project)
    case 'replications':
      return await count(db, 'replication_pairs', project)
    case 'volumes':
      return await count(db, 'volumes', project)
    case 'gigabytes': {
      const row = await db
        .selectFrom('volumes')
        .select((eb) => eb.fn.sum<number | null>('size_gb').as('sum'))
        .where('project', '=', project)
        .executeTakeFirst()
      return Number(row?.sum ?? 0)
    }
  }
}

async function count(
  db: Db,
  table: 'protection_groups' | 'replication_pairs' | 'volumes',
  project: string,
): Promise<number> {
  const row = await db
    .selectFrom(table)
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('project', '=', project)
    .executeTakeFirst()
  return Number(row?.count ?? 0)
}

// ---------------------------------------------------------------- chores of silent sites

export async function addChore(
  tx: Transaction,
  chore: { readonly site: string; readonly command: string; readonly request: unknown },
  nowMs: number,
): Promise<void> {
  const last = await tx
    .selectFrom('site_chores')
    .select((eb) => eb.fn.max('ordinal').as('ordinal'))
    .executeTakeFirst()
  await tx
    .insertInto('site_chores')
    .values({
      id: newId(),
      site: chore.site,
      command: chore.command,
      request: toJson(chore.request),
      created_at: nowMs,
      ordinal: Number(last?.ordinal ?? 0) + 1,
      attempts: 0,
      last_error: null,
    })
    .execute()
}

/** In the order in which they were added: a site must carry them out one after the other. */
export async function listChores(db: Db, site: string): Promise<SiteChoreRow[]> {
  return await db
    .selectFrom('site_chores')
    .selectAll()
    .where('site', '=', site)
    .orderBy('ordinal')
    .orderBy('id')
    .execute()
}

export async function endChore(tx: Transaction, id: string): Promise<void> {
  await tx.deleteFrom('site_chores').where('id', '=', id).execute()
}

export async function failChore(tx: Transaction, id: string, error: string): Promise<void> {
  await tx
    .updateTable('site_chores')
    .set((eb) => ({ attempts: eb('attempts', '+', 1), last_error: error }))
    .where('id', '=', id)
    .execute()
}
