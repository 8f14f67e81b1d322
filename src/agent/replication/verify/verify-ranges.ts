import { BLOCK_BYTES as BLOCK } from '#wire/link/frame.ts'
import type { VerifyRange } from '#wire/site/verify.ts'
import type { BlockFault } from './verify-compare.ts'
import type { StoredRun } from './verify-file.ts'

/* What a verification has found, as ranges: neighbours of one kind are one range, and a repair splits the range that holds its block. Pure. */

/** Beyond it further ranges are counted and not listed. */
const RANGES_MAX = 1_000

/** The ranges of `run` with further faults of one member, which lie behind all that it has of this member. */
export function withFaults(
  run: StoredRun,
  { pair, volume }: { readonly pair: string; readonly volume: string },
  faults: readonly BlockFault[],
): Pick<StoredRun, 'ranges' | 'ranges_left_out'> {
  const ranges = [...run.ranges]
  let leftOut = run.ranges_left_out
  for (const { offset, length, kind } of faults) {
    const last = ranges.at(-1)
    if (
      last !== undefined &&
      last.pair === pair &&
      last.kind === kind &&
      !last.repaired &&
      last.offset + last.length === offset
    ) {
      ranges[ranges.length - 1] = { ...last, length: last.length + length }
    } else if (ranges.length < RANGES_MAX) {
      ranges.push({ pair, volume, offset, length, kind, repaired: false })
    } else leftOut++
  }
  return { ranges, ranges_left_out: leftOut }
}

/** The blocks of a range that was put together from neighbours. */
export function blocksOf({ offset, length, kind }: VerifyRange): BlockFault[] {
  const blocks: BlockFault[] = []
  for (let done = 0; done < length; done += BLOCK) {
    blocks.push({ offset: offset + done, length: Math.min(BLOCK, length - done), kind })
  }
  return blocks
}

/** Splits the range that holds the block, unless all of it is the block. */
export function markRepaired(
  ranges: readonly VerifyRange[],
  pair: string,
  { offset, length }: BlockFault,
): VerifyRange[] {
  const marked: VerifyRange[] = []
  const add = (range: VerifyRange) => {
    const last = marked.at(-1)
    const joins =
      last !== undefined &&
      last.pair === range.pair &&
      last.kind === range.kind &&
      last.repaired === range.repaired &&
      last.offset + last.length === range.offset
    if (joins) marked[marked.length - 1] = { ...last, length: last.length + range.length }
    else if (marked.length < 4 * RANGES_MAX) marked.push(range)
  }
  for (const range of ranges) {
    const end = range.offset + range.length
    if (range.pair !== pair || range.repaired || offset < range.offset || offset >= end) {
      add(range)
      continue
    }
    if (offset > range.offset) add({ ...range, length: offset - range.offset })
    add({ ...range, offset, length, repaired: true })
    if (offset + length < end) {
      add({ ...range, offset: offset + length, length: end - offset - length })
    }
  }
  return marked
}
