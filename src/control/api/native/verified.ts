import type { AgentRegistry } from '#control/sites/agents.ts'
import type { VerifiedMember, VerifySummary } from '#wire/site/verify.ts'

/* What is known about the last verification of each pair. It stays on record at the side where it ran, so after a switch of sides the other
 * one has it: of both reports the newer word counts. */

export interface Verified {
  /** By pair id. */
  readonly pairs: Map<string, VerifiedMember>
  /** The newer run of both sides, as last reported. */
  readonly run: VerifySummary['run']
}

export function verifiedOf(
  agents: AgentRegistry,
  session: string,
  sites: readonly string[],
): Verified {
  const pairs = new Map<string, VerifiedMember>()
  let run: VerifySummary['run'] = null
  for (const site of sites) {
    const summary = agents.session(session, site)?.status.verify
    if (summary === undefined) continue
    if (run === null || summary.run?.state === 'running' || summary.run?.state === 'waiting') {
      run = summary.run ?? run
    }
    for (const member of summary.members) {
      const known = pairs.get(member.pair)
      if (known === undefined || (member.last_verified_at ?? 0) > (known.last_verified_at ?? 0)) {
        pairs.set(member.pair, member)
      }
    }
  }
  return { pairs, run }
}

/** Since when every one of the pairs has been verified; null: one never was, or there is none. */
export function oldestOf(verified: Verified, pairs: readonly string[]): number | null {
  let oldest = Number.POSITIVE_INFINITY
  for (const pair of pairs) {
    const at = verified.pairs.get(pair)?.last_verified_at ?? null
    if (at === null) return null
    oldest = Math.min(oldest, at)
  }
  return Number.isFinite(oldest) ? oldest : null
}
