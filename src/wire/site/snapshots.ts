import Type, { type Static } from 'typebox'

/* Snapshots and divergence records as agents tell them. Times are wall clock, ms. */

const Count = Type.Number({ minimum: 0 })
const nullable = <T extends Type.TSchema>(schema: T) => Type.Union([schema, Type.Null()])

export const SnapshotInfo = Type.Object({
  snapshot: Type.String(),
  /** user, kept, drill, backup */
  purpose: Type.String(),
  /** ready, rolling_back, sealed, failed */
  state: Type.String(),
  /** Why it failed. */
  reason: nullable(Type.String()),
  taken_at: Count,
  /** Longest wait of a write because the snapshot was taken, ms. */
  stall_ms: Count,
  volumes: Type.Array(
    Type.Object({
      volume: Type.String(),
      /** reflink, before_image */
      kind: Type.String(),
      size_bytes: Count,
      kept_bytes: Count,
    }),
  ),
})
export type SnapshotInfo = Static<typeof SnapshotInfo>

/** As of the moment of the snapshot, for volumes that a session served. */
export const SnapshotMoment = Type.Object({
  session: Type.String(),
  epoch: Type.Integer(),
  /** Last number given out (writer) or applied (replica). */
  sequence: Count,
})
export type SnapshotMoment = Static<typeof SnapshotMoment>

export const CloneInfo = Type.Object({
  volume: Type.String(),
  state: Type.Union([Type.Literal('cloning'), Type.Literal('cloned')]),
  /** Where the file system shares blocks there is nothing to copy. */
  copied_bytes: Count,
  total_bytes: Count,
})
export type CloneInfo = Static<typeof CloneInfo>

export const DivergenceVolume = Type.Object({
  volume: Type.String(),
  pair: Type.String(),
  size_bytes: Count,
  /** Kept ranges and their bytes. */
  ranges: Count,
  bytes: Count,
})

export const DivergenceInfo = Type.Object({
  divergence: Type.String(),
  session: Type.String(),
  /** The site whose writes these are, and the one that wrote on. */
  site: Type.String(),
  winner: Type.String(),
  /** Epoch up to which both sides were one, and the one under which the winner's data came back over these. */
  base_epoch: Type.Integer(),
  epoch: Type.Integer(),
  at: Count,
  why: Type.String(),
  /** keeping: on its way, finished by itself · kept · lost: what it was made of is gone, `reason` says why */
  state: Type.Union([Type.Literal('keeping'), Type.Literal('kept'), Type.Literal('lost')]),
  reason: nullable(Type.String()),
  volumes: Type.Array(DivergenceVolume),
})
export type DivergenceInfo = Static<typeof DivergenceInfo>

export const DivergenceRange = Type.Object({ offset: Count, length: Count })
export type DivergenceRange = Static<typeof DivergenceRange>

/** Longest piece of one `divergence.read`. */
export const DIVERGENCE_READ_BYTES_MAX = 1024 * 1024
/** Most ranges in one answer. */
export const DIVERGENCE_RANGES_MAX = 10_000
