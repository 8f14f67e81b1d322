import {
  dropQuotaLimit,
  quotaLimit,
  quotaUsed,
  setQuotaLimit,
} from '#control/resources/surroundings.ts'
import type { Queries, Store, Transaction } from '#control/store/store.ts'
import {
  judgeQuota,
  QUOTA_KINDS,
  type QuotaKind,
  type QuotaRefusal,
  QUOTAS,
} from '#domain/quota.ts'

/* The quotas of a project, as its administrator sees and sets them. */

export interface QuotaView {
  readonly kind: QuotaKind
  /** -1: unlimited. */
  readonly limit: number
  readonly used: number
  /** Holds while no limit of the project's own is set. */
  readonly fallback: number
}

export async function projectQuotas(
  db: Queries | Transaction,
  project: string,
): Promise<QuotaView[]> {
  const found: QuotaView[] = []
  for (const kind of QUOTA_KINDS) {
    found.push({
      kind,
      limit: await quotaLimit(db, project, kind),
      used: await quotaUsed(db, project, kind),
      fallback: QUOTAS[kind].fallback,
    })
  }
  return found
}

/** Which limit could not be set, and why; nothing was changed then. */
export interface RefusedQuota {
  readonly kind: QuotaKind
  readonly refusal: QuotaRefusal
  readonly used: number
}

/** Sets all of these limits or none; null: the default counts again. What the project has already is never taken away. */
export async function changeQuotas(
  store: Store,
  project: string,
  limits: ReadonlyMap<QuotaKind, number | null>,
): Promise<RefusedQuota | null> {
  return await store.write(async (tx) => {
    const checked: [QuotaKind, number | null][] = []
    for (const [kind, limit] of limits) {
      const used = await quotaUsed(tx, project, kind)
      const refusal = judgeQuota(kind, limit ?? QUOTAS[kind].fallback, used)
      if (refusal !== null) return { kind, refusal, used }
      checked.push([kind, limit])
    }
    for (const [kind, limit] of checked) {
      if (limit === null) await dropQuotaLimit(tx, project, kind)
      else await setQuotaLimit(tx, project, kind, limit)
    }
    return null
  })
}
