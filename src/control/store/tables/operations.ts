import type { Bit } from '../bit.ts'

/** Durable operations; see src/control/operations/engine.ts for their life. */
export interface OperationTables {
  operations: OperationRow
  operation_steps: OperationStepRow
}

export type OperationStatus = 'pending' | 'running' | 'succeeded' | 'failed' | 'cancelled'

export interface OperationRow {
  /** 32 hex characters: the API's job id. */
  id: string
  /** Name of the kind and the version it was submitted under: both are a kept format. */
  kind: string
  version: number
  /** Project it belongs to; null for the system's own. */
  project: string | null
  /** Rises with each submission; two that were submitted at once may share it, and `id` decides then. */
  ordinal: number
  /** What it works on. Operations on one resource run one after the other, in order of submission. */
  resource_type: string
  resource_id: string
  /** The operation that started this one; null: none. `root` is the topmost one, itself when it has no parent. */
  parent: string | null
  root: string
  /** JSON. */
  input: string
  status: OperationStatus
  /** Index of the step that runs next or runs now; equals the number of stored results. */
  step: number
  /** 0 to 100, of the whole operation. */
  progress: number
  /** 1: its children are submitted and the present step ends when they have. */
  joining: Bit
  /** 1: somebody asked to cancel it; it stops before the next step that allows it. */
  cancel_wanted: Bit
  /** Starts of the present step that ended in a fault worth repeating. */
  attempts: number
  /** Not to be started before this time (back-off between attempts). */
  run_at: number
  error_code: string | null
  fail_reason: string | null
  /** Name of the step that failed. */
  failed_step: string | null
  /** JSON object: what the operation made or touched, in the words of its kind. */
  entities: string
  created_at: number
  begin_at: number | null
  end_at: number | null
  /** The process that runs it now; null: none. */
  lease_owner: string | null
  /** Raised by the owner while it works. Others judge it dead when this stood still for a whole lease. */
  lease_beat: number
  /** Of the last beat, for people. */
  lease_beat_at: number | null
}

export interface OperationStepRow {
  operation: string
  /** From 0. */
  step: number
  name: string
  /** JSON. */
  result: string
  end_at: number
}
