import { fromJson } from '#control/store/json.ts'
import type { Queries } from '#control/store/store.ts'
import type { OperationRow, OperationStatus } from '#control/store/tables/operations.ts'
import type { OperationKind } from './operation.ts'
import { findOperation } from './records.ts'

/* Operations as whoever asks for them sees them. */

/** An operation as others see it. */
export interface OperationView {
  readonly id: string
  readonly kind: string
  readonly version: number
  readonly project: string | null
  readonly resourceType: string
  readonly resourceId: string
  readonly parent: string | null
  readonly input: unknown
  readonly status: OperationStatus
  /** Name of the step that runs, or ran last. */
  readonly step: string | null
  /** 0 to 100. */
  readonly progress: number
  readonly errorCode: string | null
  readonly failReason: string | null
  readonly failedStep: string | null
  readonly entities: Readonly<Record<string, unknown>>
  /** Wall clock, ms since 1970. */
  readonly createdAt: number
  readonly beginAt: number | null
  readonly endAt: number | null
}

export interface OperationFilter {
  readonly project?: string
  readonly resourceType?: string
  readonly resourceId?: string
  readonly parent?: string
  readonly status?: readonly OperationStatus[]
  /** At most this many, newest first. Default 100, at most 1000. */
  readonly limit?: number
  /** Only those after this one in the list's order. */
  readonly after?: string
}

/** `kind`: left out, this release does not know it. */
export function toView(row: OperationRow, kind: OperationKind<never> | undefined): OperationView {
  const steps = kind?.steps ?? []
  return {
    id: row.id,
    kind: row.kind,
    version: row.version,
    project: row.project,
    resourceType: row.resource_type,
    resourceId: row.resource_id,
    parent: row.parent,
    input: fromJson<unknown>(row.input),
    status: row.status,
    step: steps[Math.min(row.step, steps.length - 1)]?.name ?? null,
    progress: row.progress,
    errorCode: row.error_code,
    failReason: row.fail_reason,
    failedStep: row.failed_step,
    entities: fromJson<Record<string, unknown>>(row.entities),
    createdAt: row.created_at,
    beginAt: row.begin_at,
    endAt: row.end_at,
  }
}

const LIST_MOST = 1_000

/** Newest first. */
export async function listOperations(
  db: Queries,
  filter: OperationFilter,
): Promise<OperationRow[]> {
  let query = db
    .selectFrom('operations')
    .selectAll()
    .orderBy('ordinal', 'desc')
    .orderBy('id', 'desc')
    .limit(Math.min(filter.limit ?? 100, LIST_MOST))
  if (filter.project !== undefined) query = query.where('project', '=', filter.project)
  if (filter.resourceType !== undefined) {
    query = query.where('resource_type', '=', filter.resourceType)
  }
  if (filter.resourceId !== undefined) {
    query = query.where('resource_id', '=', filter.resourceId)
  }
  if (filter.parent !== undefined) query = query.where('parent', '=', filter.parent)
  if (filter.status !== undefined) query = query.where('status', 'in', [...filter.status])
  if (filter.after !== undefined) {
    const last = await findOperation(db, filter.after)
    if (last === undefined) return []
    query = query.where((eb) =>
      eb.or([
        eb('ordinal', '<', last.ordinal),
        eb.and([eb('ordinal', '=', last.ordinal), eb('id', '<', last.id)]),
      ]),
    )
  }
  return await query.execute()
}
