import type { OwnershipRecord, WitnessAnswer, WitnessAsk } from '#wire/site/witness.ts'
import type { Role } from './phases.ts'

/* The words between a session and the shell around it: what is stored, what can happen, what is to be done. session.ts decides; the
 * shell (runtime.ts, or sim/world/agent.ts) carries out. The comment at an effect is the whole contract of that effect.
 */

/** What the epoch file keeps. */
export interface StoredSession {
  readonly record: OwnershipRecord
  /** Replica: the volumes are a prefix of the session's writes. Always true at a writer. */
  readonly consistent: boolean
  /** Writer: outside the set intent regions both sites are equal and durable. */
  readonly base: boolean
  /** The witness may have risen from this epoch: ask with the same attempt until a higher epoch answers. */
  readonly riseAsked: boolean
  /** This side stopped being the writer with content that its present writer may lack: no stream continues it, only a resync. */
  readonly divergent: boolean
  /** Failed over to this site, and the old writer's contact has not been waited out yet. */
  readonly promoting: boolean
  /** Number of the last write held durably, when the last process of this session stopped cleanly. */
  readonly clean: number | null
  /** Epoch of the last rise that this side took part in: what its change maps count from; 0: there was none. */
  readonly baseEpoch: number
  /** Writer: the base before that one, while it is not known whether the replica has heard of the last rise; 0: it has. */
  readonly priorBase: number
  /**
   * The change map of this side, or the writer's if this is the replica, names all that the two may differ in since the base. False
   * after a loss of power, or when a process of an in_sync writer died with writes on their way: then the writer's set intent regions
   * are to be compared too. True again with the next rise.
   */
  readonly exact: boolean
  /** Writer: every write that it ever answered is in its volumes. False after a loss of power in sync, until it has made itself equal to
   *  the replica, or an operator takes it as it is. */
  readonly whole: boolean
  /** Replica in a resync: id of the snapshot that holds its last consistent state; null: there is none. */
  readonly kept: string | null
  /** This side acknowledged writes alone that its present writer never had: what a resync overwrites here is to be kept. */
  readonly ackedAlone: boolean
  /** Writer that goes on without the witness: the preferred site of static-priority, or after break-glass. */
  readonly unwitnessed: boolean
  /** The record was made here by break-glass, and the witness has not taken it over yet. */
  readonly promoted: boolean
  /** Writer: an operator's wish that the witness is still to be asked for. While it stands, the stricter of it and the record counts. */
  readonly wanted: Arbitration | null
  /** Writer: it was asked to stand still for a switch, and the witness may have committed that switch since. Until it is shown a newer record it does
   *  not go on unwitnessed. */
  readonly offered: boolean
  /** Writer that static priority prefers: the witness itself has answered no question under this record yet. Who sent it may be of a history that the
   *  witness has lost since, so until then it does not go on unwitnessed. */
  readonly unconfirmed: boolean
  /**
   * Replica: wall clock, ms, since when what is here (in a resync: what is kept) may lack what the writer answered: it has not been heard
   * although the record says in_sync or solo, its session was closed in step, or a resync of a side in step began. null: in touch, or not known.
   */
  readonly outOfTouchMs: number | null
  /**
   * What this side holds of the group (its volumes; in a resync, what is kept of them) went through a loss of power with writes that were not durable yet,
   * and nobody has compared it since: what was flushed is there, of the rest each block may be of another moment. It is not thrown away,
   * and not taken for a prefix.
   */
  readonly torn: boolean
}

export interface Arbitration {
  readonly mode: OwnershipRecord['mode']
  readonly preferred: string
}

export interface SessionSettings {
  readonly session: string
  readonly site: string
  /** Longest silence of the peer before nothing is answered, ms. */
  readonly silenceMs: number
  /** Interval of lease renewals and of `confirm`, ms. */
  readonly renewMs: number
  /** From the loss of the link to the question for `solo`, ms. Absent: the writer never asks to go on alone by itself. */
  readonly soloDelayMs?: number
  /** The shell carries out `keep_copy`, `restore_kept` and `release_kept`. Absent: none of them is asked for. */
  readonly keepsCopies?: boolean
}

/** What the peer says of itself when a link opens. */
export interface PeerHello {
  readonly record: OwnershipRecord
  readonly role: Role
  /** `applied` is exact, and nothing that this side ever acknowledged has been lost since the base. */
  readonly clean: boolean
  /** It holds writes of its own: no stream continues it. */
  readonly divergent: boolean
  readonly consistent: boolean
  /** Replica that was the writer: everything that was ever answered is in its volumes, durably, although no stream continues them. */
  readonly complete?: boolean
  /** It has lost nothing since its base, and its change map names all that it changed. Absent: that is not known. */
  readonly exact?: boolean
  /** Number of the last write applied (replica) or given out (writer). */
  readonly applied: number
  readonly baseEpoch: number
  /** Why this side can hold no copy now: a failed disk ('failed') or a full one ('no_space'); null: it can. */
  readonly unfit: 'failed' | 'no_space' | null
}

/** Messages between two sessions, sent in the order of the link's stream. */
export type SessionMessage =
  /** Writer under solo: the frames behind `sequence`, which you have, follow in order; you stay a prefix. */
  | { readonly kind: 'catch_up'; readonly sequence: number }
  /** Writer: a copy begins; the next write has number `sequence` + 1. */
  | { readonly kind: 'copy_begin'; readonly sequence: number }
  /** Writer: the copy is done; make everything before this message durable and persist it under `epoch`, the coming one. */
  | { readonly kind: 'rise'; readonly epoch: number; readonly members: readonly number[] }
  /** Replica: done. */
  | { readonly kind: 'risen'; readonly epoch: number }
  /** Writer: the witness has committed this record. */
  | { readonly kind: 'epoch'; readonly record: OwnershipRecord }
  /** Replica: persisted. */
  | { readonly kind: 'epoch_accepted'; readonly epoch: number }

export type SessionEvent =
  /** Once, after construction. `over`: the session has ended here, and its `end` was carried out. */
  | { readonly kind: 'start'; readonly now: number; readonly over?: boolean }
  /** `joined`: every member's first copy has reached this site in full. */
  | {
      readonly kind: 'open'
      readonly now: number
      readonly record: OwnershipRecord
      readonly force: boolean
      readonly joined: boolean
      /** The old writer has persisted a record under which it answers nothing: its contact is over already. */
      readonly gaveUp?: boolean
      /** Volumes of this site still hold, untouched, the copy that this session left in them when it ended here (`end` with `copy`). */
      readonly left?: boolean
    }
  /** The session is over here, and volumes that it is about to be opened with again are served plainly at this site. */
  | { readonly kind: 'served_plainly'; readonly now: number }
  /** Members were added or grew. */
  | { readonly kind: 'members_changed'; readonly now: number }
  | { readonly kind: 'hold'; readonly now: number; readonly epoch: number; readonly holdMs: number }
  | { readonly kind: 'release'; readonly now: number }
  | { readonly kind: 'close'; readonly now: number; readonly record: OwnershipRecord }
  /** Hellos were exchanged. A link that replaces another is reported after that one's `link_down`. */
  | {
      readonly kind: 'link_up'
      readonly now: number
      readonly hello: PeerHello
      /** Writer: every frame numbered behind it is still in the frame log; null: there is no log. */
      readonly logFrom: number | null
    }
  | { readonly kind: 'link_down'; readonly now: number }
  /** The peer refused the link, or spoke under another epoch, and showed its record. */
  | { readonly kind: 'peer_record'; readonly now: number; readonly record: OwnershipRecord }
  | { readonly kind: 'message'; readonly now: number; readonly message: SessionMessage }
  /** `answer` null: unreachable, timed out, or unknown session. `sentMs`: clock before the request was sent. */
  | {
      readonly kind: 'witness'
      readonly now: number
      readonly ask: WitnessAsk
      readonly sentMs: number
      readonly answer: WitnessAnswer | null
    }
  /** Every dirty region of every joined member equals the replica's now. */
  | { readonly kind: 'reconciled'; readonly now: number }
  /** Nothing is left to copy, and the replica acknowledged all of it. `members`: indexes of all members it was done for. */
  | { readonly kind: 'copied'; readonly now: number; readonly members: readonly number[] }
  /** Writer while catching up: the replica has acknowledged everything, or nearly (the rest fits into one turn of the link). Once for each
   *  `watch_catch_up`. */
  | { readonly kind: 'caught_up'; readonly now: number }
  /** Writer under solo: the frame log grew too long and was dropped. Frames stay marked in the change map. */
  | { readonly kind: 'log_dropped'; readonly now: number }
  /** The snapshot of `keep_copy` was taken, or cannot be taken here (no space): `ok` false. Until this event is handled, with all its
   *  effects, the replica applies nothing that came behind `copy_begin`; `Session.applies` says whether it may. */
  | { readonly kind: 'kept'; readonly now: number; readonly id: string; readonly ok: boolean }
  /** An operator at this site makes it the writer without the witness. */
  | {
      readonly kind: 'promote'
      readonly now: number
      readonly joined: boolean
      readonly force: boolean
    }
  /** An operator asks the writer to change how it is arbitrated; it asks the witness (`configure`). */
  | {
      readonly kind: 'arbitrate'
      readonly now: number
      readonly mode: OwnershipRecord['mode']
      readonly preferred: string
    }
  /** After `drain`: nothing in flight, everything durable on both sides. */
  | { readonly kind: 'drained'; readonly now: number }
  /** A few times per renewal interval, at both sides. `wallMs`: the wall clock, for what people are told. */
  | { readonly kind: 'tick'; readonly now: number; readonly wallMs?: number }

export type SessionEffect =
  /** Fsynced before the next effect. */
  | { readonly kind: 'persist'; readonly stored: StoredSession }
  /** fdatasync of every volume of the session, before the next effect. */
  | { readonly kind: 'make_durable' }
  /** These members count as joined at this site, persisted before the next effect. */
  | { readonly kind: 'mark_joined'; readonly members: readonly number[] }
  /** The volumes are exported through the session; clients that are connected stay so. */
  | { readonly kind: 'serve' }
  /** Exports refuse to open with the reason; connections are dropped; I/O that waits is failed. Also at a writer whose group is
   *  frozen: what it had numbered stays numbered, and frames that are kept for the replica stay. `serve` ends it. */
  | { readonly kind: 'refuse'; readonly reason: string }
  /**
   * The session is over: volumes are served plainly, without dropping connections, or refuse. `copy`: what they hold is a state of the group.
   * It is made durable and noted with each of them that was joined, before they refuse under the end; whoever changes one of them takes
   * that note away first. Where it cannot be made durable nothing is noted. `torn`: so is that, with the note.
   */
  | {
      readonly kind: 'end'
      readonly serving: 'standalone' | 'standby'
      readonly copy: boolean
      readonly torn: boolean
    }
  /** Whether new writes are numbered, or wait. */
  | { readonly kind: 'input'; readonly open: boolean }
  /** Look at the gate: more may be answered now. */
  | { readonly kind: 'release' }
  | { readonly kind: 'ask'; readonly ask: WitnessAsk }
  /** The replica dials the writer, for ever, until told otherwise. */
  | { readonly kind: 'dial'; readonly on: boolean }
  /** Close the link; with `tell`, the peer learns this side's record first. Reported as no event. */
  | { readonly kind: 'drop_link'; readonly tell: boolean }
  | { readonly kind: 'send'; readonly message: SessionMessage }
  /** Replica: `gate.sequence` has been set to the writer's; note it as applied. */
  | { readonly kind: 'applied_from' }
  /** Writer: sends `copy_begin` with the number given out last; frames go out on the link from now on. The number of the moment in
   *  which this is carried out: the effects before it may have let clients in, whose writes the copy sees to. */
  | { readonly kind: 'begin_copy' }
  /** Frames go out on the link from now on, the retained ones after `after` first, those of the frame log among them. */
  | { readonly kind: 'resend'; readonly after: number }
  /** Retained frames are no longer needed, nor is the frame log; with `mark`, their blocks are set in the change map before the next
   *  effect. */
  | { readonly kind: 'forget_frames'; readonly mark: boolean }
  /** all: everything, compared · delta: what the change maps of both sides and the replica's intent bits name, with `regions` the
   *  writer's own set intent regions too · joining: members that never had a full copy, and marked blocks */
  | { readonly kind: 'start_copy'; readonly scope: CopyScope; readonly regions?: boolean }
  /** Whether answered frames that the replica lacks are kept, up to the limit (frame log). Turning it on sets the blocks of those that
   *  are kept now in the change map before the next effect, also when it was on; turning it off forgets those that were answered.
   *  (`Session.marks` says whether the hot path sets the blocks of each new write.) */
  | { readonly kind: 'log_frames'; readonly on: boolean }
  /** Tell me (`caught_up`) when the replica has nearly everything that was numbered. Ends with the link. */
  | { readonly kind: 'watch_catch_up' }
  /** Both sides are equal but for what is in flight: change maps (and a replica's intent bits) begin empty, relative to `epoch`. Dying half
   *  way may leave bits too many, never too few. Frames in flight are not in the map: they are kept until acknowledged. */
  | { readonly kind: 'clear_changes'; readonly epoch: number }
  /** Replica: a durable snapshot of all members as they are; nothing is applied before it is taken. A snapshot of this id that exists is
   *  what an interrupted try left: it is replaced. `ownOnly`: what this side changed itself is all that the writer may lack. Reported as `kept`. */
  | { readonly kind: 'keep_copy'; readonly id: string; readonly ownOnly: boolean }
  /** All members become what the snapshot holds, durably, before the next effect. The snapshot stays. May be done again after it was
   *  interrupted. The side is no writer yet, or just about to become one; nothing is applied, nothing served. */
  | { readonly kind: 'restore_kept'; readonly id: string }
  /** The snapshot is not needed for recovery any more. `divergence`: where it differs from the members as they are now is kept as a
   *  divergence record, durably, before the next effect. An unknown id is no error: it was released before. */
  | { readonly kind: 'release_kept'; readonly id: string; readonly divergence: boolean }
  | { readonly kind: 'stop_copy' }
  /** Fetch what differs from the replica, in the dirty regions or everywhere, then report `reconciled`. `stop_copy` ends
   *  it as well. */
  | { readonly kind: 'reconcile'; readonly scope: 'all' | 'dirty' }
  /** Report `drained` when nothing is in flight and both sides have been made durable. */
  | { readonly kind: 'drain' }
  /** Answer to the command just handled (`open`, `close`, `hold`, `promote`, `arbitrate`): nothing was changed. */
  | { readonly kind: 'refuse_command'; readonly code: RefusalCode; readonly text: string }

/** Why a peer that dials gets no link. OLDER_EPOCH: it knows more than this side, which should look at its record. UNWITNESSED: not before
 *  the witness has recorded that this side went on alone. */
export interface PeerRefusal {
  readonly code: 'OLDER_EPOCH' | 'STALE_EPOCH' | 'WRONG_ROLE' | 'UNWITNESSED'
  readonly text: string
}

export type CopyScope = 'all' | 'delta' | 'joining'
/** NOT_YET: the same command may succeed in a few seconds. The others are final. */
export type RefusalCode =
  | 'STALE_EPOCH'
  | 'NOT_CONSISTENT'
  | 'NOT_WRITER'
  | 'WRONG_STATE'
  | 'NOT_YET'
