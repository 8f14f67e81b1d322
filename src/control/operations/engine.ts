import type { Transaction } from '#control/store/store.ts'
import type { OperationStatus } from '#control/store/tables/operations.ts'
import type { OperationKind, SubmitRequest } from './operation.ts'

export interface OperationEngine {
  /**
   * Stores an operation in the caller's transaction, so that the domain row and the operation are one commit.
   * Returns its id, 32 hex characters. Throws OPERATIONS_FULL when too many wait.
   */
  submit<Input>(
    tx: Transaction,
    kind: OperationKind<Input>,
    request: SubmitRequest<Input>,
  ): Promise<string>
  get(id: string): Promise<OperationView | null>
  list(filter: OperationFilter): Promise<OperationView[]>
  /** Asks to cancel. Throws OPERATION_NOT_CANCELLABLE when the present step does not allow it or it has ended. */
  cancel(id: string): Promise<void>
  /** Resolves with the operation once it has ended. */
  waitFor(id: string, signal?: AbortSignal): Promise<OperationView>
}

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
