import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import Type from 'typebox'
import { Value } from 'typebox/value'
import { decodeChecked, encodeChecked } from '#base/checked-json.ts'
import { isFault } from '#base/fault.ts'
import { hasCode, readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import { BLOCK_BYTES } from '#wire/link/frame.ts'
import type { Divergences } from '#agent/divergence/divergences.ts'
import type { Range, Snapshots } from '#agent/snapshots/snapshots.ts'
import { BlockSet, blockCount } from '../copy/block-set.ts'
import type { SessionCore } from '../core.ts'
import type { Members, OpenMember } from '../members.ts'

/* The consistent copy that a replica keeps while a resync makes its volumes inconsistent.
 *
 *     keep_copy ─► note what this side changed itself (kept.json) ─► snapshot ─► kept
 *     restore_kept ─► all members are what the snapshot holds
 *     release_kept ─► the snapshot goes, or becomes a divergence record with the ranges of the note
 *
 * The note is made at the beginning, because the change maps begin empty with the rise that ends the resync. It narrows the record down to
 * what this side had changed; without it (another boot, a damaged map, no rise in this session yet, a writer that lost its power since) the record
 * has everything that the resync overwrote.
 *
 * Owns kept.json. The session says when; snapshots and divergence records are the agent's.
 */

const KEPT_FILE = 'kept.json'

const KeptFile = Type.Object({
  version: Type.Literal(2),
  /** As the session calls it. */
  id: Type.String(),
  base_epoch: Type.Integer({ minimum: 0 }),
  members: Type.Array(
    Type.Object({
      volume: Type.String(),
      pair: Type.String(),
      /** [offset, length] in bytes of what this side changed; null: not known. */
      ranges: Type.Union([
        Type.Array(Type.Tuple([Type.Integer({ minimum: 0 }), Type.Integer({ minimum: 1 })])),
        Type.Null(),
      ]),
    }),
  ),
})

export interface KeptCopyParts {
  readonly core: SessionCore
  readonly members: Members
  readonly snapshots: Snapshots
  /** null: what a copy preserved goes with it. */
  readonly divergences: Divergences | null
  /** The session's folder. */
  readonly directory: string
}

export class KeptCopy {
  readonly #parts: KeptCopyParts
  #taking: Promise<void> | null = null
  /** The last one asked for. */
  #asked = ''
  #turn = 0

  constructor(parts: KeptCopyParts) {
    this.#parts = parts
  }

  /** A snapshot is being taken; resolves when it has been reported. */
  get settled(): Promise<void> {
    return this.#taking ?? Promise.resolve()
  }

  /**
   * Takes the snapshot and reports `kept`. `ownOnly`: what this side changed itself is all that it may have and the writer lack. Asked again for
   * the same id (the link was lost meanwhile, and is back), the first try is not reported: its snapshot gives way to that of the second, and the session must not rely on it.
   */
  keep(id: string, ownOnly: boolean): void {
    const { core } = this.#parts
    const turn = ++this.#turn
    this.#asked = id
    const taking = this.settled
      .then(() => this.#keep(id, ownOnly))
      .then((ok) => {
        if (turn !== this.#turn && id === this.#asked) return
        return core.handle({ kind: 'kept', now: core.now(), id, ok })
      })
      .catch((error: unknown) => core.fatal(error))
      .finally(() => {
        if (this.#taking === taking) this.#taking = null
      })
    this.#taking = taking
  }

  async #keep(id: string, ownOnly: boolean): Promise<boolean> {
    const { core, members, snapshots, directory } = this.#parts
    const open = [...members.values()]
    try {
      // What an interrupted try has left is older than what the volumes hold now.
      await snapshots.delete(this.#snapshot(id))
      const baseEpoch = core.session.stored.baseEpoch
      const note = {
        version: 2,
        id,
        base_epoch: baseEpoch,
        members: open.map((member) => ({
          volume: members.volumeId(member.stored),
          pair: member.stored.pair,
          ranges: ownOnly ? ownChanges(member, baseEpoch) : null,
        })),
      }
      await writeFileWhole(join(directory, KEPT_FILE), encodeChecked(note, 0), 0o600)
      const { stallMs } = await snapshots.take({
        id: this.#snapshot(id),
        purpose: 'kept',
        volumes: open.map(({ stored }) => members.volumeId(stored)),
      })
      core.log.info({ kept: id, stall_ms: stallMs }, 'consistent copy is kept')
      return true
    } catch (error) {
      const full = hasCode(error, 'ENOSPC') || hasCode(error, 'EDQUOT')
      if (!isFault(error) && !full) throw error
      core.log.error({ err: error, kept: id }, 'no consistent copy can be kept here')
      return false
    }
  }

  /** Durable when it resolves. */
  async restore(id: string): Promise<void> {
    const { core, members, snapshots } = this.#parts
    const snapshot = this.#snapshot(id)
    for (const { stored, changes } of members.values()) {
      // What a reflink has to set back is not known; it was named by the maps of both sides when the resync began, and they still do.
      for (const { offset, length } of snapshots.changedRanges(
        snapshot,
        members.volumeId(stored),
      ) ?? [])
        changes.mark(offset, length)
    }
    await snapshots.rollback(snapshot)
    core.log.warn({ kept: id }, 'volumes are set back to the consistent copy that was kept')
  }

  /** Durable when it resolves. An id that is not known was released before. */
  async release(id: string, divergence: boolean): Promise<void> {
    const { core, snapshots, divergences, directory } = this.#parts
    const snapshot = this.#snapshot(id)
    const taken = snapshots.show(snapshot)
    if (divergence && divergences !== null) {
      if (taken !== undefined || divergences.show(snapshot) !== undefined) {
        await this.#diverge(id, divergences)
      }
    } else if (taken !== undefined && taken.state !== 'sealed') {
      await snapshots.delete(snapshot)
      core.log.info({ kept: id }, 'kept copy is released')
    }
    await rm(join(directory, KEPT_FILE), { force: true })
  }

  async #diverge(id: string, divergences: Divergences): Promise<void> {
    const { core, members } = this.#parts
    const { settings, stored } = core.session
    const note = await this.#note(id)
    await divergences.keep({
      snapshot: this.#snapshot(id),
      session: core.id,
      site: settings.site,
      winner: stored.record.writer,
      baseEpoch: note?.base_epoch ?? stored.baseEpoch,
      epoch: stored.record.epoch,
      why: `${settings.site} had acknowledged writes that ${stored.record.writer}, which went on as the writer, never had`,
      volumes:
        note?.members ??
        [...members.values()].map((member) => ({
          volume: members.volumeId(member.stored),
          pair: member.stored.pair,
          ranges: null,
        })),
    })
  }

  async #note(id: string): Promise<{
    readonly base_epoch: number
    readonly members: { volume: string; pair: string; ranges: readonly Range[] | null }[]
  } | null> {
    const text = await readTextIfPresent(join(this.#parts.directory, KEPT_FILE))
    if (text === undefined) return null
    const found = decodeChecked(text)
    // One that may say too little says nothing: then all that was overwritten is kept.
    if (found?.checked !== true) return null
    const { value } = found
    if (!Value.Check(KeptFile, value) || value.id !== id) return null
    return {
      base_epoch: value.base_epoch,
      members: value.members.map(({ volume, pair, ranges }) => ({
        volume,
        pair,
        ranges: ranges?.map(([offset, length]) => ({ offset, length })) ?? null,
      })),
    }
  }

  /** Copies that nobody will release: the process died between taking one and noting it. Before the session starts. */
  async dropStray(): Promise<void> {
    const { core, snapshots } = this.#parts
    const { kept } = core.session.stored
    const prefix = this.#snapshot('')
    for (const { id, purpose, state } of snapshots.list()) {
      if (purpose !== 'kept' || !id.startsWith(prefix) || state === 'sealed') continue
      if (kept !== null && id === this.#snapshot(kept)) continue
      core.log.warn({ snapshot: id }, 'a kept copy that was never used is dropped')
      await snapshots.delete(id)
    }
  }

  /** Snapshots of all sessions share one name space. */
  #snapshot(id: string): string {
    return `${this.#parts.core.id.slice(0, SESSION_LENGTH)}-${id}`
  }
}

/** Leaves room for `kept-EPOCH-N` within the 64 characters of a snapshot's id. */
const SESSION_LENGTH = 40

/** What this side changed since the base, as ranges; null: not known. */
function ownChanges({ changes, volume }: OpenMember, baseEpoch: number) {
  if (changes.trust(baseEpoch) !== 'exact') return null
  const set = new BlockSet(blockCount(volume.sizeBytes))
  changes.addTo(set)
  const ranges: [number, number][] = []
  for (let block = set.next(0); block >= 0; ) {
    const end = set.runEnd(block, set.blocks)
    const offset = block * BLOCK_BYTES
    ranges.push([offset, Math.min(end * BLOCK_BYTES, volume.sizeBytes) - offset])
    block = set.next(end)
  }
  return ranges
}
