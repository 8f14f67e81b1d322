import { type StoredSession, unopened } from '#agent/replication/session/session.ts'
import { BlockDisk, WholeFile } from './disk.ts'
import type { Host } from './host.ts'
import type { Random } from './random.ts'

/* What stays at a site when its agent dies.
 *
 *   disk      the volumes' blocks
 *   epoch     the epoch file: written aside, fsynced, renamed
 *   run       number of the last write, in a mapped file: survives the process, worthless on another boot
 *   changes   one bit per block in a mapped file: exact across the death of the process, worthless on another boot
 *   kept      snapshots of all volumes, durable · divergences  those that were released as such
 *   noted     with each of them, what this side had changed itself; null: not known, so that a divergence has all that a resync overwrites
 *   intent    one bit per region, durable before the first touch of the region
 *   joined    every volume has received its first copy in full
 *   left      a session has ended here, and the volumes hold the copy that it left: noted with each of them
 *   taken     the volumes belong to a session; until it has ended here, nothing else is done with them
 *   plain     how the volumes are served outside of a session
 */

/** Blocks share regions in threes, regions share volumes in fours, and a group has three volumes. */
export const BLOCKS_PER_REGION = 3
export const REGIONS_PER_VOLUME = 4
export const VOLUMES = 3
export const REGIONS = REGIONS_PER_VOLUME * VOLUMES
export const BLOCKS_PER_VOLUME = BLOCKS_PER_REGION * REGIONS_PER_VOLUME
export const BLOCKS = REGIONS * BLOCKS_PER_REGION

export interface Divergence {
  readonly id: string
  readonly image: Int32Array
  readonly noted: Uint8Array | null
}

export interface BlockRange {
  readonly from: number
  readonly to: number
}
export const ALL_BLOCKS: BlockRange = { from: 0, to: BLOCKS }

/** The volume that holds `block`. */
export function volumeOf(block: number): BlockRange {
  const from = block - (block % BLOCKS_PER_VOLUME)
  return { from, to: from + BLOCKS_PER_VOLUME }
}

const VOLUME_BLOCKS = Array.from({ length: VOLUMES }, (_, volume) =>
  Array.from({ length: BLOCKS_PER_VOLUME }, (_, index) => volume * BLOCKS_PER_VOLUME + index),
)

/** All blocks of a volume. */
export function volumeBlocks(volume: number): readonly number[] {
  return VOLUME_BLOCKS[volume] as number[]
}

export const regionOf = (block: number): number => Math.floor(block / BLOCKS_PER_REGION)

/** Bits in a mapped file whose setting is waited for; clearing is lazy. */
export class IntentBits {
  readonly current = new Uint8Array(REGIONS)
  readonly #synced = new Uint8Array(REGIONS)

  syncDone(regions: readonly number[]): void {
    for (const region of regions) this.#synced[region] = this.current[region] as number
  }

  clear(): void {
    this.current.fill(0)
    this.#synced.fill(0)
  }

  losePower(random: Random): void {
    for (let region = 0; region < REGIONS; region++) {
      // A bit that was cleared, or set but not waited for, may be on the disk either way.
      if (this.current[region] !== this.#synced[region]) {
        this.current[region] = random.chance(0.5) ? 1 : 0
      }
      this.#synced[region] = this.current[region] as number
    }
  }

  get any(): boolean {
    return this.current.includes(1)
  }
}

/** The change map: what this side changed and the other may lack, since the base. */
export class ChangeBits {
  readonly current = new Uint8Array(BLOCKS)
  #bootId = ''

  /** False: marks may be missing. */
  exact(bootId: string): boolean {
    return this.#bootId === bootId
  }

  mark(blocks: readonly number[]): void {
    for (const block of blocks) this.current[block] = 1
  }

  begin(bootId: string): void {
    this.current.fill(0)
    this.#bootId = bootId
  }

  losePower(random: Random): void {
    for (let block = 0; block < BLOCKS; block++) {
      if (random.chance(0.5)) this.current[block] = 0
    }
  }
}

export class Site {
  readonly name: string
  readonly host: Host
  readonly disk = new BlockDisk(BLOCKS)
  readonly epoch: WholeFile<StoredSession>
  readonly intent = new IntentBits()
  readonly changes = new ChangeBits()
  readonly kept = new Map<string, Int32Array>()
  readonly noted = new Map<string, Uint8Array | null>()
  divergences: Divergence[] = []
  /** No further snapshot can be taken. */
  full = false
  /** The next fdatasync of it as a replica fails. */
  failing = false
  /** One has failed: it holds nothing that can be relied upon, until it is replaced. */
  failed = false
  run: { bootId: string; sequence: number } | null = null
  joined = false
  left = false
  taken = false
  plain: 'standalone' | 'standby'
  /** Epoch of the record that ended the last session here. */
  endedEpoch = 0
  /** Longest time that an fdatasync takes at present, ms; a fault makes it long. */
  syncMs = 3

  constructor(name: string, host: Host, plain: 'standalone' | 'standby') {
    this.name = name
    this.host = host
    this.plain = plain
    this.epoch = new WholeFile(unopened('session'))
  }

  /** Of an ended session only the epoch file stays, which names the record that ended it. */
  forget(epoch: number): void {
    this.endedEpoch = epoch
    this.run = null
    this.joined = false
    this.taken = false
    this.intent.clear()
    this.changes.begin(this.host.bootId)
    this.kept.clear()
  }

  losePower(random: Random): void {
    this.disk.losePower(random)
    this.intent.losePower(random)
    this.changes.losePower(random)
    this.epoch.interrupted(random)
    // A mapped file that was never synced holds anything old; its boot id tells.
    if (random.chance(0.5)) this.run = null
  }
}
