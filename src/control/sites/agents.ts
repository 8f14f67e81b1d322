import type { Report, SessionStatus } from '#wire/site/witness.ts'

/** What an agent last said, and how long ago. */
export interface AgentView {
  readonly report: Report
  /** Milliseconds since the control plane got it. */
  readonly ageMs: number
}

export interface SessionView {
  readonly status: SessionStatus
  readonly ageMs: number
}

/** The agents as they last reported. Nothing here proves anything about now: decisions are the witness's. */
export interface AgentRegistry {
  /** The agent of `site` that reported last; null when none ever has. */
  at(site: string): AgentView | null
  list(): readonly AgentView[]
  /** What `site` last said about `session`; null when its last report does not have it. */
  session(session: string, site: string): SessionView | null
  /** True when an agent of `site` reported within the configured silence. */
  heard(site: string): boolean
}
