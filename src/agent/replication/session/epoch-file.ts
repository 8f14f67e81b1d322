import { type FileHandle, open } from 'node:fs/promises'
import { crc32c } from '@node-rs/crc32'
import Type from 'typebox'
import { Value } from 'typebox/value'
import { assert } from '#base/assert.ts'
import { hasNoRoom, readWhole, writeWhole } from '#base/system/whole-io.ts'
import { OwnershipRecord } from '#wire/site/witness.ts'
import type { StoredSession } from './session.ts'

/* The epoch file of one session: under which record this site acts, and what it knows about its own copy.
 *
 *     0      slot A   4096 bytes
 *     4096   slot B   4096 bytes
 *
 * A write goes into the slot that does not hold the newest state, and is synced before anything is done under it. A write
 * torn by power loss therefore damages only the slot that was about to become newest, and nothing has been done under it.
 * Both slots damaged, or one that was written and is empty, means that the disk lost data: the session does not start by itself. Nor does it when a slot
 * is whole and of a later version: what that one knew is not to be passed over for what was before it.
 */

const SLOT_BYTES = 4096
const HEADER_BYTES = 24
const MAGIC = 0x48464550
export const EPOCH_FILE_VERSION = 1

const Stored = Type.Object({
  record: OwnershipRecord,
  consistent: Type.Boolean(),
  base: Type.Boolean(),
  riseAsked: Type.Boolean(),
  divergent: Type.Boolean(),
  promoting: Type.Boolean(),
  clean: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]),
  baseEpoch: Type.Integer({ minimum: 0 }),
  priorBase: Type.Integer({ minimum: 0 }),
  exact: Type.Boolean(),
  whole: Type.Boolean(),
  kept: Type.Union([Type.String({ maxLength: 64 }), Type.Null()]),
  ackedAlone: Type.Boolean(),
  unwitnessed: Type.Boolean(),
  promoted: Type.Boolean(),
  wanted: Type.Union([
    Type.Object({ mode: OwnershipRecord.properties.mode, preferred: Type.String() }),
    Type.Null(),
  ]),
  /** Absent in files that were written before there was such a note. */
  offered: Type.Optional(Type.Boolean()),
  /** Absent in files that were written before there was such a note. */
  unconfirmed: Type.Optional(Type.Boolean()),
  outOfTouchMs: Type.Union([Type.Number(), Type.Null()]),
  /** Absent in files that were written before there was such a note. */
  torn: Type.Optional(Type.Boolean()),
})

/** One slot: header, JSON, zeroes. */
export function encodeEpochSlot(stored: StoredSession, generation: number): Buffer {
  const json = Buffer.from(JSON.stringify(stored))
  assert(json.length <= SLOT_BYTES - HEADER_BYTES, 'the state of a session fits into its slot')
  const slot = Buffer.alloc(SLOT_BYTES)
  slot.writeUInt32BE(MAGIC, 0)
  slot.writeUInt16BE(EPOCH_FILE_VERSION, 4)
  slot.writeBigUInt64BE(BigInt(generation), 8)
  slot.writeUInt32BE(json.length, 16)
  json.copy(slot, HEADER_BYTES)
  slot.writeUInt32BE(checksum(slot, json.length), 20)
  return slot
}

export type EpochSlot = { readonly stored: StoredSession; readonly generation: number }

/** null: empty, torn, or nothing that this version understands. */
export function decodeEpochSlot(slot: Buffer): EpochSlot | null {
  if (!isWhole(slot) || slot.readUInt16BE(4) !== EPOCH_FILE_VERSION) return null
  const end = HEADER_BYTES + slot.readUInt32BE(16)
  const value: unknown = JSON.parse(slot.toString('utf8', HEADER_BYTES, end))
  if (!Value.Check(Stored, value)) return null
  return {
    stored: { offered: false, unconfirmed: false, torn: false, ...value },
    generation: Number(slot.readBigUInt64BE(8)),
  }
}

/** It is what was written, by this version or another: the head is the same in all. */
function isWhole(slot: Buffer): boolean {
  if (slot.length < SLOT_BYTES || slot.readUInt32BE(0) !== MAGIC) return false
  const length = slot.readUInt32BE(16)
  return length <= SLOT_BYTES - HEADER_BYTES && slot.readUInt32BE(20) === checksum(slot, length)
}

function checksum(slot: Buffer, length: number): number {
  const head = crc32c(slot.subarray(0, 20))
  return crc32c(slot.subarray(HEADER_BYTES, HEADER_BYTES + length), head)
}

export class EpochFile {
  readonly #file: FileHandle
  #generation: number
  #slot: number
  /** What was found; null in a new file. */
  readonly found: StoredSession | null
  /** The file has content, and none of it is valid; or a part of it is gone, or of a later version. */
  readonly damaged: boolean

  private constructor(file: FileHandle, slots: readonly [Buffer, Buffer]) {
    this.#file = file
    const [a, b] = [decodeEpochSlot(slots[0]), decodeEpochSlot(slots[1])]
    const newest = a !== null && (b === null || a.generation > b.generation) ? a : b
    this.#slot = newest !== null && newest === a ? 0 : 1
    this.#generation = newest?.generation ?? 0
    this.found = newest?.stored ?? null
    const other = newest === null || newest === a ? slots[1] : slots[0]
    const empty = other.every((byte) => byte === 0)
    // Before the very first write has completed nothing was done under this file, so a single torn slot A is a new file. From generation 2
    // on, which says the same as 1, both slots were written: an empty one beside it was lost, and may have been the newest.
    const lost = newest === null ? !empty : empty && newest.generation > 1
    // A whole slot that is not understood was written by a later version, and is no torn one: the other may be older.
    this.damaged = lost || slots.some((slot) => isWhole(slot) && decodeEpochSlot(slot) === null)
  }

  /** Opens or creates `path`. The caller has made its directory, and syncs that after creation. Rejects with a system error: no space, or a disk
   *  that cannot read it. */
  static async open(path: string): Promise<EpochFile> {
    const file = await open(path, 'a+', 0o600)
    await file.close()
    const handle = await open(path, 'r+')
    const content = Buffer.alloc(2 * SLOT_BYTES)
    try {
      // A slot that cannot be read is not an empty one: the other may be older.
      const found = await readWhole(handle, content, 0)
      // Room for both slots from the beginning on: what a session decides later must not wait for space.
      if (found < content.length) await makeRoom(handle, content.subarray(found), found)
    } catch (error) {
      await handle.close()
      throw error
    }
    return new EpochFile(handle, [content.subarray(0, SLOT_BYTES), content.subarray(SLOT_BYTES)])
  }

  /** Durable when it resolves. One at a time. */
  async write(stored: StoredSession): Promise<void> {
    await this.#writeSlot(stored)
    // The very first one goes into both: from the second write on an empty slot can be told from one that was never written.
    if (this.#generation === 1) await this.#writeSlot(stored)
  }

  async #writeSlot(stored: StoredSession): Promise<void> {
    const generation = this.#generation + 1
    const slot = this.#slot === 0 ? 1 : 0
    const bytes = encodeEpochSlot(stored, generation)
    await writeWhole(this.#file, bytes, slot * SLOT_BYTES)
    await this.#file.sync()
    this.#generation = generation
    this.#slot = slot
  }

  close(): Promise<void> {
    return this.#file.close()
  }
}

/** A session that is there already starts on a full disk too. */
async function makeRoom(file: FileHandle, zeroes: Buffer, position: number): Promise<void> {
  try {
    await writeWhole(file, zeroes, position)
  } catch (error) {
    if (position === 0 || !hasNoRoom(error)) throw error
  }
}
