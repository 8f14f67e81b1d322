import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '#base/assert.ts'
import { Fault } from '#base/fault.ts'
import type { SessionMember } from '#wire/site/commands.ts'
import { VOLUME_UNKNOWN } from '#agent/volumes/faults.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import { MEMBER_CHANGED, VOLUME_BUSY } from './faults.ts'
import { ChangeMap } from './copy/change-map.ts'
import { IntentBitmap } from './writer/intent-bitmap.ts'
import { type MembersFile, type StoredMember, writeMembers } from './members-file.ts'

/* The members of one session at this site: which volumes belong to it, open, each with its intent bitmap and its
 * change map.
 *
 * Owns members.json, the intent files and the change maps. The file is written before a volume is taken and before one is let go, so that the next
 * start after a crash opens what is the session's and nothing else.
 *
 * An index means one volume for ever. A removed one stays on record, because frames for it may still be on their way.
 *
 * Who serves the volumes under which name is served-names.ts; who writes to them, writer.ts and receiver.ts.
 */

export interface OpenMember {
  readonly index: number
  /** As in the file. */
  readonly stored: StoredMember
  readonly volume: Volume
  readonly intent: IntentBitmap
  readonly changes: ChangeMap
}

interface Entry extends OpenMember {
  stored: StoredMember
}

export interface MembersParts {
  readonly session: string
  readonly site: string
  readonly volumes: VolumeStore
  /** The session's folder. */
  readonly directory: string
  readonly bootId: string
  readonly found: MembersFile
}

/** What `session.open` asks for. */
export interface TakeMembers {
  readonly members: readonly SessionMember[]
  /** '' leaves the known address as it is. */
  readonly peerLink: string
  /** New members are opened at the writer: its content is the truth. */
  readonly asWriter: boolean
  /** Indexes of members that hold the copy which this session left when it ended (`leftBy`): they count as joined. */
  readonly left: ReadonlySet<number>
  /** A new member is open and recorded as the session's. Awaited before the next member is opened. */
  readonly onAdded: (member: OpenMember) => Promise<void>
}

export class Members {
  readonly #parts: MembersParts
  readonly #open = new Map<number, Entry>()
  #file: MembersFile

  constructor(parts: MembersParts) {
    this.#parts = parts
    this.#file = parts.found
  }

  /** Opens what the file names. */
  async openAll(): Promise<void> {
    for (const member of this.#file.members) {
      if (member.rebuild?.done === false) await this.#replace(member)
      else await this.#openMember(member, false)
    }
  }

  async #openMember(stored: StoredMember, fresh: boolean): Promise<OpenMember> {
    const { volumes, directory, bootId } = this.#parts
    const volume = await volumes.open(this.volumeId(stored))
    const { sizeBytes } = volume
    const intent = await IntentBitmap.open(
      join(directory, `intent-${stored.index}`),
      sizeBytes,
      fresh,
    )
    const path = join(directory, `changes-${stored.index}`)
    let changes: ChangeMap
    try {
      changes = new ChangeMap({ path, sizeBytes, bootId, fresh })
    } catch (error) {
      await intent.close()
      throw error
    }
    const entry = { index: stored.index, stored, volume, intent, changes }
    this.#open.set(stored.index, entry)
    return entry
  }

  // -- what is known --------------------------------------------------------------------------------------------------

  /** The open ones. Live: one that is removed while somebody waits in a loop over them is not visited. */
  values(): Iterable<OpenMember> {
    return this.#open.values()
  }

  get indexes(): readonly number[] {
    return [...this.#open.keys()]
  }

  get(index: number): OpenMember | undefined {
    return this.#open.get(index)
  }

  /** Those of the file, also while one of them is not open yet. */
  get stored(): readonly StoredMember[] {
    return this.#file.members
  }

  /** Was a member once. */
  wasRemoved(index: number): boolean {
    return this.#file.removed.includes(index)
  }

  /** Every member's first copy has reached this site in full. */
  get allJoined(): boolean {
    return this.#file.members.every((member) => member.joined)
  }

  /** `host:port` of the peer's link listener; '' when it was never told. */
  get peerLink(): string {
    return this.#file.peer_link
  }

  /** Bytes per second for copies; null: the agent's setting. */
  get copyRateBytes(): number | null {
    return this.#file.copy_rate_bytes
  }

  /** Set intent regions of all members. */
  get dirtyRegions(): number {
    let regions = 0
    for (const { intent } of this.#open.values()) regions += intent.count
    return regions
  }

  volumeId(member: SessionMember): string {
    const volume = member.volumes[this.#parts.site]
    assert(volume !== undefined, 'a member has a volume at each site')
    return volume
  }

  /** Indexes of members whose volume is one hole. */
  async blank(): Promise<ReadonlySet<number>> {
    const blank = new Set<number>()
    for (const [index, { volume }] of this.#open) {
      if (volume.failed !== undefined) continue
      const [first] = await volume.extents(0, volume.sizeBytes, 1)
      if (first?.hole === true && first.length === volume.sizeBytes) blank.add(index)
    }
    return blank
  }

  /** Of `members`, those whose volume still holds what this session left in it when the record of `epoch` ended it. */
  leftBy(epoch: number, members: readonly SessionMember[]): ReadonlySet<number> {
    const { session, volumes } = this.#parts
    const found = new Set<number>()
    for (const member of members) {
      const serving = volumes.record(this.volumeId(member))?.serving
      const left = serving?.mode === 'standby' ? serving.left : undefined
      if (left?.session === session && left.epoch === epoch) found.add(member.index)
    }
    return found
  }

  // -- changes --------------------------------------------------------------------------------------------------------

  /** Adds, grows and keeps; true when something was added or grew. Refuses before anything is changed. */
  async take({ members, peerLink, asWriter, left, onAdded }: TakeMembers): Promise<boolean> {
    const { session, volumes } = this.#parts
    for (const member of members) this.#check(member)
    let changed = false
    const stored = new Map(this.#file.members.map((member) => [member.index, member]))
    for (const member of members) {
      const id = this.volumeId(member)
      const known = stored.get(member.index)
      if ((volumes.record(id)?.sizeBytes ?? 0) < member.size_bytes) {
        // First: a client may write there as soon as the volume is larger.
        const open = this.#open.get(member.index)
        open?.intent.grow(member.size_bytes)
        open?.changes.grow(member.size_bytes)
        await volumes.extend(id, member.size_bytes)
        changed = true
      }
      stored.set(member.index, {
        ...member,
        joined: known?.joined ?? (asWriter || left.has(member.index)),
        ...(known?.rebuild === undefined ? {} : { rebuild: known.rebuild }),
      })
      changed ||= known === undefined
    }
    await this.#write({
      ...this.#file,
      peer_link: peerLink === '' ? this.#file.peer_link : peerLink,
      members: [...stored.values()].sort((a, b) => a.index - b.index),
    })
    for (const member of this.#file.members) {
      const known = this.#open.get(member.index)
      if (known !== undefined) {
        known.stored = member
        known.intent.grow(known.volume.sizeBytes)
        known.changes.grow(known.volume.sizeBytes)
        continue
      }
      const { pair } = member
      await volumes.setServing(this.volumeId(member), { mode: 'session', session, pair })
      await onAdded(await this.#openMember(member, true))
    }
    return changed
  }

  #check(member: SessionMember): void {
    const { session, volumes } = this.#parts
    const known = this.#open.get(member.index)?.stored
    const id = this.volumeId(member)
    if (known !== undefined && (this.volumeId(known) !== id || known.pair !== member.pair)) {
      throw new Fault(MEMBER_CHANGED, `member ${member.index} of session ${session}`)
    }
    if (this.wasRemoved(member.index)) {
      throw new Fault(MEMBER_CHANGED, `member ${member.index} was removed before`)
    }
    const record = volumes.record(id)
    if (record === undefined) throw new Fault(VOLUME_UNKNOWN, `volume ${id}`, { volume: id })
    if (record.serving.mode === 'session' && record.serving.session !== session) {
      throw new Fault(VOLUME_BUSY, `volume ${id}`, { session: record.serving.session })
    }
  }

  /** Durable when it resolves. */
  async markJoined(indexes: readonly number[]): Promise<void> {
    const now = new Set(indexes)
    if (this.#file.members.every((member) => member.joined || !now.has(member.index))) return
    await this.#write({
      ...this.#file,
      members: this.#file.members.map((member) =>
        now.has(member.index) ? { ...member, joined: true } : member,
      ),
    })
    for (const member of this.#file.members) {
      const open = this.#open.get(member.index)
      if (open !== undefined) open.stored = member
    }
  }

  async setCopyRate(bytes: number): Promise<void> {
    await this.#write({ ...this.#file, copy_rate_bytes: bytes })
  }

  /**
   * The member's volume is thrown away and an empty one of its name and size takes its place, which has had no copy yet. Nobody else
   * uses the volume meanwhile. A crash in the middle is mended by the next `openAll`.
   */
  async rebuild(index: number, rebuild: string): Promise<void> {
    const member = this.#open.get(index)
    assert(member !== undefined, 'only an open member is rebuilt')
    const stored = { ...member.stored, joined: false, rebuild: { id: rebuild, done: false } }
    await this.#writeMember(stored)
    this.#open.delete(index)
    await member.intent.close()
    member.changes.close()
    await this.#replace(stored)
  }

  async #replace(stored: StoredMember): Promise<void> {
    const { volumes, directory, session } = this.#parts
    const id = this.volumeId(stored)
    const { pair, size_bytes: sizeBytes, rebuild } = stored
    assert(rebuild !== undefined, 'a member is replaced by a rebuild')
    const known = volumes.record(id)
    const owner = known?.owner ?? rebuild.owner ?? ''
    if (known !== undefined && rebuild.owner === undefined) {
      // The owner is not to be lost between the old volume and the new one.
      await this.#writeMember({ ...stored, rebuild: { ...rebuild, owner } })
    }
    await volumes.delete(id)
    await rm(join(directory, `intent-${stored.index}`), { force: true })
    await rm(join(directory, `changes-${stored.index}`), { force: true })
    const size = Math.max(sizeBytes, known?.sizeBytes ?? 0)
    await volumes.create(id, size, { mode: 'session', session, pair }, owner)
    const done = { ...stored, rebuild: { ...rebuild, owner, done: true } }
    await this.#writeMember(done)
    await this.#openMember(done, true)
  }

  async #writeMember(stored: StoredMember): Promise<void> {
    const members = this.#file.members.map((one) => (one.index === stored.index ? stored : one))
    await this.#write({ ...this.#file, members })
  }

  /** No longer a member, durably. The volume and the maps stay as they are until `dropMaps`. */
  async forget(index: number): Promise<void> {
    await this.#write({
      ...this.#file,
      members: this.#file.members.filter((member) => member.index !== index),
      removed: [...new Set([...this.#file.removed, index])],
    })
    this.#open.delete(index)
  }

  /** Of a forgotten member. */
  async dropMaps({ index, intent, changes }: OpenMember): Promise<void> {
    await intent.close()
    changes.close()
    await rm(join(this.#parts.directory, `intent-${index}`), { force: true })
    await rm(join(this.#parts.directory, `changes-${index}`), { force: true })
  }

  async #write(file: MembersFile): Promise<void> {
    this.#file = file
    await writeMembers(this.#parts.directory, file)
  }

  // -- intent and end -------------------------------------------------------------------------------------------------

  /** A clearing round of every member: bits that are touched from now on survive its `saveRound`. */
  beginRound(): void {
    for (const { intent } of this.#open.values()) intent.beginRound()
  }

  /** fdatasync of every volume. */
  async flush(): Promise<void> {
    await Promise.all(this.#flushes())
  }

  /** As `flush`, but waits for all of them; false when one failed. */
  async flushOrNot(): Promise<boolean> {
    const flushed = await Promise.allSettled(this.#flushes())
    return flushed.every(({ status }) => status === 'fulfilled')
  }

  #flushes(): Promise<void>[] {
    return [...this.#open.values()].map(({ volume }) => volume.flush())
  }

  /** Intent files and change maps. */
  async closeFiles(): Promise<void> {
    for (const { intent, changes } of this.#open.values()) {
      await intent.close()
      changes.close()
    }
  }
}

/** Clears what the member's round left untouched, durably. The caller knows that both sides are equal and durable there. */
export async function saveRound({ intent }: OpenMember): Promise<void> {
  intent.endRound()
  await intent.save()
}
