/**
 * Quotas of a project. A limit of -1 means unlimited; a project without an entry of its own has the default.
 */
export type QuotaKind =
  | 'server_groups'
  | 'replications'
  | 'volumes'
  | 'gigabytes'
  | 'instances'
  | BackupQuotaKind
  | NetworkQuotaKind

/** Backups of servers, their gigabytes, and what one older API counts: plans and runs. */
export type BackupQuotaKind = 'backups' | 'backup_capacity' | 'backup_plans' | 'checkpoints'

/** Each counts the rows of one table. */
export type NetworkQuotaKind =
  | 'vpcs'
  | 'subnets'
  | 'ports'
  | 'security_groups'
  | 'security_group_rules'

export interface QuotaRule {
  readonly fallback: number
  /** Lowest and highest limit that an administrator may set; -1 as highest: no bound. */
  readonly min: number
  readonly max: number
}

export const UNLIMITED = -1

/** One data-plane process hosts every group of its site; a thousand groups are what it is measured with. */
export const QUOTAS: Record<QuotaKind, QuotaRule> = {
  server_groups: { fallback: 1000, min: 0, max: UNLIMITED },
  replications: { fallback: 10_000, min: 0, max: UNLIMITED },
  volumes: { fallback: UNLIMITED, min: 0, max: UNLIMITED },
  gigabytes: { fallback: UNLIMITED, min: 0, max: UNLIMITED },
  // Servers, those included that stand by at the other site.
  instances: { fallback: 2000, min: 0, max: UNLIMITED },
  backups: { fallback: UNLIMITED, min: UNLIMITED, max: UNLIMITED },
  backup_capacity: { fallback: UNLIMITED, min: UNLIMITED, max: UNLIMITED },
  backup_plans: { fallback: 50, min: UNLIMITED, max: UNLIMITED },
  checkpoints: { fallback: UNLIMITED, min: UNLIMITED, max: UNLIMITED },
  vpcs: { fallback: 100, min: 0, max: UNLIMITED },
  subnets: { fallback: 200, min: 0, max: UNLIMITED },
  // Two and a half for each server that a project may have.
  ports: { fallback: 5000, min: 0, max: UNLIMITED },
  security_groups: { fallback: 100, min: 0, max: UNLIMITED },
  security_group_rules: { fallback: 5000, min: 0, max: UNLIMITED },
}

export const QUOTA_KINDS = Object.keys(QUOTAS) as QuotaKind[]

export const isQuotaKind = (value: string): value is QuotaKind => Object.hasOwn(QUOTAS, value)

/** Larger ones are not stored exactly; nobody counts so far. */
export const QUOTA_LIMIT_MAX = 2 ** 31 - 1

export type QuotaRefusal = 'QUOTA_OUT_OF_RANGE' | 'QUOTA_BELOW_USAGE'

/** Whether an administrator may set this limit; null: yes. `used`: what the project has now. */
export function judgeQuota(kind: QuotaKind, limit: number, used: number): QuotaRefusal | null {
  const { min, max } = QUOTAS[kind]
  if (limit === UNLIMITED) return max === UNLIMITED ? null : 'QUOTA_OUT_OF_RANGE'
  const inRange =
    Number.isInteger(limit) && limit >= min && limit <= (max === UNLIMITED ? QUOTA_LIMIT_MAX : max)
  if (!inRange) return 'QUOTA_OUT_OF_RANGE'
  return limit < used ? 'QUOTA_BELOW_USAGE' : null
}

/** True when `more` further units still fit. */
export const fits = (limit: number, used: number, more = 1): boolean =>
  limit === UNLIMITED || used + more <= limit
