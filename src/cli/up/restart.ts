/* When a part of the embedded system that died is started again. Pure: the supervisor acts on the answer. */

/** How one run of a part ended. */
export interface Death {
  /** It had answered. */
  readonly wasReady: boolean
  /** For how long it had, milliseconds. */
  readonly readyForMs: number
  /** It was killed with SIGKILL: someone rehearses, or the kernel ran out of memory. Not the part's own failing. */
  readonly killed: boolean
}

export interface RestartLimits {
  readonly firstDelayMs: number
  readonly delayMaxMs: number
  /** A part that answered for this long is healthy: what it did before no longer counts. */
  readonly healthyMs: number
  /** So many failures in a row are a crash loop. */
  readonly failuresMax: number
}

/** Once everything ran: patient, about half a minute of trying. */
export const RUNNING_LIMITS: RestartLimits = {
  firstDelayMs: 200,
  delayMaxMs: 5_000,
  healthyMs: 30_000,
  failuresMax: 8,
}

/** While the system starts, somebody waits for the answer and wants the reason soon. */
export const STARTING_LIMITS: RestartLimits = { ...RUNNING_LIMITS, failuresMax: 3 }

export type Verdict =
  | { readonly kind: 'restart'; readonly delayMs: number; readonly failures: number }
  | { readonly kind: 'give_up'; readonly failures: number }

/**
 * `failures`: the failures in a row before this death. A part that was killed while it answered comes back at
 * once, however often that happens; one that is killed before it answers is delayed, but never given up.
 */
export function afterDeath(failures: number, death: Death, limits: RestartLimits): Verdict {
  if (death.killed && death.wasReady) return { kind: 'restart', delayMs: 0, failures: 0 }
  const healthy = death.wasReady && death.readyForMs >= limits.healthyMs
  const inRow = healthy ? 1 : failures + 1
  if (inRow >= limits.failuresMax && !death.killed) return { kind: 'give_up', failures: inRow }
  const doublings = Math.min(inRow - 1, 16)
  return {
    kind: 'restart',
    delayMs: Math.min(limits.firstDelayMs * 2 ** doublings, limits.delayMaxMs),
    failures: inRow,
  }
}
