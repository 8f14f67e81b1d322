/**
 * Types of volumes. One kind of storage stands behind all of them; they differ in what an administrator lets a volume of the type do per second.
 * Nothing is limited until somebody says so.
 */

/** `base + perGb * size`, and never more than `max`. */
export interface TypeRate {
  readonly base: number
  readonly perGb: number
  /** null: grows with the size without end. */
  readonly max: number | null
}

export interface TypeLimits {
  /** Requests per second; null: no limit. */
  readonly iops: TypeRate | null
  /** MiB per second; null: no limit. */
  readonly mibps: TypeRate | null
}

export const UNLIMITED_TYPE: TypeLimits = { iops: null, mibps: null }

export interface VolumeTypeRule {
  /** A volume is moved to a type of a higher rank only. */
  readonly rank: number
  /** What providers let volumes of this name do; used when an administrator asks for it. */
  readonly usual: TypeLimits
}

const rate = (base: number, perGb: number, max: number): TypeRate => ({ base, perGb, max })

/** Names that existing automation asks for, slowest first. */
export const VOLUME_TYPES: Readonly<Record<string, VolumeTypeRule>> = {
  SATA: { rank: 1, usual: { iops: rate(500, 2, 2_200), mibps: rate(50, 0.1, 90) } },
  SAS: { rank: 2, usual: { iops: rate(1_800, 8, 5_000), mibps: rate(100, 0.15, 150) } },
  GPSSD: { rank: 3, usual: { iops: rate(1_800, 12, 20_000), mibps: rate(100, 0.5, 250) } },
  SSD: { rank: 4, usual: { iops: rate(1_800, 50, 50_000), mibps: rate(120, 0.5, 350) } },
  ESSD: { rank: 5, usual: { iops: rate(1_800, 50, 128_000), mibps: rate(120, 0.5, 1_000) } },
}

/** The type of a volume that names none. */
export const DEFAULT_VOLUME_TYPE = 'SSD'

/** Bounds of what an administrator may set, far beyond any volume. */
export const IOPS_MAX = 10_000_000
export const MIBPS_MAX = 1_000_000

const MIB = 1_048_576

export interface VolumeRates {
  readonly iops: number | null
  readonly bytesPerSecond: number | null
}

/** What a volume of so many GB may do. At least one request and one byte per second. */
export function ratesOf({ iops, mibps }: TypeLimits, sizeGb: number): VolumeRates {
  return {
    iops: iops === null ? null : valueOf(iops, sizeGb, 1),
    bytesPerSecond: mibps === null ? null : valueOf(mibps, sizeGb, MIB),
  }
}

function valueOf({ base, perGb, max }: TypeRate, sizeGb: number, unit: number): number {
  const grown = base + perGb * sizeGb
  return Math.max(1, Math.floor((max === null ? grown : Math.min(max, grown)) * unit))
}

/** Whether a volume may be moved from one type to the other while it is used. */
export function mayRetype(from: string, to: string): boolean {
  const [before, after] = [VOLUME_TYPES[from], VOLUME_TYPES[to]]
  return before !== undefined && after !== undefined && after.rank > before.rank
}
