import { newId } from '#base/ids.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { Queries, Store, Transaction } from '#control/store/store.ts'
import type { ActiveDomainRow, SiteChoreRow } from '#control/store/tables/resources.ts'
import { type NetworkQuotaKind, QUOTAS, type QuotaKind } from '#domain/quota.ts'
import { VOLUME_TYPES } from '#domain/volume-type.ts'
import { seedImages } from './images.ts'

/** What volumes and groups refer to: volume types, domains, quotas; and what silent sites still have to do. */
type Db = Queries | Transaction

/** Fills the tables that every installation has, once; ids stay for its life. Run at every start. */
export async function seedResources(
  store: Store,
  options: { readonly region: string; readonly sites: readonly string[]; readonly nowMs: number },
): Promise<void> {
  const { region, sites, nowMs } = options
  await store.write(async (tx) => {
    await seedImages(tx, nowMs)
    const types = await tx.selectFrom('volume_types').select('name').execute()
    for (const name of Object.keys(VOLUME_TYPES)) {
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

/** The default counts again. */
export async function dropQuotaLimit(
  tx: Transaction,
  project: string,
  kind: QuotaKind,
): Promise<void> {
  await tx.deleteFrom('quotas').where('project', '=', project).where('kind', '=', kind).execute()
}

export async function quotaUsed(db: Db, project: string, kind: QuotaKind): Promise<number> {
  switch (kind) {
    case 'server_groups':
      // The group of a pair that works alone is no group to anybody.
      return await numberOf(counted(db, 'protection_groups', project).where('form', '!=', 'lone'))
    case 'replications':
      return await numberOf(counted(db, 'replication_pairs', project))
    case 'instances': {
      const servers = counted(db, 'servers', project)
      return await numberOf(servers.where('id', 'not in', serversGivenUp(db, project)))
    }
    case 'volumes': {
      const volumes = counted(db, 'volumes', project)
      return await numberOf(volumes.where('id', 'not in', disksGivenUp(db, project)))
    }
    case 'gigabytes':
      return await numberOf(
        db
          .selectFrom('volumes')
          .select((eb) => eb.fn.sum<number | null>('size_gb').as('number'))
          .where('project', '=', project)
          .where('id', 'not in', disksGivenUp(db, project)),
      )
    case 'ports': {
      const gone = serversGivenUp(db, project)
      const ports = counted(db, 'ports', project)
      return await numberOf(
        ports.where((eb) => eb.or([eb('server', 'is', null), eb('server', 'not in', gone)])),
      )
    }
    case 'backups':
      return await numberOf(counted(db, 'checkpoint_items', project))
    case 'backup_capacity': {
      const megabytes = await numberOf(
        db
          .selectFrom('checkpoint_items')
          .select((eb) => eb.fn.sum<number | null>('size_mb').as('number'))
          .where('project', '=', project),
      )
      return Math.ceil(megabytes / 1024)
    }
    case 'backup_plans':
    case 'checkpoints':
    case 'vpcs':
    case 'subnets':
    case 'security_groups':
    case 'security_group_rules':
      return await numberOf(counted(db, kind, project))
  }
}

/** How many rows a table has for a project. */
const counted = (
  db: Db,
  table:
    | 'protection_groups'
    | 'replication_pairs'
    | 'servers'
    | 'volumes'
    | 'checkpoint_items'
    | 'backup_plans'
    | 'checkpoints'
    | NetworkQuotaKind,
  project: string,
) =>
  db
    .selectFrom(table)
    .select((eb) => eb.fn.countAll<number>().as('number'))
    .where('project', '=', project)

/** PostgreSQL gives its large numbers as text; the sum of nothing is null. */
async function numberOf(query: {
  executeTakeFirst(): Promise<{ readonly number: number | null } | undefined>
}): Promise<number> {
  return Number((await query.executeTakeFirst())?.number ?? 0)
}

/* What drills have left at a site that may never be heard again counts no longer when somebody has given them up: nobody could free it. */

const serversGivenUp = (db: Db, project: string) =>
  db
    .selectFrom('drill_servers')
    .innerJoin('drills', 'drills.id', 'drill_servers.drill')
    .select('drill_servers.server')
    .where('drills.project', '=', project)
    .where('drills.forced_at', 'is not', null)

const disksGivenUp = (db: Db, project: string) =>
  db
    .selectFrom('drill_disks')
    .innerJoin('drills', 'drills.id', 'drill_disks.drill')
    .select('drill_disks.volume')
    .where('drills.project', '=', project)
    .where('drills.forced_at', 'is not', null)

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

/** Orders to serve one of these disks that the site has not carried out are withdrawn. */
export async function endDiskChores(
  tx: Transaction,
  site: string,
  volumes: readonly string[],
): Promise<void> {
  for (const chore of await listChores(tx, site)) {
    const volume = servedBy(chore)
    if (volume !== null && volumes.includes(volume)) await endChore(tx, chore.id)
  }
}

/** The disk that a chore has its site serve; null: it is about something else. */
export function servedBy(chore: Pick<SiteChoreRow, 'command' | 'request'>): string | null {
  if (chore.command !== 'volume.serve') return null
  return fromJson<{ volume: string }>(chore.request).volume
}

/** Those with this very request, whatever became of them: it is not wanted any more. */
export async function dropChores(
  tx: Transaction,
  { site, command, request }: Parameters<typeof addChore>[1],
): Promise<void> {
  await tx
    .deleteFrom('site_chores')
    .where('site', '=', site)
    .where('command', '=', command)
    .where('request', '=', toJson(request))
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
