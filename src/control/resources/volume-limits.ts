import { fromJson, toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { VolumeLimitRow, VolumeRow, VolumeTypeRow } from '#control/store/tables/resources.ts'
import { ratesOf, type TypeLimits, UNLIMITED_TYPE } from '#domain/volume-type.ts'
import { listVolumeTypes } from './volumes.ts'

/* What types of volumes are limited to, and the order that each volume's site gets because of it. */
type Db = Queries | Transaction

export const typeLimits = ({ limits }: VolumeTypeRow): TypeLimits =>
  limits === null ? UNLIMITED_TYPE : fromJson<TypeLimits>(limits)

/** False: there is no such type. */
export async function setTypeLimits(
  tx: Transaction,
  name: string,
  limits: TypeLimits,
): Promise<boolean> {
  const none = limits.iops === null && limits.mibps === null
  const { numUpdatedRows } = await tx
    .updateTable('volume_types')
    .set({ limits: none ? null : toJson(limits) })
    .where('name', '=', name)
    .executeTakeFirst()
  return Number(numUpdatedRows) > 0
}

export async function isReadOnly(db: Db, volume: string): Promise<boolean> {
  const row = await db
    .selectFrom('volume_limits')
    .select('read_only')
    .where('volume', '=', volume)
    .executeTakeFirst()
  return row?.read_only === 1
}

/** A volume's order as it stands, and where it goes. Revision 0: none was ever needed. */
export interface StandingOrder extends VolumeLimitRow {
  readonly az: string
}

type Sized = Pick<VolumeRow, 'id' | 'az' | 'size_gb' | 'volume_type'>

/**
 * Brings the order of one volume to what its type and size say, and to `readOnly` when that is given. Unchanged: the order as it is, with its
 * revision.
 */
export async function orderLimit(
  tx: Transaction,
  volume: Sized,
  nowMs: number,
  readOnly?: boolean,
): Promise<StandingOrder> {
  const limits = await limitsByType(tx)
  const row = await tx
    .selectFrom('volume_limits')
    .selectAll()
    .where('volume', '=', volume.id)
    .executeTakeFirst()
  return await settle(tx, { ...volume, order: row ?? null }, limits, nowMs, readOnly)
}

async function settle(
  tx: Transaction,
  found: Sized & { readonly order: VolumeLimitRow | null },
  limits: ReadonlyMap<string, TypeLimits>,
  nowMs: number,
  readOnly?: boolean,
): Promise<StandingOrder> {
  const { id, az, order } = found
  const wanted = wantedOf(found, limits, readOnly)
  if (isSame(order, wanted)) return { volume: id, az, ...wanted, revision: order?.revision ?? 0 }
  // By the clock, so that a control plane that was restored from a backup orders above what it has forgotten.
  const revision = Math.max(nowMs, (order?.revision ?? 0) + 1)
  const row = { volume: id, ...wanted, revision }
  await tx
    .insertInto('volume_limits')
    .values(row)
    .onConflict((conflict) => conflict.column('volume').doUpdateSet({ ...wanted, revision }))
    .execute()
  return { ...row, az }
}

type Wanted = Pick<VolumeLimitRow, 'iops' | 'bytes_per_second' | 'read_only'>

function wantedOf(
  { size_gb, volume_type, order }: Sized & { readonly order: VolumeLimitRow | null },
  limits: ReadonlyMap<string, TypeLimits>,
  readOnly: boolean | undefined,
): Wanted {
  const { iops, bytesPerSecond } = ratesOf(limits.get(volume_type) ?? UNLIMITED_TYPE, size_gb)
  const read_only = (readOnly ?? order?.read_only === 1) ? 1 : 0
  return { iops, bytes_per_second: bytesPerSecond, read_only }
}

const isSame = (order: VolumeLimitRow | null, wanted: Wanted): boolean =>
  (order?.iops ?? null) === wanted.iops &&
  (order?.bytes_per_second ?? null) === wanted.bytes_per_second &&
  (order?.read_only ?? 0) === wanted.read_only

async function limitsByType(db: Db): Promise<ReadonlyMap<string, TypeLimits>> {
  return new Map((await listVolumeTypes(db)).map((row) => [row.name, typeLimits(row)]))
}

/** Of volumes whose sites have none of them yet, or will not have them again, nothing is said. */
const NOT_AT_SITE = ['creating', 'deleting', 'error'] as const

/** Orders written in one transaction: a large installation must not hold up others for long. */
const WRITTEN_AT_ONCE = 200

/**
 * The standing orders of volumes that have a limit, had one, or should have one; `all`: of every volume. Those that no longer fit their volume are
 * brought up to date first.
 */
export async function standingOrders(
  store: { readonly db: Queries; write<T>(work: (tx: Transaction) => Promise<T>): Promise<T> },
  options: { readonly all: boolean; readonly nowMs: number },
): Promise<StandingOrder[]> {
  const limits = await limitsByType(store.db)
  const found = await readOrders(store.db, limits, options.all)
  const orders: StandingOrder[] = []
  const behind: Sized[] = []
  for (const one of found) {
    const wanted = wantedOf(one, limits, undefined)
    if (!isSame(one.order, wanted)) behind.push(one)
    else {
      orders.push({ volume: one.id, az: one.az, ...wanted, revision: one.order?.revision ?? 0 })
    }
  }
  for (let at = 0; at < behind.length; at += WRITTEN_AT_ONCE) {
    const part = behind.slice(at, at + WRITTEN_AT_ONCE)
    orders.push(
      ...(await store.write(async (tx) => {
        const written: StandingOrder[] = []
        for (const volume of part) written.push(await orderLimit(tx, volume, options.nowMs))
        return written
      })),
    )
  }
  return orders
}

async function readOrders(db: Queries, limits: ReadonlyMap<string, TypeLimits>, all: boolean) {
  const limited = [...limits]
    .filter(([, { iops, mibps }]) => iops !== null || mibps !== null)
    .map(([name]) => name)
  const rows = await db
    .selectFrom('volumes')
    .leftJoin('volume_limits', 'volume_limits.volume', 'volumes.id')
    .select([
      'volumes.id',
      'volumes.az',
      'volumes.size_gb',
      'volumes.volume_type',
      'volume_limits.iops',
      'volume_limits.bytes_per_second',
      'volume_limits.read_only',
      'volume_limits.revision',
    ])
    .where('volumes.status', 'not in', [...NOT_AT_SITE])
    .$if(!all, (query) =>
      query.where((eb) =>
        limited.length === 0
          ? eb('volume_limits.volume', 'is not', null)
          : eb.or([
              eb('volume_limits.volume', 'is not', null),
              eb('volumes.volume_type', 'in', limited),
            ]),
      ),
    )
    .execute()
  return rows.map(({ iops, bytes_per_second, read_only, revision, ...volume }) => ({
    ...volume,
    order:
      revision === null
        ? null
        : { volume: volume.id, iops, bytes_per_second, read_only: read_only ?? 0, revision },
  }))
}

/** A site has a later order than the last that we know of: ours is given a revision above it. */
export async function raiseRevision(
  tx: Transaction,
  volume: string,
  above: number,
  nowMs: number,
): Promise<void> {
  const revision = Math.max(nowMs, above + 1)
  const none = { iops: null, bytes_per_second: null, read_only: 0 as const }
  await tx
    .insertInto('volume_limits')
    .values({ volume, ...none, revision })
    .onConflict((conflict) => conflict.column('volume').doUpdateSet({ revision }))
    .execute()
}
