import type { PeerHello, SessionMessage } from '#agent/replication/session/session.ts'
import type { OwnershipRecord } from '#wire/site/witness.ts'
import type { BlockRange } from './site.ts'

/* What two agents say to each other over their link, as the frames of docs/formats/link.md. */

export type LinkMessage =
  /** `joined`: the volumes there have had their first copy in full. */
  | { readonly t: 'hello'; readonly hello: PeerHello; readonly joined: boolean }
  /** A first copy beside the stream is complete: the replica makes it durable and remembers. */
  | { readonly t: 'join' }
  /** It has. */
  | { readonly t: 'joined' }
  | { readonly t: 'record'; readonly record: OwnershipRecord }
  | { readonly t: 'session'; readonly message: SessionMessage }
  /** A numbered write: of a client (`value` is its number in the order), or of a copy (several values). */
  | {
      readonly t: 'frame'
      readonly sequence: number
      readonly blocks: readonly number[]
      readonly values: readonly number[]
      readonly copy: boolean
    }
  | { readonly t: 'applied'; readonly sequence: number }
  /** One fdatasync, of the volume that holds these blocks (or of all). */
  | { readonly t: 'flush'; readonly id: number; readonly range: BlockRange }
  | { readonly t: 'flushed'; readonly id: number }
  | { readonly t: 'beat'; readonly sentMs: number }
  | { readonly t: 'echo'; readonly sentMs: number }
  /** Contents are compared (by checksum) or fetched: the answer is the same here. */
  | { readonly t: 'look'; readonly id: number; readonly blocks: readonly number[] }
  | { readonly t: 'seen'; readonly id: number; readonly values: readonly number[] }
  /** What the replica knows to be different here: its change map (null: of another boot) and its intent regions. */
  | { readonly t: 'ask_map'; readonly id: number }
  | {
      readonly t: 'map'
      readonly id: number
      readonly changed: readonly number[] | null
      readonly regions: readonly number[]
    }
