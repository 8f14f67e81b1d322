import type { Queries, Transaction } from '#control/store/store.ts'
import { QUOTAS } from '#domain/quota.ts'

/* Limits of plans and checkpoints have classes: a project without a limit of its own has that of the class `default`. */
type Db = Queries | Transaction

export type ClassedKind = 'backup_plans' | 'checkpoints'

/** A class has its limits where a project has them, under a name that no project can have. */
export const classOf = (name: string): string => `class:${name}`
const DEFAULT_CLASS = 'default'

async function ownLimit(db: Db, project: string, kind: ClassedKind): Promise<number | undefined> {
  const row = await db
    .selectFrom('quotas')
    .select('quota_limit')
    .where('project', '=', project)
    .where('kind', '=', kind)
    .executeTakeFirst()
  return row?.quota_limit
}

/** Left out: the class of those without limits of their own. */
export const classLimit = async (
  db: Db,
  kind: ClassedKind,
  name = DEFAULT_CLASS,
): Promise<number> => (await ownLimit(db, classOf(name), kind)) ?? QUOTAS[kind].fallback

/** That of the project, or else of the default class. */
export const classedLimit = async (db: Db, project: string, kind: ClassedKind): Promise<number> =>
  (await ownLimit(db, project, kind)) ?? (await classLimit(db, kind))
