/* When a guest that died is started again. */

/** Deaths older than this are forgotten. */
export const DEATHS_KEPT_MS = 10 * 60_000

/** Wait before each further start; after the last one the guest stays off until somebody starts it. */
export const START_AGAIN_MS: readonly number[] = [500, 2_000, 8_000, 30_000]

export type AfterDeath =
  | { readonly kind: 'start_again'; readonly delayMs: number }
  | { readonly kind: 'stay_off' }

/** `deathsMs`: when it died, the present death included; any order. */
export function afterDeath(deathsMs: readonly number[], nowMs: number): AfterDeath {
  const recent = deathsMs.filter((at) => nowMs - at < DEATHS_KEPT_MS).length
  const delayMs = START_AGAIN_MS[recent - 1]
  return delayMs === undefined ? { kind: 'stay_off' } : { kind: 'start_again', delayMs }
}

/** The deaths of one guest that this run of the agent has seen. Times are of the clock since the boot, ms. */
export class Deaths {
  #atMs: number[] = []
  #startAtMs = 0
  #stayOff = false

  /** Those that count. */
  get count(): number {
    return this.#atMs.length
  }

  note(nowMs: number): AfterDeath {
    this.#atMs = [...this.#atMs.filter((at) => nowMs - at < DEATHS_KEPT_MS), nowMs]
    const next = afterDeath(this.#atMs, nowMs)
    this.#stayOff = next.kind === 'stay_off'
    this.#startAtMs = next.kind === 'start_again' ? nowMs + next.delayMs : nowMs
    return next
  }

  /** False: not yet, or not by itself any more. */
  mayStart(nowMs: number): boolean {
    return !this.#stayOff && nowMs >= this.#startAtMs
  }

  /** Somebody starts it. */
  forget(): void {
    this.#atMs = []
    this.#stayOff = false
  }
}
