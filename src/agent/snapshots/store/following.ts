import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { writeFileWhole } from '#base/system/files.ts'
import { SNAPSHOT_BROKEN } from '../faults.ts'
import type { BeforeImage } from './before-image.ts'
import type { Entry } from './entry.ts'
import type { Guards } from './guards.ts'
import { encodeSnapshot, type StoredSnapshot } from './record.ts'
import { refusalOf } from './snapshot-guard.ts'
import type { Held } from './taking.ts'

/* What is preserved for snapshots while their volumes change, and what becomes of one for which that cannot be done.
 *
 *     follow ─► its guard is asked before every change ─► unfollow: only after its record, or the mark in its map, says that it need not
 *                              └ a block cannot be preserved ─► marked failed, durably ─► unfollow      kept copies and rollbacks: the change is refused
 */

export interface FollowingParts {
  readonly guards: Guards
  readonly log: Log
  /** Left for the volumes by all snapshots but kept ones. */
  readonly reserveBytes: number
  /** The snapshot failed. */
  readonly onEnded: (id: string) => void
  /** It is one of the snapshots of the store. */
  readonly isListed: (entry: Entry) => boolean
}

export class Following {
  readonly #parts: FollowingParts

  constructor(parts: FollowingParts) {
    this.#parts = parts
  }

  /** Nothing is preserved for it any more, and what is under way has ended. */
  async closeImages(entry: Entry): Promise<void> {
    for (const [volume, image] of entry.images) {
      const guard = this.#parts.guards.get(volume)
      guard?.unfollow(image)
      if (guard === undefined) await image.close()
      else await guard.exclusively(() => image.close())
      this.#parts.guards.tidy(volume)
    }
  }

  follow(entry: Entry, { guard }: Held, image: BeforeImage): void {
    guard.follow({
      image,
      reserveBytes: entry.stored.purpose === 'kept' ? 0 : this.#parts.reserveBytes,
      // What a kept copy holds besides what was changed goes with it; a snapshot of a user tells from it what was changed.
      ahead: entry.stored.purpose === 'kept',
      lost: (error) => this.#lost(entry, image, error),
    })
  }

  async #lost(entry: Entry, image: BeforeImage, error: Error): Promise<Error | null> {
    if (entry.gone || entry.isSealed) return null
    const { id, purpose, state } = entry.stored
    // One that volumes are being set back to is needed until that is done.
    if ((purpose === 'kept' && state !== 'failed') || state === 'rolling_back') {
      this.#parts.log.error(
        { snapshot: id, err: error },
        'a block cannot be preserved, not written',
      )
      return refusalOf(error, id)
    }
    try {
      await image.markFailed()
    } catch (cause) {
      return new Fault(SNAPSHOT_BROKEN, `giving up snapshot ${id}`, { snapshot: id }, cause)
    }
    this.failed(entry, `a block could not be preserved: ${error.message}`)
    return null
  }

  /** Its mark is durable, or it is being loaded. */
  failed(entry: Entry, reason: string): void {
    const { id, state } = entry.stored
    if (state === 'failed') return
    entry.stored = { ...entry.stored, state: 'failed', reason }
    this.#parts.log.error({ snapshot: id, reason }, 'snapshot failed')
    this.#parts.onEnded(id)
    this.unfollow(entry)
    // What follows saves space and tells the reason after a restart; the mark alone is enough for what matters.
    void entry.inTurn(async () => {
      try {
        for (const image of entry.images.values()) await image.empty()
        if (this.#parts.isListed(entry)) await this.persist(entry, {})
      } catch (error) {
        this.#parts.log.warn(
          { snapshot: id, err: error },
          'a failed snapshot still takes its space',
        )
      }
    })
  }

  unfollow(entry: Entry): void {
    for (const [volume, image] of entry.images) {
      this.#parts.guards.get(volume)?.unfollow(image)
      this.#parts.guards.tidy(volume)
    }
  }

  async persist(entry: Entry, change: Partial<StoredSnapshot>): Promise<void> {
    const next = { ...entry.stored, ...change }
    await writeFileWhole(entry.recordPath, encodeSnapshot(next), 0o600)
    // It may have failed while this was written; the mark in its map counts.
    if (entry.stored.state !== 'failed') entry.stored = next
  }
}
