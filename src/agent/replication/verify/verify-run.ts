import type { CommandRequest } from '#wire/site/commands.ts'
import type { VerifyRun } from '#wire/site/verify.ts'
import type { BlockFault, ComparedStep } from './verify-compare.ts'
import type { StoredRun } from './verify-file.ts'
import { markRepaired, withFaults } from './verify-ranges.ts'

/* A run of verification as it stands on record, and what becomes of it: begun, a step compared, a block repaired. Nothing here does anything. */

export function newRun(
  { run, repair, rate_bytes }: CommandRequest<'session.verify'>,
  startedAt: number,
  totalBytes: number,
): StoredRun {
  return {
    run,
    state: 'waiting',
    reason: null,
    repair,
    rate_bytes,
    started_at: startedAt,
    ended_at: null,
    total_bytes: totalBytes,
    compared_bytes: 0,
    rechecked_blocks: 0,
    mismatched_bytes: 0,
    repaired_bytes: 0,
    ranges: [],
    ranges_left_out: 0,
    cursor: { member: 0, offset: 0 },
    unrepaired: {},
  }
}

/** `where`: the member that the step is of, and its bytes. */
export function withStep(
  run: StoredRun,
  where: { readonly member: number; readonly offset: number; readonly length: number },
  names: { readonly pair: string; readonly volume: string },
  step: ComparedStep,
): StoredRun {
  const { member, offset, length } = where
  const mismatched = mismatchedBytes(step)
  const before = run.cursor.member === member ? (run.unrepaired[member] ?? 0) : 0
  return {
    ...run,
    cursor: { member, offset: offset + length },
    compared_bytes: run.compared_bytes + length,
    rechecked_blocks: run.rechecked_blocks + step.rechecked,
    mismatched_bytes: run.mismatched_bytes + mismatched,
    unrepaired: { ...run.unrepaired, [member]: before + mismatched },
    ...withFaults(run, names, step.faults),
  }
}

export const mismatchedBytes = ({ faults }: ComparedStep): number =>
  faults.reduce((sum, fault) => sum + fault.length, 0)

export function withRepaired(
  run: StoredRun,
  member: number,
  pair: string,
  block: BlockFault,
): StoredRun {
  const left = Math.max(0, (run.unrepaired[member] ?? 0) - block.length)
  return {
    ...run,
    repaired_bytes: run.repaired_bytes + block.length,
    unrepaired: { ...run.unrepaired, [member]: left },
    ranges: markRepaired(run.ranges, pair, block),
  }
}

/** What others are told of it. */
export function shown(stored: StoredRun): VerifyRun {
  const { cursor, unrepaired, ...run } = stored
  void cursor
  void unrepaired
  return run
}
