import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '#base/assert.ts'
import type { SnapshotKind, TakeSnapshot } from '../snapshots.ts'
import { BeforeImage } from './before-image.ts'
import { beginSnapshot } from './directories.ts'
import type { StoreDisk } from './disk.ts'
import { Entry } from './entry.ts'
import { type CloneTarget, letWritersGo, makeClones, openTargets, stopWriters } from './moment.ts'
import type { SnapshotGuard } from './snapshot-guard.ts'

/* A snapshot from its files to its moment. Until it is published its files lie in a folder that the next start removes; before-images stay open across the
 * rename, so their paths are only used here. */

/** A volume and the guard that is held for it. */
export interface Held {
  readonly volume: string
  readonly guard: SnapshotGuard
}

export interface TakingParts {
  /** Of all snapshots. */
  readonly directory: string
  readonly request: TakeSnapshot
  readonly held: readonly Held[]
  readonly disk: StoreDisk
  readonly wallMs: () => number
  /** From this step on the image gets what its volume is about to lose. */
  readonly follow: (entry: Entry, held: Held, image: BeforeImage) => void
  /** The probe could be cloned and a volume cannot. */
  readonly onCannotClone: () => void
}

export class Taking {
  readonly entry: Entry
  readonly #parts: TakingParts
  #directory = ''
  #clones: CloneTarget[] = []

  constructor(parts: TakingParts) {
    this.#parts = parts
    const { id, purpose } = parts.request
    this.entry = new Entry(join(parts.directory, id), {
      id,
      purpose,
      state: 'ready',
      reason: null,
      takenMs: 0,
      stallMs: 0,
      volumes: [],
    })
  }

  /** Where its record goes. */
  get recordPath(): string {
    return join(this.#directory, 'snapshot.json')
  }

  async prepare(kind: SnapshotKind): Promise<void> {
    const { directory, request, held } = this.#parts
    this.#directory = await beginSnapshot(directory, request.id)
    if (kind === 'reflink') {
      const files = this.#files()
      this.#clones = await openTargets(
        held.map(({ volume, guard }) => ({
          volume: guard.volume,
          path: files.dataPath(volume),
        })),
      )
      return
    }
    for (const one of held) await this.#makeImage(one)
  }

  #files(): Entry {
    return new Entry(this.#directory, this.entry.stored)
  }

  async #makeImage({ volume, guard }: Held): Promise<void> {
    const paths = this.#files().imagePaths(volume)
    const image = await BeforeImage.create(this.#parts.disk, paths, guard.volume.sizeBytes)
    this.entry.images.set(volume, image)
  }

  /** The moment, and what writers must not see of it. Nobody else may stop writers meanwhile. */
  async arm(): Promise<void> {
    const { held } = this.#parts
    const guards = held.map(({ guard }) => guard)
    const reflink = this.#clones.length > 0
    let stopped = false
    try {
      for (;;) {
        const grown = reflink ? undefined : held.find((one) => this.#hasGrown(one))
        if (grown !== undefined) await this.#remakeImage(grown)
        else if (!stopped && (reflink || isChanging(guards))) {
          stopped = true
          await stopWriters(guards)
        } else break
      }
      // One step with the last look of the loop above.
      this.#atMoment(reflink ? 'reflink' : 'before_image')
      if (!reflink) this.#follow()
      else if (!(await makeClones(this.#clones))) await this.#fallBack()
    } finally {
      const stallMs = letWritersGo(guards)
      this.entry.stored = { ...this.entry.stored, stallMs }
    }
  }

  /** Volumes may grow until the moment. */
  #hasGrown({ volume, guard }: Held): boolean {
    return this.entry.images.get(volume)?.table.sizeBytes !== guard.volume.sizeBytes
  }

  async #remakeImage(grown: Held): Promise<void> {
    const paths = this.#files().imagePaths(grown.volume)
    await this.entry.images.get(grown.volume)?.close()
    await rm(paths.data)
    await rm(paths.map)
    await this.#makeImage(grown)
  }

  #atMoment(kind: SnapshotKind): void {
    const { request, held, wallMs } = this.#parts
    request.atMoment?.()
    const volumes = held.map(({ volume, guard }) => ({
      volume,
      kind,
      sizeBytes: guard.volume.sizeBytes,
    }))
    this.entry.stored = { ...this.entry.stored, takenMs: wallMs(), volumes }
  }

  #follow(): void {
    for (const held of this.#parts.held) {
      const image = this.entry.images.get(held.volume)
      assert(image !== undefined, 'the image of each volume was prepared')
      this.#parts.follow(this.entry, held, image)
    }
  }

  /** Writers are stopped all the while, which is once in the life of an agent. */
  async #fallBack(): Promise<void> {
    this.#parts.onCannotClone()
    await this.closeClones()
    // A volume that grew after the moment gets an image of its new size; what it grew by was not written yet.
    await this.prepare('before_image')
    const volumes = this.entry.stored.volumes.map((one) => ({
      ...one,
      kind: 'before_image' as const,
      sizeBytes: this.entry.images.get(one.volume)?.table.sizeBytes ?? one.sizeBytes,
    }))
    this.entry.stored = { ...this.entry.stored, volumes }
    this.#follow()
  }

  /** Everything up to the moment: clones have it when they are durable, before-images live from the volumes. */
  async makeDurable(): Promise<void> {
    for (const { file } of this.#clones) await file.sync()
    for (const { guard } of this.#parts.held) await guard.volume.flush()
  }

  async closeClones(): Promise<void> {
    for (const { file } of this.#clones.splice(0)) await file.close()
  }
}

const isChanging = (guards: readonly SnapshotGuard[]): boolean =>
  guards.some(({ volume }) => volume.changesEnded() !== null)
