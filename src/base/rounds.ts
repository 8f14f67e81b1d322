import type { Clock } from './clock.ts'

/** Work that is done again and again until somebody stops it. */
export interface Rounds {
  /** The first round begins `firstMs` from now (0: at once); left out: after a pause. */
  start(firstMs?: number): void
  /** True: no round begins any more. A long one may look, and end early. */
  readonly stopping: boolean
  /** Settles when the round under way has ended. */
  stop(): Promise<void>
}

/** Each round begins `pauseMs` after the one before it ended, whatever became of that; `failed` is told what it threw. */
export function rounds(
  clock: Clock,
  pauseMs: number,
  round: () => Promise<unknown>,
  failed: (error: unknown) => void,
): Rounds {
  let stopping = false
  let cancel = () => {}
  let running: Promise<void> = Promise.resolve()

  function schedule(afterMs: number): void {
    if (!stopping) cancel = clock.after(afterMs, begin)
  }

  function begin(): void {
    running = round()
      .then(() => undefined, failed)
      .then(() => schedule(pauseMs))
  }

  return {
    start: (firstMs = pauseMs) => (firstMs === 0 ? begin() : schedule(firstMs)),
    get stopping() {
      return stopping
    },
    async stop() {
      stopping = true
      cancel()
      await running
    },
  }
}
