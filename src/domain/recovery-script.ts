/**
 * Who runs a script of a recovery plan, and how often. Pure.
 *
 * A script runs at least once. That it is about to run is kept before it is begun, with the number of the attempt and the process that runs
 * it; what became of it is kept when it has ended. Between the two the process may die: then nobody knows how far the script came, it is run
 * again, and it is told that this is not the first time. Whoever is alive says so with a beat, so that of several control planes none
 * begins what another is at.
 */
export interface ScriptAttempt {
  readonly phase: 'before' | 'after'
  /** 1 for the first. */
  readonly attempt: number
  /** The process that began it. */
  readonly owner: string
  /** Raised by the owner as long as the script runs. */
  readonly beat: number
}

/** How often the owner says that it is alive, ms. */
export const BEAT_MS = 2_000
/** An owner that could not say so for this long ends its script: somebody else is going to take it for dead. */
export const GIVE_UP_MS = 8_000
/** An owner that was silent for this long is dead, and its script is begun again. Longer than it takes to end one that was given up. */
export const DEAD_MS = 15_000

/** So often a script is begun. Whatever ends every process that runs it is not helped by another one. */
export const ATTEMPTS_MAX = 10

export interface ScriptFacts {
  readonly phase: ScriptAttempt['phase']
  /** Its recovery was aborted, or another switch came after it: nothing more is begun, what runs comes to its end. */
  readonly unwanted: boolean
  /** This process. */
  readonly owner: string
  /** This process is at it. */
  readonly runsHere: boolean
  /** No other process works on this database. */
  readonly alone: boolean
  /** For how long this process has seen the beat stand still, ms. */
  readonly quietMs: number
}

export type ScriptTurn =
  | { readonly kind: 'wait' }
  /** Kept first. */
  | { readonly kind: 'begin'; readonly attempt: ScriptAttempt }
  /** It was begun ATTEMPTS_MAX times and never came to an end that anybody could keep. */
  | { readonly kind: 'exhausted' }
  /** The recovery has ended, and nobody is at it. */
  | { readonly kind: 'unwanted' }

/** `kept`: the attempt that was begun last, and of which no end is known; null: there is none. */
export function decideScript(kept: ScriptAttempt | null, facts: ScriptFacts): ScriptTurn {
  const { phase, unwanted, owner, runsHere, alone, quietMs } = facts
  if (runsHere) return { kind: 'wait' }
  const begin = (attempt: number): ScriptTurn => {
    if (unwanted) return { kind: 'unwanted' }
    if (attempt > ATTEMPTS_MAX) return { kind: 'exhausted' }
    return { kind: 'begin', attempt: { phase, attempt, owner, beat: 0 } }
  }
  if (kept === null || kept.phase !== phase) return begin(1)
  const dead = kept.owner === owner || alone || quietMs >= DEAD_MS
  return dead ? begin(kept.attempt + 1) : { kind: 'wait' }
}
