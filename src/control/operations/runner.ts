import { BrokenInvariant } from '#base/assert.ts'
import { Fault, fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import { bit } from '#control/store/bit.ts'
import type { Store, Transaction } from '#control/store/store.ts'
import type { OperationRow } from '#control/store/tables/operations.ts'
import {
  type Failure,
  type OperationKind,
  type Step,
  type StepContext,
  StepWaits,
  type SubmitChild,
  type SubmitRequest,
} from './operation.ts'
import {
  childOutcomes,
  findHeld,
  findOperation,
  giveBack,
  release,
  stepResults,
  toOutcome,
  wakeOperations,
} from './records.ts'
import { judge } from './retry.ts'
import type { OperationServices } from './services.ts'

/* Runs one claimed operation until it ends, waits (back-off, children), or is taken away.
 *
 *     claimed ─► act ─► one transaction: record + result + cursor ─► act of the next step ─► …
 *                 │                                                        last: status succeeded
 *                 ├─ fault worth repeating ─► released with a pause
 *                 └─ other fault, or too many tries ─► one transaction: failed hook + status failed
 *
 * Killed anywhere, the row says where it stood: either the step's transaction committed and the cursor moved, or it did not
 * and the step's `act` runs again. Every transaction first checks that the claim is still ours and the cursor where
 * we left it, so a forgotten runner changes nothing.
 */

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

export const OPERATION_EXHAUSTED = fault({
  code: 'OPERATION_EXHAUSTED',
  retry: 'never',
  text: 'A step of the operation ended the process, or was interrupted, every time it was tried.',
  hint: 'Read the log of the control plane around those tries and report it.',
})
export const SUB_OPERATION_FAILED = fault({
  code: 'SUB_OPERATION_FAILED',
  retry: 'never',
  text: 'A part of the operation failed.',
  hint: 'The failed part has its own entry with the reason.',
})

/** The claim is not ours any more; whoever has it goes on. */
class LeaseLost extends Error {
  override readonly name = 'LeaseLost'
}

/** The step that ran was cancelled. */
class StepCancelled extends Error {
  override readonly name = 'StepCancelled'
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
/** Pause before a failed hook that itself failed is tried again: the operation stays owned until it succeeds. */
const FAILED_HOOK_PAUSE_MS = 5_000

export async function runClaimed(engine: RunnerContext, claim: Claim): Promise<void> {
  const log = engine.log.child({ operation: claim.id, kind: claim.kind.name })
  let row: OperationRow | undefined
  try {
    for (;;) {
      row = await loadHeld(engine, claim)
      if (row.error_code !== null) return await endFailed(engine, claim, row, failureOf(row))
      const step = stepAt(claim.kind, row)
      if (row.cancel_wanted === 1 && step.cancellable && row.joining === 0) {
        return await endFailed(engine, claim, row, cancelled(step))
      }
      if (row.attempts > step.retry.attemptsMax) {
        throw new Fault(OPERATION_EXHAUSTED, row.fail_reason ?? `step ${step.name}`)
      }
      claim.stop.signal.throwIfAborted()
      const outcome =
        step.children === null
          ? await runStep(engine, claim, row, step)
          : await joinChildren(engine, claim, row, step)
      if (outcome !== 'next') return
    }
  } catch (error) {
    await settle(engine, claim, row, error, log)
  }
}

async function loadHeld(engine: RunnerContext, claim: Claim): Promise<OperationRow> {
  const row = await engine.store.db
    .selectFrom('operations')
    .selectAll()
    .where('id', '=', claim.id)
    .where('lease_owner', '=', claim.token)
    .executeTakeFirst()
  if (row === undefined) throw new LeaseLost()
  return row
}

async function runStep(
  engine: RunnerContext,
  claim: Claim,
  row: OperationRow,
  step: Step<never>,
): Promise<'next' | 'ended'> {
  const cancel = new AbortController()
  const signal = AbortSignal.any([claim.stop.signal, cancel.signal])
  const ctx = await contextOf(engine, claim, row, signal)
  engine.crashPoint(claim.kind.name, step.name, 'before-act')
  if (step.cancellable) claim.cancelStep = () => cancel.abort(new StepCancelled())
  let result: unknown
  try {
    // Through JSON before `record` too, so that the first try sees what a resumed one would.
    result = fromJson<unknown>(toJson(await step.act(ctx)))
  } catch (error) {
    if (!cancel.signal.aborted) throw error
    await endFailed(engine, claim, row, cancelled(step))
    return 'ended'
  } finally {
    claim.cancelStep = () => {}
  }
  engine.crashPoint(claim.kind.name, step.name, 'after-act')
  const outcome = await engine.store.write((tx) =>
    advance(engine, tx, claim, row, step, ctx, result),
  )
  engine.crashPoint(claim.kind.name, step.name, 'after-record')
  return outcome
}

/** Records one step and moves the cursor; after the last step the operation has succeeded. */
async function advance(
  engine: RunnerContext,
  tx: Transaction,
  claim: Claim,
  row: OperationRow,
  step: Step<never>,
  ctx: StepContext<never>,
  result: unknown,
): Promise<'next' | 'ended'> {
  const held = await findHeld(tx, claim.id, claim.token, row.step)
  if (held === undefined) throw new LeaseLost()
  await step.record(tx, ctx, result)
  // `record` may have added some itself.
  const { entities } = (await findOperation(tx, claim.id)) ?? held
  const now = engine.now()
  await tx
    .insertInto('operation_steps')
    .values({
      operation: claim.id,
      step: row.step,
      name: step.name,
      result: toJson(result),
      end_at: now,
    })
    .execute()
  const last = row.step + 1 === claim.kind.steps.length
  await tx
    .updateTable('operations')
    .set({
      step: row.step + 1,
      attempts: 1,
      joining: bit(false),
      run_at: 0,
      fail_reason: null,
      progress: last ? 100 : Math.max(held.progress, progressAt(claim.kind, row.step + 1, 0)),
      entities: toJson({ ...fromJson<object>(entities), ...step.entities(ctx, result) }),
      ...(last ? { status: 'succeeded' as const, end_at: now, lease_owner: null } : {}),
    })
    .where('id', '=', claim.id)
    .execute()
  if (last) await ended(engine, tx, row)
  return last ? 'ended' : 'next'
}

/** First visit: submits the children and lets go. Second visit, when all have ended: takes their outcomes. */
async function joinChildren(
  engine: RunnerContext,
  claim: Claim,
  row: OperationRow,
  step: Step<never>,
): Promise<'next' | 'ended' | 'waiting'> {
  const { children } = step
  if (children === null) throw new BrokenInvariant('the step has children')
  const ctx = await contextOf(engine, claim, row, claim.stop.signal)
  if (row.joining === 0) {
    engine.crashPoint(claim.kind.name, step.name, 'before-act')
    await engine.store.write(async (tx) => {
      if ((await findHeld(tx, claim.id, claim.token, row.step)) === undefined) throw new LeaseLost()
      const submit: SubmitChild = (kind, { apart = false, ...request }) =>
        engine.submit(tx, kind, {
          ...request,
          ...(apart ? { admitted: true } : { parent: claim.id }),
        })
      await children.submit(tx, ctx, submit)
      await release(tx, claim.token, { joining: bit(true), run_at: 0 })
      engine.store.afterCommit(tx, () => engine.wake(0))
    })
    engine.crashPoint(claim.kind.name, step.name, 'after-act')
    return 'waiting'
  }
  const outcome = await engine.store.write(async (tx) => {
    const outcomes = (await childOutcomes(tx, claim.id)).map(toOutcome)
    const failed = outcomes.find(({ status }) => status !== 'succeeded')
    if (row.cancel_wanted === 1 && step.cancellable) return 'cancelled'
    if (children.ended !== undefined) await children.ended(tx, ctx, outcomes)
    else if (failed !== undefined) {
      throw new Fault(
        SUB_OPERATION_FAILED,
        `${failed.kind} ${failed.id} ended as ${failed.status}: ${failed.failReason ?? 'no reason'}`,
      )
    }
    const ids = outcomes.map(({ id, status }) => ({ id, status }))
    return await advance(engine, tx, claim, row, step, ctx, ids)
  })
  if (outcome === 'cancelled') {
    await endFailed(engine, claim, row, cancelled(step))
    return 'ended'
  }
  engine.crashPoint(claim.kind.name, step.name, 'after-record')
  return outcome
}

/** Ends the operation as failed or cancelled, with the kind's own cleaning up, in one transaction. */
async function endFailed(
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
async function ended(engine: RunnerContext, tx: Transaction, row: OperationRow): Promise<void> {
  if (row.parent !== null) await bubble(engine, tx, row.parent)
  engine.store.afterCommit(tx, () => {
    engine.changed(row.id)
    engine.wake(0)
  })
}

/** Raises a joining parent's progress to what its children have done. */
async function bubble(engine: RunnerContext, tx: Transaction, parent: string): Promise<void> {
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

/** Decides what an error means and stores that. Errors of storing it are logged: the lease then runs out. */
async function settle(
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
      await engine.store.write((tx) => giveBack(tx, claim.token, engine.now() + pauseMs))
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
function progressAt(kind: OperationKind<never>, index: number, percent: number): number {
  const weights = kind.steps.map(({ weight }) => weight)
  const sum = (list: readonly number[]) => list.reduce((total, one) => total + one, 0)
  const done = sum(weights.slice(0, index)) + ((weights[index] ?? 0) * percent) / 100
  return Math.min(99, Math.floor((100 * done) / Math.max(1e-9, sum(weights))))
}

function stepAt(kind: OperationKind<never>, row: OperationRow): Step<never> {
  const step = kind.steps[row.step]
  if (step === undefined)
    throw new BrokenInvariant('an unfinished operation stands at one of its steps')
  return step
}

const cancelled = (step: Step<never>): Failure => ({
  code: CANCELLED,
  message: `Cancelled before or in step ${step.name}.`,
  step: step.name,
})

const failureOf = (row: OperationRow): Failure => ({
  code: row.error_code ?? '',
  message: row.fail_reason ?? '',
  step: row.failed_step,
})
