/** Time as an argument, so that the simulator and tests own it. */
export interface Clock {
  /** Wall clock, milliseconds since 1970. May jump: use it for display and records, never for leases. */
  wallMs(): number
  /** CLOCK_BOOTTIME in milliseconds: never goes back, counts suspend. Leases and silences use only this. */
  bootMs(): number
  /** Runs `fire` once after at least `delayMs`. The returned function cancels it; cancelling twice is fine. */
  after(delayMs: number, fire: () => void): () => void
}

/** Resolves after `delayMs`, or rejects with the signal's reason when it is aborted first. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason as Error)
    const cancel = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    })
    const onAbort = () => {
      cancel()
      reject(signal?.reason as Error)
    }
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}
