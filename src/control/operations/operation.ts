import { assert } from '#base/assert.ts'
import type { Transaction } from '#control/store/store.ts'
import type { OperationServices } from './services.ts'

/* What a durable operation is made of. The engine that runs it is in engine.ts.
 *
 *     export const extend = operation<Input>('volume.extend', {
 *       version: 1,
 *       steps: [
 *         step('grow', {
 *           act: (ctx) => ctx.services.sites.command(ctx.input.site, 'volume.extend', {...}),
 *           record: (tx, ctx, info) => setSize(tx, ctx.resourceId, info.size_bytes),
 *         }),
 *       ],
 *       failed: (tx, ctx, failure) => markFailed(tx, ctx.resourceId, failure.code),
 *     })
 *
 * Kinds, versions, step names, inputs and results are a kept format: a new release resumes what an older one
 * stored. Changed steps mean a new version; the old one stays registered until no release can have left any behind.
 */

/** What a step sees. `results` holds the results of all steps before it, by step name. */
export interface StepContext<Input> {
  /** The operation's id, 32 hex characters. */
  readonly id: string
  readonly project: string | null
  readonly resourceType: string
  readonly resourceId: string
  readonly input: Input
  readonly results: Readonly<Record<string, unknown>>
  /** 1 for the first try of this step; more after faults that were worth repeating. */
  readonly attempt: number
  /** The same for every try of this step, also after a crash: for compare-and-set requests to the witness. */
  readonly attemptId: string
  readonly services: OperationServices
  /**
   * Fires when this process may no longer work on the operation (lease lost, shutdown), or the operation was cancelled in
   * a step that allows it. What `act` does after that is thrown away.
   */
  readonly signal: AbortSignal
  /** Share of this step that is done, 0 to 100. Stored at most twice a second; never goes back. */
  progress(percent: number): Promise<void>
  /** When the transaction has committed, these operations look again whether they can go on: see `StepWaits`. */
  wake(tx: Transaction, operations: readonly string[]): Promise<void>
}

/**
 * Thrown by `act` or `record` of a step that cannot go on before somebody else has done something. The operation gives its place back, for
 * hours if need be, and the step is begun again when it is woken, and after `pauseMs` in any case (at most an hour). That is no failed try.
 */
export class StepWaits extends Error {
  override readonly name = 'StepWaits'
  readonly pauseMs: number
  constructor(pauseMs: number) {
    super('the step waits for somebody else')
    assert(pauseMs > 0 && pauseMs <= 3_600_000, 'a wait is at most an hour')
    this.pauseMs = pauseMs
  }
}

export interface StepSpec<Input, Result> {
  /**
   * The side effects. May run more than once, with the same input and results, also at the same time as a
   * forgotten earlier try that is still ending; so everything in it is idempotent. The result must survive JSON.
   */
  act?(ctx: StepContext<Input>): Promise<Result>
  /** The domain change, in the transaction that stores the result and moves the operation on. May be repeated by the store. */
  record?(tx: Transaction, ctx: StepContext<Input>, result: Result): Promise<void>
  /** What the operation made or touched, added to its entities when the step is recorded. */
  entities?(ctx: StepContext<Input>, result: Result): Readonly<Record<string, unknown>>
  /** True: a wanted cancellation takes effect before this step, or by aborting its `act`. Default false. */
  readonly cancellable?: boolean
  /** Share of the whole operation's progress, in relation to the other steps. Default 1. */
  readonly weight?: number
  readonly retry?: Partial<RetryPolicy>
}

/** Tries of one step when it ends in a fault worth repeating. */
export interface RetryPolicy {
  /** Tries in all, the first included. */
  readonly attemptsMax: number
  /** Pause after the first try; doubles with each further one, up to `pauseMostMs`. */
  readonly pauseFirstMs: number
  readonly pauseMostMs: number
}

/** About 70 s in all: longer than the restart of any process, shorter than a person's patience. */
export const DEFAULT_RETRY: RetryPolicy = {
  attemptsMax: 14,
  pauseFirstMs: 250,
  pauseMostMs: 8_000,
}

export interface Failure {
  readonly code: string
  readonly message: string
  /** Name of the step that failed or was cancelled; null when the operation never began. */
  readonly step: string | null
}

/** What became of a sub-operation. */
export interface ChildOutcome {
  readonly id: string
  readonly kind: string
  readonly resourceType: string
  readonly resourceId: string
  readonly status: 'succeeded' | 'failed' | 'cancelled'
  readonly errorCode: string | null
  readonly failReason: string | null
}

export interface ChildrenSpec<Input> {
  /** Submits the sub-operations, in the transaction that makes the operation wait for them. None is fine. */
  submit(tx: Transaction, ctx: StepContext<Input>, submit: SubmitChild): Promise<void>
  /** When all have ended. Default: fails with the first child's code if any failed. Throw a fault to fail. */
  ended?(tx: Transaction, ctx: StepContext<Input>, children: readonly ChildOutcome[]): Promise<void>
  readonly cancellable?: boolean
  readonly weight?: number
}

export type SubmitChild = <ChildInput>(
  kind: OperationKind<ChildInput>,
  request: Omit<SubmitRequest<ChildInput>, 'parent' | 'admitted'> & {
    /** It is nobody's child: this operation does not wait for it. */
    readonly apart?: boolean
  },
) => Promise<string>

export interface SubmitRequest<Input> {
  /** Null: the system's own. */
  readonly project: string | null
  readonly input: Input
  /** Operations on the same resource run one after the other, in order of submission. */
  readonly resourceType: string
  readonly resourceId: string
  /** The operation that waits for this one, if any. */
  readonly parent?: string
  /** It is what another operation leads to, so it is let in although too many wait. */
  readonly admitted?: boolean
  /** First entities, e.g. the ids that were already given out. */
  readonly entities?: Readonly<Record<string, unknown>>
}

/** One step as the engine keeps it: results are `unknown` here, each step knows its own. */
export interface Step<Input> {
  readonly name: string
  readonly cancellable: boolean
  readonly weight: number
  readonly retry: RetryPolicy
  readonly act: (ctx: StepContext<Input>) => Promise<unknown>
  readonly record: (tx: Transaction, ctx: StepContext<Input>, result: unknown) => Promise<void>
  readonly entities: (ctx: StepContext<Input>, result: unknown) => Readonly<Record<string, unknown>>
  /** Set for a step that waits for sub-operations. */
  readonly children: ChildrenSpec<Input> | null
}

export interface OperationSpec<Input> {
  readonly version: number
  readonly steps: readonly Step<Input>[]
  /**
   * Brings the domain into its declared state after a failure or a cancellation (code CANCELLED), in the
   * transaction that ends the operation. Touches the database only; what it submits is nobody's child.
   */
  failed(
    tx: Transaction,
    ctx: StepContext<Input>,
    failure: Failure,
    submit: SubmitChild,
  ): Promise<void>
}

export interface OperationKind<Input> extends OperationSpec<Input> {
  readonly name: string
}

const NAME = /^[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*$/

export function step<Input, Result = void>(
  name: string,
  spec: StepSpec<Input, Result>,
): Step<Input> {
  assert(NAME.test(name), `step name ${name} is lower case words`)
  return {
    name,
    cancellable: spec.cancellable ?? false,
    weight: spec.weight ?? 1,
    retry: { ...DEFAULT_RETRY, ...spec.retry },
    act: async (ctx) => await spec.act?.(ctx),
    record: async (tx, ctx, result) => await spec.record?.(tx, ctx, result as Result),
    entities: (ctx, result) => spec.entities?.(ctx, result as Result) ?? {},
    children: null,
  }
}

/** A step that submits sub-operations and ends when all of them have; it holds no place among the running meanwhile. */
export function childrenStep<Input>(name: string, spec: ChildrenSpec<Input>): Step<Input> {
  assert(NAME.test(name), `step name ${name} is lower case words`)
  return {
    name,
    cancellable: spec.cancellable ?? false,
    weight: spec.weight ?? 1,
    retry: DEFAULT_RETRY,
    act: async () => {},
    record: async () => {},
    entities: () => ({}),
    children: spec,
  }
}

export function operation<Input>(name: string, spec: OperationSpec<Input>): OperationKind<Input> {
  assert(NAME.test(name), `operation name ${name} is lower case words`)
  assert(spec.steps.length > 0, `operation ${name} has a step`)
  const names = new Set(spec.steps.map((one) => one.name))
  assert(names.size === spec.steps.length, `the steps of ${name} have different names`)
  return { name, ...spec }
}
