import Type, { type Static } from 'typebox'
import { ComputeStatus, ServerBrief } from './servers.ts'
import { VerifySummary } from './verify.ts'

/**
 * What an agent sends to the control plane's internal port (HTTPS, client certificate `agent:SITE:ID`):
 *
 *     POST /internal/v1/report              Report        -> ReportAnswer     every second
 *     POST /internal/v1/witness/{session}   WitnessAsk    -> WitnessAnswer    see docs/architecture/replication.md
 *
 * A site speaks for itself only: `site` must equal the certificate's. Unknown session -> 404, which an agent
 * treats like an unreachable witness (it never demotes on it).
 */
export const OwnershipRecord = Type.Object({
  session: Type.String(),
  epoch: Type.Integer({ minimum: 0 }),
  state: Type.Union([
    Type.Literal('closed'),
    Type.Literal('resyncing'),
    Type.Literal('in_sync'),
    Type.Literal('solo'),
    Type.Literal('frozen'),
    Type.Literal('failed_over'),
  ]),
  writer: Type.String(),
  replica: Type.String(),
  mode: Type.Union([Type.Literal('witness'), Type.Literal('static-priority')]),
  preferred: Type.String(),
})
export type OwnershipRecord = Static<typeof OwnershipRecord>

export const WitnessAsk = Type.Union([
  Type.Object({ kind: Type.Literal('confirm'), site: Type.String() }),
  Type.Object({
    kind: Type.Literal('renew'),
    site: Type.String(),
    epoch: Type.Integer(),
    /** What the writer has done alone in this epoch, so that the witness can say at least how much the other side lacks. */
    alone: Type.Optional(
      Type.Object({
        sequence: Type.Number(),
        /** Payload bytes written alone since the sites lost each other. */
        bytes: Type.Number(),
        /** Wall clock of the writer, ms, when it went on alone. */
        since: Type.Number(),
      }),
    ),
  }),
  Type.Object({
    kind: Type.Union([
      Type.Literal('rise'),
      Type.Literal('drop'),
      /** in_sync -> solo: the link is lost, the writer wants to go on alone. */
      Type.Literal('solo'),
      /** solo -> resyncing: the frame log does not reach back to the replica's number. */
      Type.Literal('resync'),
    ]),
    site: Type.String(),
    epoch: Type.Integer(),
    /** Unique per intended change; a repeat carries the same one. */
    attempt: Type.String({ minLength: 8, maxLength: 64 }),
  }),
  /** in_sync, same writer: another way of arbitration. */
  Type.Object({
    kind: Type.Literal('configure'),
    site: Type.String(),
    epoch: Type.Integer(),
    attempt: Type.String({ minLength: 8, maxLength: 64 }),
    mode: Type.Union([Type.Literal('witness'), Type.Literal('static-priority')]),
    preferred: Type.String(),
  }),
  /** After break-glass: the record that `site` has acted under without the witness. */
  Type.Object({
    kind: Type.Literal('promoted'),
    site: Type.String(),
    attempt: Type.String({ minLength: 8, maxLength: 64 }),
    record: OwnershipRecord,
    /** Epoch of the newest record that the site had been shown before: where the witness's is older, the arbitration of `record` counts. Left out by
     *  sites that do not say. */
    known: Type.Optional(Type.Integer({ minimum: 0 })),
  }),
])
export type WitnessAsk = Static<typeof WitnessAsk>

export const WitnessAnswer = Type.Union([
  Type.Object({
    ok: Type.Literal(true),
    record: OwnershipRecord,
    /** For `renew`: the lease's length, counted by the holder from before it sent the request. */
    lease_ms: Type.Union([Type.Number(), Type.Null()]),
  }),
  Type.Object({
    ok: Type.Literal(false),
    refusal: Type.String(),
    record: OwnershipRecord,
    retry_after_ms: Type.Union([Type.Number(), Type.Null()]),
  }),
])
export type WitnessAnswer = Static<typeof WitnessAnswer>

export const MemberStatus = Type.Object({
  volume: Type.String(),
  pair: Type.String(),
  /** False until the first copy of this volume reached the replica in full. */
  joined: Type.Boolean(),
  copied_bytes: Type.Number(),
  size_bytes: Type.Number(),
})

export const SessionStatus = Type.Object({
  session: Type.String(),
  epoch: Type.Integer(),
  state: Type.String(),
  role: Type.Union([Type.Literal('writer'), Type.Literal('replica'), Type.Literal('fenced')]),
  /** The session's own phase, e.g. following, copying, held; see docs/architecture/replication.md. */
  phase: Type.String(),
  link: Type.Union([Type.Literal('up'), Type.Literal('down')]),
  /** Milliseconds since the peer was last heard; null when never. */
  peer_silence_ms: Type.Union([Type.Number(), Type.Null()]),
  /** Writer: last sequence number given out. Replica: last one applied. */
  sequence: Type.Number(),
  /** Writer: last sequence number that the replica acknowledged. */
  acknowledged: Type.Number(),
  /** This side's volumes are a prefix of the group's writes (false in the middle of a copy, and when it is `torn`). */
  consistent: Type.Boolean(),
  /** Replica: what it holds, or keeps for the time of a resync, went through a loss of power, and nobody has compared it since: what was flushed is
   *  there, of the rest each block may be of another moment. Left out: not so. */
  torn: Type.Optional(Type.Boolean()),
  /** Milliseconds for which acknowledgements have been held; null when they flow. */
  held_ms: Type.Union([Type.Number(), Type.Null()]),
  /** The peer does not answer on the link, but its process is heard (see docs/architecture/replication.md, "Alive but busy"). */
  peer_busy: Type.Optional(Type.Boolean()),
  /** 0-100, of the copy under way; 100 when none is needed. */
  progress: Type.Number(),
  copy_rate_bytes: Type.Number(),
  /** delta: what the change maps name · full: no common history, everything is compared · first: a new copy · none */
  copy_kind: Type.Union([
    Type.Literal('none'),
    Type.Literal('first'),
    Type.Literal('delta'),
    Type.Literal('full'),
  ]),
  /** Epoch of the last rise that this side took part in, from which its change maps count; 0: none. Two sides with the same one
   *  need a delta only. Left out by a side that does not say. */
  base_epoch: Type.Optional(Type.Integer({ minimum: 0 })),
  /** Bytes that the copy under way, or the last one, has sent. */
  copy_sent_bytes: Type.Number(),
  /** This side answers without the witness's word (static priority, break-glass). */
  unwitnessed: Type.Boolean(),
  /** It does so after break-glass, and presents its record to the witness itself. Left out by a side that does not say. */
  presents: Type.Optional(Type.Boolean()),
  /** Of the record that this side acts under. Left out by a side that does not say. */
  arbitration: Type.Optional(
    Type.Object({
      mode: Type.Union([Type.Literal('witness'), Type.Literal('static-priority')]),
      preferred: Type.String(),
    }),
  ),
  /** Replica: wall clock, ms, since when it has not heard the writer; null: in touch. */
  out_of_touch_ms: Type.Union([Type.Number(), Type.Null()]),
  /** Id of the consistent copy kept for the time of a resync; null: none. */
  kept: Type.Union([Type.String(), Type.Null()]),
  /** Why the other side can hold no copy now, as the writer knows it, or this side itself; null: it can. */
  unfit: Type.Union([Type.Literal('failed'), Type.Literal('no_space'), Type.Null()]),
  members: Type.Array(MemberStatus),
  /** What verification has found; left out by sides that never verified. */
  verify: Type.Optional(VerifySummary),
})
export type SessionStatus = Static<typeof SessionStatus>

/** A session that has ended at a site. Nothing acts under it any more, but a witness that was restored from before its end has to hear of it:
 *  its writer may have gone on outside of any session. */
export const EndedSession = Type.Object({
  session: Type.String(),
  /** Epoch of the record that ended it. */
  epoch: Type.Integer({ minimum: 1 }),
  /** The site whose volumes were left in use. */
  writer: Type.String(),
})
export type EndedSession = Static<typeof EndedSession>

export const Report = Type.Object({
  site: Type.String(),
  agent: Type.String(),
  boot_id: Type.String(),
  /** Random per process start. */
  run_id: Type.String(),
  version: Type.String(),
  /** Where the control plane sends commands, peers dial the link, and clients reach NBD. `host:port`. */
  command_address: Type.String(),
  link_address: Type.String(),
  nbd_unix: Type.String(),
  nbd_tcp: Type.Union([Type.String(), Type.Null()]),
  nbd_tls: Type.Boolean(),
  free_bytes: Type.Number(),
  sessions: Type.Array(SessionStatus),
  /** The `mark` of the last answer that this process of the agent has had; left out before the first one. */
  mark: Type.Optional(Type.String()),
  /** Left out by agents that do not say. */
  ended: Type.Optional(Type.Array(EndedSession)),
  /** `ended` names all sessions of ids behind the first up to the second, as strings are ordered; left out: from the first, to the last. */
  ended_after: Type.Optional(Type.String()),
  ended_up_to: Type.Optional(Type.String()),
  /** Left out by agents without a compute driver. */
  servers: Type.Optional(Type.Array(ServerBrief)),
  compute: Type.Optional(ComputeStatus),
})
export type Report = Static<typeof Report>

export const ReportAnswer = Type.Object({
  /** The database's incarnation, so that an agent notices a restored witness. */
  incarnation: Type.String(),
  /** Names the history of the database. Only a report that repeats it was surely made after that history began. */
  mark: Type.String(),
})
export type ReportAnswer = Static<typeof ReportAnswer>
