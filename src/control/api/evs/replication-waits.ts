import { sleep } from '#base/clock.ts'
import type { OperationView } from '#control/operations/engine.ts'
import { groupStatus, readGroup } from '#control/resources/groups.ts'
import type { GroupStatus } from '#domain/protection-group.ts'
import type { EvsServices } from './services.ts'

/* Waiting within a request. Two answers of this API mean that something is done; and while a group starts or stops it shows itself as `available`,
 * so what is asked of it then is not refused for a state that nobody can see. */

/** The operation once it has ended, or null when it goes on after `limitMs`. */
export async function endOf(
  { operations, clock }: Pick<EvsServices, 'operations' | 'clock'>,
  operation: string,
  limitMs: number,
): Promise<OperationView | null> {
  const controller = new AbortController()
  const cancel = clock.after(limitMs, () => controller.abort())
  try {
    return await operations.waitFor(operation, controller.signal)
  } catch (error) {
    if (controller.signal.aborted) return null
    throw error
  } finally {
    cancel()
  }
}

/** Passed within a second when both sites answer, and shown as `available`. */
const HIDDEN: ReadonlySet<GroupStatus> = new Set(['starting', 'stopping'])
const HIDDEN_MOST_MS = 20_000
const POLL_MS = 100

/** Settles when the group shows what it is, or after the time that clients may be kept waiting. */
export async function untilShown(
  { store, clock }: Pick<EvsServices, 'store' | 'clock'>,
  group: string,
): Promise<void> {
  const endMs = clock.bootMs() + HIDDEN_MOST_MS
  for (;;) {
    const row = await readGroup(store.db, group)
    if (row === undefined || !HIDDEN.has(groupStatus(row)) || clock.bootMs() > endMs) return
    await sleep(clock, POLL_MS)
  }
}
