import { newHexId, newId } from '#base/ids.ts'
import type { OperationRow } from '#control/store/tables/operations.ts'

/** The row of an operation that failed, about some volume of nobody; `over` has what the test is about. */
export const operationRow = (
  over: Partial<OperationRow> & Pick<OperationRow, 'project' | 'ordinal'>,
): OperationRow => {
  const id = over.id ?? newHexId()
  return {
    id,
    kind: 'volume.create',
    version: 1,
    resource_type: 'volume',
    resource_id: newId(),
    parent: null,
    root: id,
    input: '{}',
    status: 'failed',
    step: 0,
    progress: 0,
    joining: 0,
    cancel_wanted: 0,
    attempts: 1,
    run_at: 0,
    error_code: 'SITE_REFUSED',
    fail_reason: 'the site refused',
    failed_step: 'create',
    entities: '{}',
    created_at: 1,
    begin_at: 1,
    end_at: 2,
    lease_owner: null,
    lease_beat: 0,
    lease_beat_at: null,
    ...over,
  }
}
