import { appendFileSync, writeSync } from 'node:fs'
import { sleep } from '#base/clock.ts'
import { Fault, fault } from '#base/fault.ts'
import { childrenStep, operation, type OperationKind, step } from '#control/operations/operation.ts'
import type { Transaction } from '#control/store/store.ts'

/* Operations whose effects can be counted: `act` appends a line to a file (so repeats are visible), `record` adds a row with
 * an id of its own to the audit log (so a second record of one step would be refused by the database). */

export interface SampleInput {
  /** File that takes one line per `act`. */
  readonly trace: string
  /** Number of sub-operations. */
  readonly parts?: number
  /** The step that ends in this kind of fault, the first `times` times. */
  readonly trouble?: {
    readonly step: string
    readonly retry: 'never' | 'later' | 'now'
    readonly times: number
  }
  /** The step that runs until its signal fires. */
  readonly hang?: string
}

export const SAMPLE_FAULT_NEVER = fault({
  code: 'SAMPLE_NEVER',
  retry: 'never',
  text: 'Planted.',
  hint: 'None.',
})
const planted = {
  never: SAMPLE_FAULT_NEVER,
  later: fault({ code: 'SAMPLE_LATER', retry: 'later', text: 'Planted.', hint: 'None.' }),
  now: fault({ code: 'SAMPLE_NOW', retry: 'now', text: 'Planted.', hint: 'None.' }),
}

export async function mark(tx: Transaction, id: string, detail: unknown): Promise<void> {
  await tx
    .insertInto('audit')
    .values({
      id,
      at: 0,
      project: null,
      actor: 'test',
      source: null,
      action: 'mark',
      target: null,
      result: 0,
      detail: JSON.stringify(detail),
    })
    .execute()
}

const counted = (name: string, cancellable = false) =>
  step<SampleInput, { said: string }>(name, {
    cancellable,
    retry: { attemptsMax: 6, pauseFirstMs: 20, pauseMostMs: 50 },
    async act(ctx) {
      appendFileSync(ctx.input.trace, `${ctx.id} ${name} ${ctx.attempt}\n`)
      const { trouble, hang } = ctx.input
      if (trouble?.step === name && ctx.attempt <= trouble.times) {
        throw new Fault(planted[trouble.retry], `in ${name}`)
      }
      if (hang === name) await sleep(ctx.services.clock, 3_600_000, ctx.signal)
      return { said: `${name} of ${ctx.id}` }
    },
    record: (tx, ctx, result) =>
      mark(tx, `${ctx.id}/${name}`, { result, before: Object.keys(ctx.results) }),
    entities: () => ({ [`${name}_done`]: true }),
  })

export const part: OperationKind<SampleInput> = operation<SampleInput>('sample.part', {
  version: 1,
  steps: [counted('work')],
  failed: (tx, ctx, failure) => mark(tx, `${ctx.id}/failed`, failure),
})

export const whole: OperationKind<SampleInput> = operation<SampleInput>('sample.whole', {
  version: 1,
  steps: [
    counted('prepare', true),
    childrenStep('parts', {
      cancellable: true,
      async submit(_tx, ctx, submit) {
        for (let index = 0; index < (ctx.input.parts ?? 0); index++) {
          await submit(part, {
            project: ctx.project,
            input: ctx.input,
            resourceType: 'part',
            resourceId: `${ctx.id}-${index}`,
          })
        }
      },
    }),
    counted('finish'),
  ],
  failed: (tx, ctx, failure) => mark(tx, `${ctx.id}/failed`, failure),
})

export const kinds = [part, whole] as readonly OperationKind<never>[]

/** Straight to the descriptor: nothing may be lost in a buffer when the process is killed. */
export const say = (message: unknown): void => void writeSync(1, `${JSON.stringify(message)}\n`)
