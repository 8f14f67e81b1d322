import type { Command } from 'commander'
import type { DrillWish } from '#client/drills.ts'
import { PROBE_HELP, parseProbes } from './probe-text.ts'
import { usageError } from './usage.ts'

/* What is asked of a drill, whether it begins now or by a schedule. */

export interface WishFlags {
  readonly probe?: string[]
  readonly probeTimeout?: string
  readonly vpc?: string
  /** false: `--no-plan`. */
  readonly plan?: boolean
}

export const wishOptions = (command: Command): Command =>
  command
    .option('--probe <probe...>', PROBE_HELP)
    .option('--probe-timeout <seconds>', 'how long the probes of a server may take (default: 300)')
    .option('--vpc <id>', 'VPC of the drill servers (default: one is made for the group)')
    .option('--no-plan', 'start all servers at once, without the recovery plan of the group')

export function wishOf({ probe, probeTimeout, vpc, plan }: WishFlags): DrillWish {
  if (probeTimeout !== undefined && !/^\d{1,4}$/.test(probeTimeout)) {
    throw usageError('--probe-timeout is a number of seconds from 1 to 3600')
  }
  return {
    ...(probe === undefined ? {} : { probes: parseProbes(probe) }),
    ...(probeTimeout === undefined ? {} : { timeout_ms: Number(probeTimeout) * 1000 }),
    ...(vpc === undefined ? {} : { vpc }),
    ...(plan === false ? { plan: 'ignore' } : {}),
  }
}
