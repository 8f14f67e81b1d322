import { isFault } from '#base/fault.ts'
import { BLOCK_BYTES, FRAME_BYTES } from '#wire/link/frame.ts'
import { VOLUME_READ_ERROR } from '#agent/volumes/faults.ts'
import { checksums, checksumsOf, differing, isZero } from './checksums.ts'
import { type PeerQueries, QueryFailed } from '../peer-queries.ts'
import type { Writer, WriterMember } from '../writer/writer.ts'

/* Compares ranges of a member with the replica's while clients write, and never calls a block different that is not.
 *
 *     writer    W1 W2 │ question │ W3 W4        the replica answers for what it holds when the question arrives, or a little later;
 *     replica   W1 W2 │ reads, sums │ W3 W4     the writer reads its own disk some time after it has asked
 *
 * Two sums that are equal prove that the block is equal, whatever clients wrote meanwhile. Take any one byte: if nobody wrote it, both
 * sides were read as they are; if somebody did, both sides have, or are about to have, what was written last.
 *
 * Two sums that differ prove nothing: one side may have been read with W3 and the other without. So a block that differs is compared
 * again at ONE point of the stream: the writer reads it in the same turn in which it asks, and the replica in the turn in which the question
 * comes out of the stream (AT_ONCE). All writes numbered before are carried out on both sides, none numbered after is. That is
 * exact, however hot the block is, and costs each side some 60 us for a block that the first look has brought into its cache.
 *
 * It rests on three facts about the write path: a write is carried out locally in the turn in which it is numbered, the question goes out behind
 * everything that is numbered, and the replica takes nothing out of the stream behind a write that it is still carrying out.
 */

export type BlockFaultKind = 'differs' | 'unreadable-here' | 'unreadable-there'

export interface BlockFault {
  readonly offset: number
  readonly length: number
  readonly kind: BlockFaultKind
}

export interface ComparedStep {
  /** In order. */
  readonly faults: readonly BlockFault[]
  /** Blocks whose first comparison was disturbed. */
  readonly rechecked: number
}

/** The range of at most a frame's length begins at a block's start. Throws QueryFailed without a status when the link goes away. */
export async function compareStep(
  writer: Writer,
  member: WriterMember,
  queries: PeerQueries,
  offset: number,
  length: number,
): Promise<ComparedStep> {
  const suspects = await suspectBlocks(member, queries, offset, length)
  const faults: BlockFault[] = []
  let rechecked = 0
  for (const { at, length: run } of suspects) {
    for (let done = 0; done < run; done += BLOCK_BYTES) {
      const start = offset + at + done
      const size = Math.min(BLOCK_BYTES, run - done)
      const kind = await compareAtOnce(writer, member, queries, start, size)
      if (kind === null) rechecked++
      else faults.push({ offset: start, length: size, kind })
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  return { faults, rechecked }
}

/** Ranges, relative to `offset`, that are to be looked at one by one. */
async function suspectBlocks(
  member: WriterMember,
  queries: PeerQueries,
  offset: number,
  length: number,
): Promise<readonly { readonly at: number; readonly length: number }[]> {
  const [theirs, ours] = await Promise.all([
    sumsOr(queries.checksums(member.index, offset, length)),
    sumsOr(checksumsOf(member.volume, offset, length)),
  ])
  if (theirs === null || ours === null) return [{ at: 0, length }]
  if (theirs.length !== ours.length) throw new QueryFailed('too few checksums')
  return differing(ours, theirs, length)
}

/** null: that side's disk could not be read. */
async function sumsOr(sums: Promise<Buffer>): Promise<Buffer | null> {
  try {
    return await sums
  } catch (error) {
    if (error instanceof QueryFailed && error.status !== null) return null
    if (isFault(error, VOLUME_READ_ERROR)) return null
    throw error
  }
}

/** One block at one point of the stream; null: it is equal there. */
export async function compareAtOnce(
  writer: Writer,
  member: WriterMember,
  queries: PeerQueries,
  offset: number,
  length: number,
): Promise<BlockFaultKind | null> {
  const data = Buffer.allocUnsafe(length)
  // The question must not overtake writes that are numbered and carried out here, but wait for their turn on the link.
  writer.sendAll()
  const asked = sumsOr(queries.checksums(member.index, offset, length, true))
  let readable = true
  try {
    // In the same turn as the question.
    member.volume.readSync(data, 0, length, offset)
  } catch (error) {
    if (!isFault(error, VOLUME_READ_ERROR)) throw error
    readable = false
  }
  const theirs = await asked
  if (!readable) return 'unreadable-here'
  if (theirs === null) return 'unreadable-there'
  const ours = await checksums(data)
  return ours.equals(theirs) ? null : 'differs'
}

/**
 * Sends a block as this side has it, over whatever the replica has there: the writer is the truth. Read and numbered within one turn, so
 * that no client's write comes in between. Returns the number under which it was sent.
 */
export function sendBlock(
  writer: Writer,
  member: WriterMember,
  offset: number,
  length: number,
): number {
  const bytes = Buffer.allocUnsafeSlow(FRAME_BYTES + length)
  member.volume.readSync(bytes, FRAME_BYTES, length, offset)
  const zero = isZero(bytes.subarray(FRAME_BYTES))
  return writer.sendCopy(member, zero ? bytes.subarray(0, FRAME_BYTES) : bytes, offset, length)
}
