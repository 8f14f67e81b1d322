import type { Device } from '#agent/nbd/device.ts'
import type { ExportTable } from '#agent/nbd/exports.ts'
import { localDevice } from '#agent/nbd/local-device.ts'
import type { LeftCopy, VolumeStore } from '#agent/volumes/volume-store.ts'
import type { Members, OpenMember } from './members.ts'

/* Under which names clients reach the members of a session: that of the volume and that of the pair, both for one device.
 *
 * Owns the step from one way of serving to the next. Between two devices that serve the same bytes the clients stay: the old
 * device is drained, swapped and released. A name that may not be served here refuses, with a sentence for the operator.
 */

/** How a volume is served when its session is over. */
export type ServingAfter = 'standalone' | 'standby'

export interface ServedNamesParts {
  readonly members: Members
  readonly exports: ExportTable
  readonly volumes: VolumeStore
}

export class ServedNames {
  readonly #members: Members
  readonly #exports: ExportTable
  readonly #volumes: VolumeStore

  constructor({ members, exports, volumes }: ServedNamesParts) {
    this.#members = members
    this.#exports = exports
    this.#volumes = volumes
  }

  #of({ stored }: OpenMember): readonly string[] {
    return [this.#members.volumeId(stored), stored.pair]
  }

  /** A device that was served plainly until now is drained and swapped; its clients stay. */
  async serve(member: OpenMember, device: Device): Promise<void> {
    for (const name of this.#of(member)) {
      const known = this.#exports.open(name)
      if ('device' in known && known.served === device) continue
      await this.#swap(name, device)
    }
  }

  async #swap(name: string, device: Device): Promise<void> {
    await this.#exports.hold(name)
    this.#exports.serve(name, device)
    this.#exports.release(name)
  }

  refuse(member: OpenMember, reason: string): void {
    for (const name of this.#of(member)) this.#exports.refuse(name, reason)
  }

  refuseAll(reason: string): void {
    for (const member of this.#members.values()) this.refuse(member, reason)
  }

  /** Resolves when no request of the member is in flight; new ones wait until `release`, or until another device serves. */
  async hold(member: OpenMember): Promise<void> {
    await Promise.all(this.#of(member).map((name) => this.#exports.hold(name)))
  }

  release(member: OpenMember): void {
    for (const name of this.#of(member)) this.#exports.release(name)
  }

  /** The member's volume leaves the session. Recorded before it is served plainly, refused before it is recorded: a crash in
   *  between errs towards refusing. `left`: it holds, durably, the session's copy. */
  async leave(
    member: OpenMember,
    serving: ServingAfter,
    reason: string,
    left?: LeftCopy,
  ): Promise<void> {
    const id = this.#members.volumeId(member.stored)
    if (serving === 'standby') {
      this.refuse(member, reason)
      const refused = { mode: 'standby', reason } as const
      await this.#volumes.setServing(id, left === undefined ? refused : { ...refused, left })
      return
    }
    await this.#volumes.setServing(id, { mode: 'standalone' })
    const device = localDevice(member.volume)
    for (const name of this.#of(member)) await this.#swap(name, device)
  }

  /** Those of `ids` that are served without a session. */
  plainOf(ids: readonly string[]): readonly string[] {
    return ids.filter((id) => this.#volumes.record(id)?.serving.mode === 'standalone')
  }

  /** A volume that no session has is served no longer. */
  async fence(id: string, reason: string): Promise<void> {
    this.#exports.refuse(id, reason)
    await this.#volumes.setServing(id, { mode: 'standby', reason })
  }

  /** The pair is no more; its volume may go on under its own name. */
  forgetPair({ stored }: OpenMember, reason: string): void {
    this.#exports.remove(stored.pair, reason)
  }
}
