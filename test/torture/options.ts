import type { Clock } from '#base/clock.ts'
import type { FaultKind } from './schedule.ts'

export interface CampaignOptions {
  readonly clock: Clock
  readonly seed: number
  /** Rounds from `from` on; `undefined`: until the time is over. */
  readonly rounds: number | undefined
  readonly from: number
  /** No round begins after this many ms. */
  readonly limitMs: number
  readonly kinds: readonly FaultKind[]
  readonly longMs: number
  readonly volumes: number
  readonly chains: number
  readonly thinkMs: number
  /** What the sites keep their data on; faults of the kind `power` need the second. */
  readonly disks: 'small' | 'power'
  readonly keep: boolean
  readonly say: (line: string) => void
  /** Aborted: put everything away and report. */
  readonly signal: AbortSignal
}

/** Flags, besides the seed, that make the same rounds again. */
export const optionsOf = ({ disks, kinds, longMs, volumes, chains }: CampaignOptions): string =>
  [
    ...(disks === 'power' ? ['--power'] : []),
    `--kinds ${kinds.join(',')}`,
    `--long-ms ${longMs}`,
    `--volumes ${volumes}`,
    `--chains ${chains}`,
  ].join(' ')
