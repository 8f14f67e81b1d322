import { Fault } from '#base/fault.ts'
import { readTextIfPresent } from '#base/system/files.ts'
import type { Log } from '#base/log.ts'
import { SNAPSHOT_BUSY } from '../faults.ts'
import type { BeforeImage } from './before-image.ts'
import type { Entry } from './entry.ts'
import type { Guards } from './guards.ts'
import { letWritersGo, stopWriters } from './moment.ts'
import { decodeSnapshot, type StoredSnapshot } from './record.ts'
import { rollBackVolume } from './rollback.ts'
import type { Held } from './taking.ts'

/* Rollbacks of whole snapshots.
 *
 *     gates closed ─► record `rolling_back`, durably ─► each volume ─► flushed ─► record `ready`, durably ─► gates opened
 *
 * Between the two records the volumes are worth nothing. Whatever happens then, they stay closed to writers and refuse to be opened, until the
 * rollback has been done again to its end: by a repeat of the command, or by the next start. */

export interface SettingBackParts {
  readonly guards: Guards
  readonly log: Log
  /** Gates are closed by one at a time. */
  readonly aloneStopping: <T>(work: () => Promise<T>) => Promise<T>
  readonly persist: (entry: Entry, change: Partial<StoredSnapshot>) => Promise<void>
  readonly follow: (entry: Entry, held: Held, image: BeforeImage) => void
}

export class SettingBack {
  readonly #parts: SettingBackParts
  /** Volumes that are being set back, and to which snapshot. */
  readonly #volumes = new Map<string, string>()

  constructor(parts: SettingBackParts) {
    this.#parts = parts
  }

  /** Why the volume cannot be used now. */
  busy(volume: string): Fault | undefined {
    const snapshot = this.#volumes.get(volume)
    return snapshot === undefined ? undefined : busyFault(volume, snapshot)
  }

  /** The volumes of a rollback that could not be finished at the start. */
  claim(entry: Entry): void {
    for (const { volume } of entry.stored.volumes) this.#volumes.set(volume, entry.id)
  }

  /** The volumes are failed; nobody has to be kept from them any more. */
  giveUp(entry: Entry): void {
    for (const { volume } of entry.stored.volumes) {
      if (this.#volumes.get(volume) !== entry.id) continue
      this.#volumes.delete(volume)
      const guard = this.#parts.guards.get(volume)
      guard?.allow()
      this.#parts.guards.tidy(volume)
    }
  }

  async run(entry: Entry): Promise<void> {
    entry.assertWhole('rolling back to')
    const held = await this.#hold(entry)
    try {
      await this.#parts.aloneStopping(async () => {
        for (const { volume } of held) {
          const other = this.#volumes.get(volume)
          if (other !== undefined && other !== entry.id) throw busyFault(volume, other)
        }
        this.claim(entry)
        await stopWriters(held.map(({ guard }) => guard))
      })
      await this.#setBack(entry, held)
    } finally {
      for (const { volume } of held) this.#parts.guards.release(volume)
    }
  }

  async #hold(entry: Entry): Promise<Held[]> {
    const { guards } = this.#parts
    const held: Held[] = []
    // A repeat may open what nobody else may.
    const own = entry.stored.volumes.filter(({ volume }) => this.#volumes.get(volume) === entry.id)
    for (const { volume } of own) this.#volumes.delete(volume)
    try {
      for (const { volume } of entry.stored.volumes) {
        held.push({ volume, guard: await guards.hold(volume) })
      }
      return held
    } catch (error) {
      for (const { volume } of held) guards.release(volume)
      throw error
    } finally {
      for (const { volume } of own) this.#volumes.set(volume, entry.id)
    }
  }

  async #setBack(entry: Entry, held: readonly Held[]): Promise<void> {
    try {
      await this.#begin(entry, held)
      for (const { volume, guard } of held) {
        const { log } = this.#parts
        await rollBackVolume({ entry, stored: entry.volume(volume), guard, log })
      }
      for (const { guard } of held) await guard.volume.flush()
      await this.#parts.persist(entry, { state: 'ready' })
    } catch (error) {
      if (entry.stored.state === 'rolling_back') {
        for (const { volume, guard } of held) guard.refuse(busyFault(volume, entry.id))
      } else this.#end(held)
      throw error
    }
    for (const one of held) {
      const image = entry.images.get(one.volume)
      // One that was found in the middle of this at a start does not follow yet.
      if (image !== undefined && !one.guard.follows(image)) {
        this.#parts.follow(entry, one, image)
      }
    }
    this.#end(held)
    this.#parts.log.info({ snapshot: entry.id }, 'volumes were rolled back')
  }

  async #begin(entry: Entry, held: readonly Held[]): Promise<void> {
    // Batches that were under way may still fail the snapshot.
    for (const { guard } of held) await guard.exclusively(() => Promise.resolve())
    entry.assertWhole('rolling back to')
    for (const image of entry.images.values()) await image.settle()
    try {
      await this.#parts.persist(entry, { state: 'rolling_back' })
    } catch (error) {
      // When the record may say it, the next start would act on it, and undo what was written until then.
      const text = (await readTextIfPresent(entry.recordPath)) ?? ''
      const found = decodeSnapshot(text)
      if ('problem' in found || found.state !== 'ready') {
        entry.stored = { ...entry.stored, state: 'rolling_back' }
      }
      throw error
    }
  }

  #end(held: readonly Held[]): void {
    for (const { volume } of held) this.#volumes.delete(volume)
    letWritersGo(held.map(({ guard }) => guard))
  }
}

const busyFault = (volume: string, snapshot: string): Fault =>
  new Fault(SNAPSHOT_BUSY, `using volume ${volume}`, { snapshot, volume })
