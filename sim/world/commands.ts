import type { OwnershipRecord } from '#wire/site/witness.ts'
import type { Site } from './site.ts'

/* What the control plane asks of an agent, and what it says of itself. */

export interface CommandAnswer {
  readonly ok: boolean
  readonly code: string
  readonly status: AgentStatus
}

export interface AgentStatus {
  readonly epoch: number
  readonly state: string
  readonly role: string
  readonly phase: string
  readonly consistent: boolean
  readonly drained: boolean
  readonly answering: boolean
  readonly unwitnessed: boolean
  readonly linked: boolean
  readonly kept: string | null
  /** Every volume here has received its first copy in full. */
  readonly joined: boolean
  readonly failed: boolean
  /** An ended session has left a copy of one moment here, and nobody has been given it since. */
  readonly left: boolean
}

/** Those that the session decides about. */
export type SessionCommand = Extract<
  AgentCommand,
  { readonly kind: 'open' | 'hold' | 'release' | 'promote' | 'arbitrate' | 'close' }
>

export type AgentCommand =
  | { readonly kind: 'show' }
  | {
      readonly kind: 'open'
      readonly record: OwnershipRecord
      readonly force: boolean
      readonly gaveUp?: boolean
    }
  | { readonly kind: 'hold'; readonly epoch: number; readonly holdMs: number }
  | { readonly kind: 'release' }
  /** Answered when it has gone over everything, or cannot. */
  | { readonly kind: 'verify' }
  /** The failed copy of this replica is replaced by an empty one. */
  | { readonly kind: 'rebuild'; readonly epoch: number }
  /** As `volume.serve`, for all volumes: those of a session are its own. `late`: whoever asked has given up since. */
  | { readonly kind: 'serve'; readonly serving: Site['plain']; readonly late?: () => boolean }
  | { readonly kind: 'promote'; readonly force: boolean }
  | {
      readonly kind: 'arbitrate'
      readonly mode: OwnershipRecord['mode']
      readonly preferred: string
    }
  /** `mark`: of the history out of which it was sent. */
  | { readonly kind: 'close'; readonly record: OwnershipRecord; readonly mark: string }
