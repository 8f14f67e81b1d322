import { BrokenInvariant } from '#base/assert.ts'
import type { Log } from '#base/log.ts'
import { fromJson } from '#control/store/json.ts'
import type { Store, Transaction } from '#control/store/store.ts'
import type { OperationRow } from '#control/store/tables/operations.ts'
import type { OperationKind, Step, StepContext, SubmitRequest } from './operation.ts'
import { childOutcomes, findOperation, stepResults, wakeOperations } from './records.ts'
import type { OperationServices } from './services.ts'

/* What the engine, the runner and the endings of operations share: a claim on an operation, and what its steps see. */

/** Points at which tests end the process. */
export type CrashPhase =
  | 'before-act'
  | 'after-act'
  | 'after-record'
  | 'before-failed'
  | 'after-failed'
export type CrashPoint = (operation: string, step: string, phase: CrashPhase) => void

export interface RunnerContext {
  readonly store: Store
  readonly services: OperationServices
  readonly log: Log
  readonly now: () => number
  readonly bootMs: () => number
  readonly random: () => number
  readonly crashPoint: CrashPoint
  submit<Input>(
    tx: Transaction,
    kind: OperationKind<Input>,
    request: SubmitRequest<Input>,
  ): Promise<string>
  /** An operation ended, or one that others wait for moved. */
  changed(id: string): void
  /** Look for work again, after `delayMs`. */
  wake(delayMs: number): void
  kindOf(row: { readonly kind: string; readonly version: number }): OperationKind<never> | undefined
}

export interface Claim {
  readonly id: string
  readonly token: string
  readonly kind: OperationKind<never>
  readonly stop: AbortController
  /** Aborts the step that runs now, if it may be cancelled; does nothing otherwise. */
  cancelStep: () => void
}

export const CANCELLED = 'CANCELLED'

/** The claim is not ours any more; whoever has it goes on. */
export class LeaseLost extends Error {
  override readonly name = 'LeaseLost'
}

/** Reasons with which `Claim.stop` is aborted. */
export class StopRunning extends Error {
  override readonly name = 'StopRunning'
  readonly because: 'shutdown' | 'lease-lost'
  constructor(because: 'shutdown' | 'lease-lost') {
    super(`stop running: ${because}`)
    this.because = because
  }
}

/** Stored progress is not refreshed more often than this. */
const PROGRESS_EVERY_MS = 500

export async function contextOf(
  engine: RunnerContext,
  claim: Pick<Claim, 'token' | 'kind'>,
  row: OperationRow,
  signal: AbortSignal,
): Promise<StepContext<never>> {
  let reportedMs = Number.NEGATIVE_INFINITY
  let reported = row.progress
  return {
    id: row.id,
    project: row.project,
    resourceType: row.resource_type,
    resourceId: row.resource_id,
    input: fromJson<never>(row.input),
    results: await stepResults(engine.store.db, row.id),
    attempt: row.attempts,
    attemptId: `${row.id}.${row.step}`,
    services: engine.services,
    signal,
    async progress(percent) {
      const total = progressAt(claim.kind, row.step, Math.min(100, Math.max(0, percent)))
      const nowMs = engine.bootMs()
      if (total <= reported || nowMs - reportedMs < PROGRESS_EVERY_MS) return
      reported = total
      reportedMs = nowMs
      await engine.store.write(async (tx) => {
        await tx
          .updateTable('operations')
          .set({ progress: total })
          .where('lease_owner', '=', claim.token)
          .where('progress', '<', total)
          .execute()
        if (row.parent !== null) await bubble(engine, tx, row.parent)
      })
    },
    async wake(tx, operations) {
      if (operations.length === 0) return
      await wakeOperations(tx, operations)
      engine.store.afterCommit(tx, () => engine.wake(0))
    },
  }
}

/** Percent of the whole operation when `percent` of step `index` is done; below 100 until the end is recorded. */
export function progressAt(kind: OperationKind<never>, index: number, percent: number): number {
  const weights = kind.steps.map(({ weight }) => weight)
  const sum = (list: readonly number[]) => list.reduce((total, one) => total + one, 0)
  const done = sum(weights.slice(0, index)) + ((weights[index] ?? 0) * percent) / 100
  return Math.min(99, Math.floor((100 * done) / Math.max(1e-9, sum(weights))))
}

export function stepAt(kind: OperationKind<never>, row: OperationRow): Step<never> {
  const step = kind.steps[row.step]
  if (step === undefined)
    throw new BrokenInvariant('an unfinished operation stands at one of its steps')
  return step
}

/** Raises a joining parent's progress to what its children have done. */
export async function bubble(
  engine: RunnerContext,
  tx: Transaction,
  parent: string,
): Promise<void> {
  const row = await findOperation(tx, parent)
  const kind = row === undefined ? undefined : engine.kindOf(row)
  if (row?.joining !== 1 || kind === undefined) return
  const done = (await childOutcomes(tx, parent)).map(({ status, progress }) =>
    status === 'pending' || status === 'running' ? progress : 100,
  )
  const mean = done.reduce((sum, one) => sum + one, 0) / Math.max(1, done.length)
  const progress = Math.max(row.progress, progressAt(kind, row.step, mean))
  await tx.updateTable('operations').set({ progress }).where('id', '=', parent).execute()
}
