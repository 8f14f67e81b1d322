import type { Violation } from './events.ts'
import type { LoadCounts } from './load/load.ts'

export interface Report {
  /** Flags, besides the seed, that make the same rounds again. */
  readonly options: string
  readonly seed: number
  readonly rounds: number
  readonly seconds: number
  readonly faults: Readonly<Record<string, number>>
  /** What the operator did, by outcome. */
  readonly acts: Readonly<Record<string, number>>
  readonly operations: number
  readonly acknowledged: number
  readonly lost: number
  /** Given up by failovers by force, as announced. */
  readonly givenUp: number
  readonly moves: number
  readonly load: LoadCounts
  readonly longestStallMs: number
  readonly longestSettleMs: number
  readonly audits: number
  readonly violations: readonly Violation[]
  /** Left behind when something was wrong. */
  readonly directory: string | undefined
}

/** The report as lines for people. */
export function reportLines(report: Report): string[] {
  const rows: [string, string][] = [
    ['seed', String(report.seed)],
    ['rounds', `${report.rounds} in ${report.seconds} s`],
    ...Object.entries(report.faults).map(([kind, count]): [string, string] => [
      `fault ${kind}`,
      String(count),
    ]),
    ...Object.entries(report.acts).map(([act, count]): [string, string] => [act, String(count)]),
    ['production moved', `${report.moves} times`],
    ['operations', `${report.operations} issued, ${report.acknowledged} acknowledged`],
    ['sent again', String(report.load.repeated)],
    ['reads, flushes', `${report.load.reads}, ${report.load.flushes}`],
    ['no space, I/O errors', `${report.load.noSpace}, ${report.load.ioErrors}`],
    ['audits', String(report.audits)],
    ['longest stall', `${report.longestStallMs} ms`],
    ['longest way back to in sync', `${report.longestSettleMs} ms`],
    ['given up by force', String(report.givenUp)],
    ['lost', String(report.lost)],
    ['violations', String(report.violations.length)],
  ]
  const width = Math.max(...rows.map(([name]) => name.length)) + 2
  const lines = rows.map(([name, value]) => `${name.padEnd(width)}${value}`)
  for (const violation of report.violations) {
    lines.push('', `violation in round ${violation.round}: ${violation.what}`)
    for (const { atMs, what } of violation.around) {
      lines.push(`  ${(atMs / 1000).toFixed(3).padStart(9)} ${what}`)
    }
  }
  if (report.violations.length > 0) {
    const { round } = report.violations[0] ?? { round: 0 }
    lines.push('', `logs, disks and the ledger are in ${report.directory}`)
    lines.push(
      `replay: npm run torture -- ${report.options} --seed ${report.seed} --from ${round} --rounds 1`,
    )
  }
  return lines
}
