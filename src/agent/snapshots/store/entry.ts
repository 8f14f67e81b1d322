import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import type { FileVolume } from '#agent/volumes/file/file-volume.ts'
import { SNAPSHOT_BUSY, SNAPSHOT_FAILED, SNAPSHOT_SEALED, SNAPSHOT_UNKNOWN } from '../faults.ts'
import type { Snapshot } from '../snapshots.ts'
import type { BeforeImage, ImagePaths } from './before-image.ts'
import type { StoredSnapshot, StoredVolume } from './record.ts'

/** A snapshot in memory. */
export class Entry {
  readonly directory: string
  stored: StoredSnapshot
  /** Open before-images by volume; of a sealed snapshot what was kept. */
  readonly images = new Map<string, BeforeImage>()
  /** Open clones: closed when the snapshot ends, so that its space is free then. */
  readonly views = new Set<FileVolume>()
  /** Deleted: whoever still has a view is refused. */
  gone = false
  #tail: Promise<unknown> = Promise.resolve()

  constructor(directory: string, stored: StoredSnapshot) {
    this.directory = directory
    this.stored = stored
  }

  get id(): string {
    return this.stored.id
  }

  /** Changes of one snapshot wait for each other. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(work)
    this.#tail = result.catch(() => undefined)
    return result
  }

  async closeViews(): Promise<void> {
    for (const view of this.views) await view.close()
    this.views.clear()
  }

  volume(id: string): StoredVolume {
    const found = this.stored.volumes.find(({ volume }) => volume === id)
    if (found !== undefined) return found
    throw new Fault(SNAPSHOT_UNKNOWN, `volume ${id} in snapshot ${this.id}`, { volume: id })
  }

  /** Clone, or the sparse file of preserved blocks. */
  dataPath(volume: string): string {
    return join(this.directory, `${volume}.data`)
  }

  imagePaths(volume: string): ImagePaths {
    return { data: this.dataPath(volume), map: join(this.directory, `${volume}.map`) }
  }

  /** After sealing. */
  keptPaths(volume: string): ImagePaths {
    return { data: this.dataPath(volume), map: join(this.directory, `${volume}.kept`) }
  }

  get recordPath(): string {
    return join(this.directory, 'snapshot.json')
  }

  get isSealed(): boolean {
    return this.stored.state === 'sealed' || this.stored.state === 'sealing'
  }

  /** Why a view that was opened `asSealed` may not be read any more. */
  refusal(asSealed: boolean): Error | undefined {
    const doing = `reading snapshot ${this.id}`
    if (this.gone || asSealed !== this.isSealed) return new Fault(SNAPSHOT_UNKNOWN, doing)
    if (this.stored.state === 'failed') {
      return new Fault(SNAPSHOT_FAILED, doing, { reason: this.stored.reason })
    }
    return undefined
  }

  /** Refuses whatever needs the whole image. */
  assertWhole(doing: string): void {
    const { id, state, reason } = this.stored
    if (this.gone) throw new Fault(SNAPSHOT_UNKNOWN, `${doing} snapshot ${id}`)
    if (state === 'failed') throw new Fault(SNAPSHOT_FAILED, `${doing} snapshot ${id}`, { reason })
    if (this.isSealed) throw new Fault(SNAPSHOT_SEALED, `${doing} snapshot ${id}`)
  }

  assertIdle(doing: string): void {
    if (this.stored.state === 'rolling_back') {
      throw new Fault(SNAPSHOT_BUSY, `${doing} snapshot ${this.id}`)
    }
  }

  show(): Snapshot {
    const { id, purpose, state, reason, takenMs, stallMs, volumes } = this.stored
    return {
      id,
      purpose,
      state: state === 'sealing' ? 'sealed' : state,
      reason,
      takenMs,
      stallMs,
      volumes: volumes.map((stored) => ({
        ...stored,
        keptBytes: this.images.get(stored.volume)?.table.heldBytes ?? 0,
      })),
    }
  }
}
