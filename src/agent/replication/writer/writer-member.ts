import type { Device, Io, IoError } from '#agent/nbd/device.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import type { ChangeMap } from '../copy/change-map.ts'
import type { CopyTodo } from '../copy/copy-todo.ts'
import type { IntentBitmap } from './intent-bitmap.ts'

/** One volume of a session as its writer has it. */
export interface WriterMember {
  readonly index: number
  readonly volume: Volume
  readonly intent: IntentBitmap
  /** What this side changed and the replica may lack. */
  readonly changes: ChangeMap
  /** What the copy to the replica still has to see to. */
  readonly todo: CopyTodo
  /** Copies that run look here for writes into the range they are reading. */
  readonly watched: Set<WatchedRange>
  running: FlushRound | null
  next: FlushRound | null
  readonly device: Device
}

/** A range that a copy is reading; `hit` when a client wrote into it meanwhile. */
export interface WatchedRange {
  readonly offset: number
  readonly length: number
  hit: boolean
}

/** One fdatasync on both sides and everybody who waits for it. */
export interface FlushRound {
  readonly member: WriterMember
  readonly ios: Io[]
  readonly waiters: ((error: IoError) => void)[]
  /** Numbers up to it must be releasable too: writes with FUA. */
  seq: number
  localDone: boolean
  peerDone: boolean
  /** Id on the present link; 0: not sent there. */
  id: number
  /** The last number that had been given to a write when FLUSH was put on the link. */
  askedAt: number
  /** The fdatasync here has begun: it covers nothing that is carried out later. */
  begun: boolean
  error: IoError
}
