import { type Clock, sleep } from '#base/clock.ts'
import type { GuestState } from './driver.ts'

/** Between two looks at a guest: the first pause, and the longest that doubling leads to. */
const LOOK_MS = 100
const LOOK_MAX_MS = 1_000

export interface Looking {
  readonly clock: Clock
  readonly state: (server: string) => Promise<GuestState>
  /** The driver was closed meanwhile. */
  readonly closed: () => boolean
}

/**
 * For drivers that are told nothing by their hypervisor: looks at the guest until it is known to be as wanted, the time is over, or there is
 * a hurry. Which of them it was, the caller finds out by looking.
 */
export async function lookUntil(
  { clock, state: look, closed }: Looking,
  server: string,
  wanted: (state: GuestState) => boolean,
  limitMs: number,
  hurry: AbortSignal,
): Promise<void> {
  const end = clock.bootMs() + limitMs
  for (let pause = LOOK_MS; ; pause = Math.min(pause * 2, LOOK_MAX_MS)) {
    const state = await look(server)
    if (state.power !== 'unknown' && wanted(state)) return
    const left = end - clock.bootMs()
    if (left <= 0 || hurry.aborted || closed()) return
    await sleep(clock, Math.min(pause, left), hurry).catch(() => undefined)
  }
}
