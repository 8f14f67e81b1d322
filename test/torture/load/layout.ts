import { BLOCK_BYTES } from './stamp.ts'

/* Which blocks of a volume the load uses: a few zones far apart, so that many intent regions and both ends of a volume are
 * touched, while an audit reads only some MiB. */

const MIB = 1024 * 1024
export const VOLUME_GIB = 1
const ZONE_SLOTS = 512
const ZONE_BYTES = ZONE_SLOTS * BLOCK_BYTES
/** The second one lies across a border of regions (4 MiB), the last one at the volume's end. */
const ZONES = [0, 4 * MIB - ZONE_BYTES / 2, 300 * MIB, VOLUME_GIB * 1024 * MIB - ZONE_BYTES]

export const SLOTS = ZONES.length * ZONE_SLOTS

/** Bytes from the beginning of the volume. */
export function offsetOf(slot: number): number {
  return (ZONES[Math.floor(slot / ZONE_SLOTS)] ?? 0) + (slot % ZONE_SLOTS) * BLOCK_BYTES
}

/** How many slots from `slot` on lie next to each other. */
export const slotsLeftInZone = (slot: number): number => ZONE_SLOTS - (slot % ZONE_SLOTS)

/** Ranges that an audit reads: first slot, and its bytes. */
export const RANGES = ZONES.map((offset, zone) => ({
  slot: zone * ZONE_SLOTS,
  slots: ZONE_SLOTS,
  offset,
  bytes: ZONE_BYTES,
}))
