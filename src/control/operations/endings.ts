import { BrokenInvariant } from '#base/assert.ts'
import { isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { bit } from '#control/store/bit.ts'
import type { Transaction } from '#control/store/store.ts'
import type { OperationRow } from '#control/store/tables/operations.ts'
import {
  bubble,
  CANCELLED,
  type Claim,
  contextOf,
  LeaseLost,
  type RunnerContext,
  stepAt,
  StopRunning,
} from './claim.ts'
import {
  type Failure,
  type OperationKind,
  type Step,
  type StepContext,
  StepWaits,
  type SubmitChild,
} from './operation.ts'
import { findHeld, giveBack, release } from './records.ts'
import { judge } from './retry.ts'

/* How an operation stops to run: it waits, is repeated later, is given back, or ends as failed or cancelled. */

/** Pause before a failed hook that itself failed is tried again: the operation stays owned until it succeeds. */
const FAILED_HOOK_PAUSE_MS = 5_000

/** Ends the operation as failed or cancelled, with the kind's own cleaning up, in one transaction. */
export async function endFailed(
  engine: RunnerContext,
  claim: Claim,
  row: OperationRow,
  failure: Failure,
): Promise<void> {
  const step = stepAt(claim.kind, row)
  const ctx = await contextOf(engine, claim, row, claim.stop.signal)
  engine.crashPoint(claim.kind.name, step.name, 'before-failed')
  await engine.store.write(async (tx) => {
    if ((await findHeld(tx, claim.id, claim.token, row.step)) === undefined) throw new LeaseLost()
    await markFailed(engine, tx, claim.kind, row, ctx, failure)
  })
  engine.crashPoint(claim.kind.name, step.name, 'after-failed')
}

/** The transaction's part of `endFailed`; also ends operations that never began. */
export async function markFailed(
  engine: RunnerContext,
  tx: Transaction,
  kind: OperationKind<never>,
  row: OperationRow,
  ctx: StepContext<never>,
  failure: Failure,
): Promise<void> {
  const submit: SubmitChild = (next, { apart: _apart, ...request }) =>
    engine.submit(tx, next, { ...request, admitted: true })
  await kind.failed(tx, ctx, failure, submit)
  await tx
    .updateTable('operations')
    .set({
      status: failure.code === CANCELLED ? 'cancelled' : 'failed',
      error_code: failure.code,
      fail_reason: failure.message,
      failed_step: failure.step,
      end_at: engine.now(),
      lease_owner: null,
      joining: bit(false),
    })
    .where('id', '=', row.id)
    .execute()
  await ended(engine, tx, row)
}

/** What an end means for others: the parent's progress, and whoever waits for the resource or the operation. */
export async function ended(
  engine: RunnerContext,
  tx: Transaction,
  row: OperationRow,
): Promise<void> {
  if (row.parent !== null) await bubble(engine, tx, row.parent)
  engine.store.afterCommit(tx, () => {
    engine.changed(row.id)
    engine.wake(0)
  })
}

/** Decides what an error means and stores that. Errors of storing it are logged: the lease then runs out. */
export async function settle(
  engine: RunnerContext,
  claim: Claim,
  row: OperationRow | undefined,
  error: unknown,
  log: Log,
): Promise<void> {
  if (error instanceof BrokenInvariant) throw error
  if (error instanceof LeaseLost) {
    log.info('another process has taken the operation over')
    return
  }
  const reason: unknown = claim.stop.signal.reason
  const stopped = reason instanceof StopRunning ? reason.because : null
  if (stopped === 'lease-lost') return
  try {
    if (row === undefined || stopped === 'shutdown') {
      // Not this try's fault: the next claim must not count it.
      await engine.store.write((tx) => giveBack(tx, claim.token, engine.now()))
      return
    }
    if (error instanceof StepWaits) {
      const { pauseMs } = error
      await engine.store.write((tx) => giveBack(tx, claim.token, engine.now() + pauseMs, true))
      return engine.wake(pauseMs)
    }
    const step = stepAt(claim.kind, row)
    if (row.error_code !== null) {
      log.error({ err: error }, 'recording the failure failed; it is tried again')
      const run_at = engine.now() + FAILED_HOOK_PAUSE_MS
      await engine.store.write((tx) => release(tx, claim.token, { run_at }))
      return engine.wake(FAILED_HOOK_PAUSE_MS)
    }
    const verdict = judge(error, row.attempts, step.retry, engine.random())
    if (verdict.kind === 'retry') {
      log.warn(
        { err: error, step: step.name, attempt: row.attempts, pauseMs: verdict.pauseMs },
        'the step is repeated',
      )
      const run_at = engine.now() + verdict.pauseMs
      await engine.store.write((tx) =>
        release(tx, claim.token, { run_at, fail_reason: verdict.message }),
      )
      return engine.wake(verdict.pauseMs)
    }
    const level = isFault(error) ? 'warn' : 'error'
    log[level]({ err: error, step: step.name }, 'the operation failed')
    const failure = { code: verdict.code, message: verdict.message, step: step.name }
    // Stored first: from here on it only ever fails, also when the hook has to be tried again.
    await engine.store.write((tx) =>
      tx
        .updateTable('operations')
        .set({
          error_code: failure.code,
          fail_reason: failure.message,
          failed_step: failure.step,
        })
        .where('id', '=', claim.id)
        .where('lease_owner', '=', claim.token)
        .execute(),
    )
    await settleFailed(engine, claim, row, failure, log)
  } catch (second) {
    if (second instanceof BrokenInvariant) throw second
    if (second instanceof LeaseLost) return
    log.error({ err: second, first: error }, 'the outcome of a step could not be stored')
    engine.wake(FAILED_HOOK_PAUSE_MS)
  }
}

async function settleFailed(
  engine: RunnerContext,
  claim: Claim,
  row: OperationRow,
  failure: Failure,
  log: Log,
): Promise<void> {
  try {
    await endFailed(engine, claim, row, failure)
  } catch (error) {
    if (error instanceof BrokenInvariant || error instanceof LeaseLost) throw error
    log.error({ err: error }, 'recording the failure failed; it is tried again')
    const run_at = engine.now() + FAILED_HOOK_PAUSE_MS
    await engine.store.write((tx) => release(tx, claim.token, { run_at }))
    engine.wake(FAILED_HOOK_PAUSE_MS)
  }
}

export const cancelled = (step: Step<never>): Failure => ({
  code: CANCELLED,
  message: `Cancelled before or in step ${step.name}.`,
  step: step.name,
})

export const failureOf = (row: OperationRow): Failure => ({
  code: row.error_code ?? '',
  message: row.fail_reason ?? '',
  step: row.failed_step,
})
