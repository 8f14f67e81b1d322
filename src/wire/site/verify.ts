import Type, { type Static } from 'typebox'

/* What online verification says of itself: in answers to commands, and in short in every report. Times are wall clock, ms. */

const Text = Type.String({ maxLength: 500 })
const Count = Type.Number({ minimum: 0 })
const nullable = <T extends Type.TSchema>(schema: T) => Type.Union([schema, Type.Null()])

export const VerifyRange = Type.Object({
  pair: Type.String(),
  /** At the site that answers. */
  volume: Type.String(),
  offset: Count,
  length: Count,
  /** differs: both sides were read and are not the same · unreadable-here, unreadable-there: one side's disk gave an error */
  kind: Type.Union([
    Type.Literal('differs'),
    Type.Literal('unreadable-here'),
    Type.Literal('unreadable-there'),
  ]),
  /** Sent again from the writer, made durable, compared once more, and equal. */
  repaired: Type.Boolean(),
})
export type VerifyRange = Static<typeof VerifyRange>

/** waiting: the sites are not in sync now, it goes on by itself · ended: done, cancelled, failed */
export const VerifyState = Type.Union([
  Type.Literal('running'),
  Type.Literal('waiting'),
  Type.Literal('done'),
  Type.Literal('cancelled'),
  Type.Literal('failed'),
])
export type VerifyState = Static<typeof VerifyState>

export const VerifyRun = Type.Object({
  /** Given by whoever asked. */
  run: Type.String(),
  state: VerifyState,
  /** Why it waits or failed. */
  reason: nullable(Text),
  repair: Type.Boolean(),
  /** Bytes per second; 0: as fast as the clients' own requests leave room for. */
  rate_bytes: Count,
  started_at: Count,
  ended_at: nullable(Count),
  total_bytes: Count,
  /** Of `total_bytes`; holes on both sides count without being read. */
  compared_bytes: Count,
  /** Blocks that clients wrote to while they were compared, and that were compared again. */
  rechecked_blocks: Count,
  mismatched_bytes: Count,
  repaired_bytes: Count,
  /** In the order in which they were found; neighbours are one. The first 1,000, more where a repair has split them. */
  ranges: Type.Array(VerifyRange, { maxItems: 4_000 }),
  /** Ranges that were found beyond those. */
  ranges_left_out: Count,
})
export type VerifyRun = Static<typeof VerifyRun>

export const VerifiedMember = Type.Object({
  pair: Type.String(),
  volume: Type.String(),
  /** When the last verification of the whole member ended; null: never since it belongs to the session. */
  last_verified_at: nullable(Count),
  /** What that verification found and did not repair. */
  mismatched_bytes: Count,
})
export type VerifiedMember = Static<typeof VerifiedMember>

/** Since the agent started. */
export const VerifyTotals = Type.Object({
  compared_bytes: Count,
  rechecked_blocks: Count,
  mismatched_blocks: Count,
  repaired_blocks: Count,
})
export type VerifyTotals = Static<typeof VerifyTotals>

export const VerifyStatus = Type.Object({
  session: Type.String(),
  /** The one under way or the last one; null: none since the session was opened. */
  run: nullable(VerifyRun),
  members: Type.Array(VerifiedMember),
  totals: VerifyTotals,
})
export type VerifyStatus = Static<typeof VerifyStatus>

/** In reports: without the ranges. */
export const VerifySummary = Type.Object({
  run: nullable(
    Type.Object({
      run: Type.String(),
      state: VerifyState,
      total_bytes: Count,
      compared_bytes: Count,
      mismatched_bytes: Count,
      repaired_bytes: Count,
    }),
  ),
  members: Type.Array(VerifiedMember),
  totals: VerifyTotals,
})
export type VerifySummary = Static<typeof VerifySummary>
