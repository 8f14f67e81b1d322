import type { Volume } from './volume.ts'

/** Who may use a volume, kept with it so that a restart does not have to ask.
 *  standalone: served without replication · standby: refuses to open, with the reason · session: served by a session
 *  under `pair`, and refused until that session is running */
export type Serving =
  | { readonly mode: 'standalone' }
  | { readonly mode: 'standby'; readonly reason: string; readonly left?: LeftCopy }
  | { readonly mode: 'session'; readonly session: string; readonly pair: string }

/** The session that ended here left its whole copy of a member in the volume, durably, and nobody has changed it since. */
export interface LeftCopy {
  readonly session: string
  /** Of the record that ended it. */
  readonly epoch: number
  /** That copy went through a loss of power before, and nobody has compared it since: of what was not flushed each block may be of another moment. */
  readonly torn?: boolean
}

/** What the clients of a volume may do, at whichever site and in whatever role it is served. */
export interface VolumeLimit {
  /** Of the order that set it; an older order changes nothing. */
  readonly revision: number
  /** Requests per second; null: no limit. */
  readonly iops: number | null
  /** null: no limit. */
  readonly bytesPerSecond: number | null
  readonly readOnly: boolean
}

export interface VolumeRecord {
  readonly id: string
  readonly sizeBytes: number
  /** Milliseconds since 1970. */
  readonly createdMs: number
  readonly serving: Serving
  /** Whose client certificates may open the volume over TLS; empty: nobody's. */
  readonly owner: string
  /** Absent: none was ever set. */
  readonly limit?: VolumeLimit
  /** Why the copy is failed for good; null while it is good. */
  readonly failed: string | null
}

/** The volumes of one site. All changes are durable when their promise resolves, and repeating one changes nothing. */
export interface VolumeStore {
  /** A volume that reads as zeroes. The same id and size again: the record as it stands, `serving` untouched.
   *  Another size: SIZE_MISMATCH. */
  create(
    id: string,
    sizeBytes: number,
    serving: Serving,
    owner?: string,
    /** Gives a new volume its content. The volume exists, with all of it and durably, when `create` resolves; a fault of the filler, or a crash,
     *  leaves nothing. Until then `open` of it waits. */
    fill?: VolumeFiller,
  ): Promise<VolumeRecord>
  /** The open volume; one object per volume, shared by all callers, closed by `delete` or `close` of the store. */
  open(id: string): Promise<Volume>
  record(id: string): VolumeRecord | undefined
  list(): readonly VolumeRecord[]
  setServing(id: string, serving: Serving): Promise<VolumeRecord>
  /** An older one than the volume has changes nothing. */
  setLimit(id: string, limit: VolumeLimit): Promise<VolumeRecord>
  /** Grows a volume; a smaller or equal size changes nothing. */
  extend(id: string, sizeBytes: number): Promise<VolumeRecord>
  /** Gone with its data. The caller has ended its exports. An unknown id changes nothing. Rejects with the Fault of the keeper. */
  delete(id: string): Promise<void>
  /** The copy is worth nothing any more: refuses all I/O from now on, durably, with this reason. Failed already: no change. */
  fail(id: string, reason: string): Promise<void>
  /** Who may refuse the deletion of a volume, and its opening while its content is being set back. One for the store. */
  setKeeper(keeper: VolumeKeeper): void
  /** Whether volumes of this store can be cloned into files of `directory`; found out by trying. */
  canClone(directory: string): Promise<boolean>
  /** Free space of the file system in bytes. */
  freeBytes(): Promise<number>
  close(): Promise<void>
}

/** Before the content of a volume outside of sessions is changed: it is no session's copy any more. Durable when it resolves. */
export async function forgetLeftCopy(volumes: VolumeStore, id: string): Promise<void> {
  const serving = volumes.record(id)?.serving
  if (serving?.mode !== 'standby' || serving.left === undefined) return
  await volumes.setServing(id, { mode: 'standby', reason: serving.reason })
}

/** The data of a volume that is being created: a hole of its size. */
export interface NewVolumeData {
  /** As `Volume.cloneFrom`: its beginning shares the bytes of a file. */
  cloneFrom(fd: number, length: number): Promise<void>
  write(buf: Uint8Array, bufOffset: number, length: number, offset: number): Promise<void>
  /** What was written is on the disk when it resolves. */
  flush(): Promise<void>
}
export type VolumeFiller = (data: NewVolumeData) => Promise<void>

export interface VolumeKeeper {
  /** The Fault to refuse with; undefined: it may be done. */
  mayDelete(id: string): Error | undefined
  mayOpen(id: string): Error | undefined
}
