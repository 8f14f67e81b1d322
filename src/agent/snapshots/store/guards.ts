import { assert } from '#base/assert.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import { SnapshotGuard } from './snapshot-guard.ts'

/** The guards of the volumes that somebody needs one of. A volume without snapshots has none and pays nothing. */
export class Guards {
  readonly #volumes: VolumeStore
  readonly #nowMs: () => number
  readonly #freeBytes: () => Promise<number>
  readonly #held = new Map<string, { readonly guard: SnapshotGuard; holders: number }>()

  constructor(volumes: VolumeStore, nowMs: () => number, freeBytes: () => Promise<number>) {
    this.#volumes = volumes
    this.#nowMs = nowMs
    this.#freeBytes = freeBytes
  }

  get(volume: string): SnapshotGuard | undefined {
    return this.#held.get(volume)?.guard
  }

  /** The guard of a volume, which stays attached until `release`, and longer while snapshots follow it. */
  async hold(volume: string): Promise<SnapshotGuard> {
    const opened = this.get(volume) === undefined ? await this.#volumes.open(volume) : undefined
    let held = this.#held.get(volume)
    if (held === undefined) {
      assert(opened !== undefined, 'a volume without guard was opened for one')
      held = { guard: new SnapshotGuard(opened, this.#nowMs, this.#freeBytes), holders: 0 }
      this.#held.set(volume, held)
      opened.attachGuard(held.guard)
    }
    held.holders++
    return held.guard
  }

  release(volume: string): void {
    const held = this.#held.get(volume)
    assert(held !== undefined && held.holders > 0, 'only what is held is released')
    held.holders--
    this.tidy(volume)
  }

  /** After the last follower has gone. */
  tidy(volume: string): void {
    const held = this.#held.get(volume)
    if (held === undefined || held.holders > 0 || !held.guard.idle) return
    held.guard.volume.attachGuard(null)
    this.#held.delete(volume)
  }

  /** For the end: nobody changes the volumes any more, and no batch runs when it resolves. The guards stay, since a write that still waits must not
   *  slip through. */
  async shut(error: (volume: string) => Error): Promise<void> {
    for (const [volume, { guard }] of this.#held) {
      guard.refuse(error(volume))
      await guard.exclusively(() => Promise.resolve())
    }
  }
}
