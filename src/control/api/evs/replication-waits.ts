import { sleep } from '#base/clock.ts'
import type { OperationView } from '#control/operations/engine.ts'
import { anyGroupIs } from '#control/resources/groups.ts'
import type { GroupStatus } from '#domain/protection-group.ts'
import type { Refusal } from '../http/refusal.ts'
import { refuse } from './errors.ts'
import type { EvsServices } from './services.ts'

/* Waiting within a request. Two answers of this API mean that something is done; and while a group starts or stops it shows itself as `available`,
 * so what is asked of it then is not refused for a state that nobody can see. When a wait is over and nothing has come of it, the answer is 503
 * with what still goes on: never success, and never a conflict that the client could do anything about. */

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

/** `goesOn`: what to say of an operation that has not ended. */
export function demandSuccess(
  end: Pick<OperationView, 'status' | 'failReason'> | null,
  goesOn: string,
): void {
  if (end === null) throw refuse('EVS.5503', goesOn)
  if (end.status === 'succeeded') return
  throw refuse('EVS.5503', `${end.failReason ?? 'It did not succeed.'} Repeat the request.`)
}

/** Passed within a second when both sites answer, and shown as `available`. */
export const HIDDEN: readonly GroupStatus[] = ['starting', 'stopping']
const HIDDEN_MOST_MS = 20_000
const POLL_MS = 100

/**
 * Waits until these groups show what they are, all of them together, for as long as clients may be kept waiting. False: one still does not. Groups
 * of other projects are not looked at, so that how long it takes says nothing about them.
 */
export async function untilShown(
  { store, clock }: Pick<EvsServices, 'store' | 'clock'>,
  project: string,
  groups: readonly string[],
): Promise<boolean> {
  const endMs = clock.bootMs() + HIDDEN_MOST_MS
  while (await anyGroupIs(store.db, project, groups, HIDDEN)) {
    if (clock.bootMs() > endMs) return false
    await sleep(clock, POLL_MS)
  }
  return true
}

const OF_STATE: ReadonlySet<string> = new Set(['GROUP_STATE', 'PAIR_STATE'])

/** A state that the client was not shown is no conflict: it is what `untilShown` has waited for in vain. */
export function unlessHidden(shown: boolean, refusal: string, otherwise: Refusal): Refusal {
  return shown || !OF_STATE.has(refusal) ? otherwise : stillHidden()
}

export const stillHidden = (): Refusal =>
  refuse(
    'EVS.5503',
    'Replication is still being started or paused: a site answers slowly or not at all. Repeat the request when both zones are available.',
  )
