import type { Clock } from '#base/clock.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'

/**
 * For how long this process has missed each site, by its own listening only. A process that has just started knows of no silence, and one
 * that did not get to listen for a while, being stopped, swapped out or its host suspended, was away itself: it begins to count anew.
 */
export interface Silence {
  /** To be called every `everyMs`. */
  listen(): void
  /** Milliseconds; 0: it is heard, or was never missed. */
  ofSite(site: string): number
}

/** A pause in listening that is so much longer than it should be: this process did not hear either. */
const GAP_FACTOR = 4

export function createSilence(options: {
  readonly agents: Pick<AgentRegistry, 'list' | 'heard'>
  readonly clock: Pick<Clock, 'bootMs'>
  readonly everyMs: number
}): Silence {
  const { agents, clock, everyMs } = options
  /** By site: CLOCK_BOOTTIME of the first moment in a row in which it was missed. */
  const missedSince = new Map<string, number>()
  let listenedMs: number | null = null
  return {
    listen() {
      const nowMs = clock.bootMs()
      const gapMs = listenedMs === null ? 0 : nowMs - listenedMs
      listenedMs = nowMs
      if (gapMs > everyMs * GAP_FACTOR) missedSince.clear()
      for (const { report } of agents.list()) {
        if (agents.heard(report.site)) missedSince.delete(report.site)
        else if (!missedSince.has(report.site)) missedSince.set(report.site, nowMs)
      }
    },
    ofSite(site) {
      const since = missedSince.get(site)
      return since === undefined ? 0 : Math.max(0, Math.floor(clock.bootMs() - since))
    },
  }
}
