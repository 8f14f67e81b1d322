import { BrokenInvariant } from '#base/assert.ts'
import { Fault, fault } from '#base/fault.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import { bit } from '#control/store/bit.ts'
import type { Transaction } from '#control/store/store.ts'
import type { OperationRow } from '#control/store/tables/operations.ts'
import {
  type Claim,
  contextOf,
  LeaseLost,
  progressAt,
  type RunnerContext,
  stepAt,
} from './claim.ts'
import { cancelled, endFailed, ended, failureOf, settle } from './endings.ts'
import type { Step, StepContext, SubmitChild } from './operation.ts'
import { childOutcomes, findHeld, findOperation, release, toOutcome } from './records.ts'

export type { CrashPoint } from './claim.ts'

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

/** The step that ran was cancelled. */
class StepCancelled extends Error {
  override readonly name = 'StepCancelled'
}

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
