import type { Queries, Transaction } from '#control/store/store.ts'

/* How fast backups may read, restores write and copies send: limits of the region, so that they leave something to those who work. */
type Db = Queries | Transaction

export const RATE_KINDS = ['backup', 'restore', 'copy'] as const
export type RateKind = (typeof RATE_KINDS)[number]
/** Bytes per second by kind; 0: as fast as it goes. */
export type Rates = Readonly<Record<RateKind, number>>

/** Below it, one block of a volume would take longer than anybody waits for a sign of life. */
export const RATE_BYTES_MIN = 64 * 1024
export const RATE_BYTES_MAX = 1024 ** 4

export async function readRates(db: Db): Promise<Rates> {
  const rows = await db.selectFrom('backup_rates').selectAll().execute()
  const of = (kind: RateKind) =>
    Number(rows.find((row) => row.kind === kind)?.bytes_per_second ?? 0)
  return { backup: of('backup'), restore: of('restore'), copy: of('copy') }
}

/** Kinds that are left out stay as they are. In force for what begins from now on. */
export async function setRates(tx: Transaction, rates: Partial<Rates>): Promise<void> {
  for (const kind of RATE_KINDS) {
    const bytes = rates[kind]
    if (bytes === undefined) continue
    await tx
      .insertInto('backup_rates')
      .values({ kind, bytes_per_second: bytes })
      .onConflict((conflict) => conflict.column('kind').doUpdateSet({ bytes_per_second: bytes }))
      .execute()
  }
}

/** What one piece of work may do that asked for `own` (0: nothing): never more than the region allows. */
export async function rateOf(db: Db, kind: RateKind, own: number): Promise<number> {
  const limit = (await readRates(db))[kind]
  if (own === 0 || limit === 0) return Math.max(own, limit)
  return Math.min(own, limit)
}
