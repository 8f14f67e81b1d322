import { systemClock } from '#base/system/clock.ts'
import type { ApiSession } from '#client/api.ts'
import { type OperationState, waitForOperation } from '#client/protection.ts'
import type { CommandContext } from './context.ts'
import { type JobFlags, limitOf } from './jobs.ts'
import type { Output } from './output.ts'
import { createProgress } from './progress.ts'

/** Waits for an operation unless told not to, shows how far it is, and prints it. Undefined when it was not awaited. */
export async function followOperation(
  api: ApiSession,
  context: CommandContext,
  output: Output,
  operation: string,
  flags: JobFlags,
  what: string,
): Promise<OperationState | undefined> {
  if (!flags.wait) {
    output.result({ operation_id: operation }, `${what}: operation ${operation}`)
    return undefined
  }
  output.say(`${what}: operation ${operation}, waiting for its end`)
  const progress = createProgress(context.streams, output, systemClock)
  try {
    return await waitForOperation(api, operation, {
      clock: systemClock,
      limitMs: limitOf(flags),
      onState: ({ status, step, progress: percent }) =>
        progress.update(`${Math.floor(percent)} %  ${step ?? status}`, {
          operation_id: operation,
          status,
          step,
          percent: Math.floor(percent),
        }),
    })
  } finally {
    progress.end()
  }
}
