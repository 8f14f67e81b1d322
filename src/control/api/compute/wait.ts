import type { OperationView } from '#control/operations/engine.ts'
import type { ComputeServices } from './services.ts'

/**
 * The operation once it has ended, or null when it goes on after `limitMs`: for requests whose answer means that something is done.
 */
export async function endOf(
  services: Pick<ComputeServices, 'operations' | 'clock'>,
  operation: string,
  limitMs: number,
): Promise<OperationView | null> {
  const controller = new AbortController()
  const cancel = services.clock.after(limitMs, () => controller.abort())
  try {
    return await services.operations.waitFor(operation, controller.signal)
  } catch (error) {
    if (controller.signal.aborted) return null
    throw error
  } finally {
    cancel()
  }
}
