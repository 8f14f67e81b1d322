import Type, { type Static, type TSchema } from 'typebox'
import {
  BackupInfo,
  BackupRequest,
  CollectInfo,
  ReplicaAdmission,
  ReplicaAdmitRequest,
  ReplicaInfo,
  ReplicaRequest,
  RestoreInfo,
  RestoreRequest,
  VaultAttachment,
  VaultList,
  VaultListRequest,
  VaultVerifyInfo,
  VaultVerifyRequest,
  Uuid,
} from './backups.ts'
import {
  CloneInfo,
  DIVERGENCE_RANGES_MAX,
  DIVERGENCE_READ_BYTES_MAX,
  DivergenceInfo,
  DivergenceRange,
  SnapshotInfo,
  SnapshotMoment,
} from './snapshots.ts'
import { ProbeAnswer, ProbeRequest } from './probes.ts'
import {
  ConsoleRequest,
  FillInfo,
  FillRequest,
  ImageInfo,
  RebootRequest,
  ServerDefinition,
  ServerInfo,
  ServerRequest,
  StopRequest,
} from './servers.ts'
import { VerifyStatus } from './verify.ts'
import { OwnershipRecord, SessionStatus } from './witness.ts'

/**
 * Commands from the control plane to a site agent: `POST /internal/v1/commands/{name}` over HTTPS with client
 * certificate `control:REGION`. Every command is idempotent: repeating it after a lost reply, or after a crash
 * of either side, has the same result. Refusals answer 409 with `CommandRefusal`; bad input 400; a failure
 * that a repeat may cure 503.
 *
 * The agent does not know what a protection group is. It knows volumes, sessions and epochs.
 */
const Id = Type.String({ minLength: 1, maxLength: 64, pattern: '^[0-9a-zA-Z-]+$' })
const SizeBytes = Type.Integer({ minimum: 1_048_576, maximum: 35_184_372_088_832 })
const Empty = Type.Object({})

export const VolumeInfo = Type.Object({
  volume: Id,
  size_bytes: SizeBytes,
  /** standalone: written without replication · standby: refuses to open · session: served by a session */
  serving: Type.Union([
    Type.Literal('standalone'),
    Type.Literal('standby'),
    Type.Literal('session'),
  ]),
  allocated_bytes: Type.Number(),
  failed: Type.Union([Type.String(), Type.Null()]),
  connections: Type.Integer(),
  /** standby: the session that ended here left a copy in it that went through a loss of power and was not compared since: of what was not flushed
   *  each block may be of another moment. Left out: not so. */
  torn: Type.Optional(Type.Boolean()),
})
export type VolumeInfo = Static<typeof VolumeInfo>

/** Limits in one command. */
export const LIMITS_MAX = 1024
const Rate = Type.Union([
  Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
  Type.Null(),
])

export const VolumeLimit = Type.Object({
  volume: Id,
  /** Of the order; orders may overtake each other on their way. */
  revision: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
  /** Requests per second; null: no limit. */
  iops: Rate,
  bytes_per_second: Rate,
  /** Clients that change anything get EPERM. */
  read_only: Type.Boolean(),
})
export type VolumeLimit = Static<typeof VolumeLimit>

export const SessionMember = Type.Object({
  /** Index of the volume in the link's frames: unique in the session, never given to another volume. */
  index: Type.Integer({ minimum: 1, maximum: 4_294_967_295 }),
  pair: Id,
  size_bytes: SizeBytes,
  /** The volume of this pair at each site, by site name. */
  volumes: Type.Record(Type.String(), Id),
  /** True: the replica's volume is known to be all zeroes, so that holes need not be copied. */
  replica_blank: Type.Boolean(),
})
export type SessionMember = Static<typeof SessionMember>

const command = <Request extends TSchema, Answer extends TSchema>(
  request: Request,
  answer: Answer,
) => ({
  request,
  answer,
})

export const COMMANDS = {
  /** Creates a sparse volume that reads as zeroes. Same id and size again: no change. Other size: refused. */
  'volume.create': command(
    Type.Object({
      volume: Id,
      size_bytes: SizeBytes,
      serving: Type.Union([Type.Literal('standalone'), Type.Literal('standby')]),
      /** Opaque to the agent: over TLS only certificates `nbd-client:OWNER:...` may open the volume. */
      owner: Id,
    }),
    VolumeInfo,
  ),
  /** Deletes a volume that no session serves; drops its NBD connections. Unknown id: no change. */
  'volume.delete': command(Type.Object({ volume: Id }), Empty),
  /** Grows a volume; a smaller or equal size changes nothing. */
  'volume.extend': command(Type.Object({ volume: Id, size_bytes: SizeBytes }), VolumeInfo),
  'volume.show': command(Type.Object({ volume: Id }), VolumeInfo),
  /** Switches a volume outside any session between plain serving and refusing (with the reason told to clients). */
  'volume.serve': command(
    Type.Object({
      volume: Id,
      serving: Type.Union([Type.Literal('standalone'), Type.Literal('standby')]),
      reason: Type.String({ maxLength: 200 }),
    }),
    VolumeInfo,
  ),
  /**
   * What clients of volumes may do per second, kept with the volumes and in force at whichever site serves them. An order of a lower revision
   * than the volume has changes nothing, and the volume is named in the answer; so are volumes that this site does not have.
   */
  'volume.limit': command(
    Type.Object({ limits: Type.Array(VolumeLimit, { minItems: 1, maxItems: LIMITS_MAX }) }),
    Type.Object({
      unknown: Type.Array(Id),
      newer: Type.Array(Type.Object({ volume: Id, revision: Type.Number() })),
    }),
  ),
  /**
   * Brings this site to `record`: opens the session if it is new, takes the role that the record gives this
   * site, persists the epoch first. A record older than the one held is refused (STALE_EPOCH). For the new
   * writer of a failover or reverse it answers when the volumes may be written (or refuses: NOT_CONSISTENT).
   * Members may be added (they join by a copy of their own); extended sizes are taken over.
   */
  'session.open': command(
    Type.Object({
      record: OwnershipRecord,
      members: Type.Array(SessionMember, { minItems: 1, maxItems: 1024 }),
      /** `host:port` of the peer agent's link listener. */
      peer_link: Type.String(),
      /** Accept a side that is not known to be consistent. */
      force: Type.Boolean(),
      /** The old writer has persisted a record under which it answers nothing, so its contact need not be waited out. */
      old_writer_gave_up: Type.Optional(Type.Boolean()),
    }),
    SessionStatus,
  ),
  /** Writer of an in-sync session: take no new I/O, drain, make both sides durable. Released by itself after `hold_ms`. */
  'session.hold': command(
    Type.Object({
      session: Id,
      epoch: Type.Integer(),
      hold_ms: Type.Integer({ minimum: 1, maximum: 60_000 }),
    }),
    Type.Object({ drained: Type.Boolean(), sequence: Type.Number() }),
  ),
  /** Ends a hold without switching. */
  'session.release': command(Type.Object({ session: Id, epoch: Type.Integer() }), Empty),
  /** Takes members out of a running session; their volumes go to the serving given. */
  'session.remove': command(
    Type.Object({
      session: Id,
      epoch: Type.Integer(),
      pairs: Type.Array(Id),
      serving: Type.Union([Type.Literal('standalone'), Type.Literal('standby')]),
      reason: Type.String({ maxLength: 200 }),
    }),
    Empty,
  ),
  /**
   * Ends the session under `record` (state closed). The recorded writer serves its volumes plainly, the other refuses. Where it was over before under an older record,
   * those of `volumes` that are served plainly refuse as well, if the record names the other site as the writer.
   */
  'session.close': command(
    Type.Object({
      record: OwnershipRecord,
      volumes: Type.Optional(Type.Array(Id, { maxItems: 1024 })),
    }),
    Empty,
  ),
  'session.show': command(Type.Object({ session: Id }), SessionStatus),
  /**
   * Writer of an in-sync session: makes the stricter of both modes its own and asks the witness for `configure`. Answers when that is
   * under way; the witness's record says when it is in force. Refused (NOT_WRITER, WRONG_STATE) elsewhere.
   */
  'session.arbitrate': command(
    Type.Object({
      session: Id,
      mode: OwnershipRecord.properties.mode,
      preferred: Type.String({ minLength: 1, maxLength: 64 }),
    }),
    SessionStatus,
  ),
  /**
   * Break-glass: this site becomes the writer without the witness. Taken at the agent's own host only, never from the control plane
   * (LOCAL_ONLY). Answers when the volumes may be written; refused (NOT_CONSISTENT) by a side without a consistent copy.
   */
  'session.promote': command(Type.Object({ session: Id, force: Type.Boolean() }), SessionStatus),
  /** Bytes per second for copies of this session; 0 means no limit. Foreground writes always go first. */
  'session.rate': command(
    Type.Object({ session: Id, copy_rate_bytes: Type.Integer({ minimum: 0 }) }),
    Empty,
  ),
  /**
   * Writer: compares all joined members with the replica's, while clients write. `run` names the request: the same again tells how far
   * it is; another one while it runs is refused (VERIFY_RUNNING). It goes on by itself after a restart of the agent, and waits while the
   * sites are not in sync. With `repair`, blocks that differ are sent again from the writer, which is the truth.
   */
  'session.verify': command(
    Type.Object({
      session: Id,
      epoch: Type.Integer(),
      run: Id,
      rate_bytes: Type.Integer({ minimum: 0 }),
      repair: Type.Boolean(),
    }),
    VerifyStatus,
  ),
  /** Either side; what is known of earlier runs is kept where they ran. */
  'session.verify_show': command(Type.Object({ session: Id }), VerifyStatus),
  /** Ends the run of this name, if it runs here. */
  'session.verify_cancel': command(Type.Object({ session: Id, run: Id }), VerifyStatus),
  /**
   * Replica: throws its copy of the volume away and begins with an empty one, which joins by a first copy. Refused at the writer
   * (WRONG_STATE), and for a copy that is good (COPY_IS_GOOD) without `force`. The same `rebuild` again changes nothing.
   */
  'volume.rebuild': command(
    Type.Object({
      volume: Id,
      session: Id,
      epoch: Type.Integer(),
      rebuild: Id,
      force: Type.Boolean(),
    }),
    SessionStatus,
  ),
  /** All volumes at one moment. Volumes of a session: at the writer, or at a replica that is consistent. Taken already: as it is. */
  'snapshot.create': command(
    Type.Object({
      snapshot: Id,
      volumes: Type.Array(Id, { minItems: 1, maxItems: 1024 }),
      /** drill: base of clones, nobody's snapshot. Default: user. */
      purpose: Type.Optional(Type.Union([Type.Literal('user'), Type.Literal('drill')])),
    }),
    Type.Object({ info: SnapshotInfo, moments: Type.Array(SnapshotMoment) }),
  ),
  /** Those that users took, and those of drills. `snapshot`: only this one; unknown: none. */
  'snapshot.list': command(
    Type.Object({ snapshot: Type.Optional(Id) }),
    Type.Object({ snapshots: Type.Array(SnapshotInfo) }),
  ),
  /** An unknown one changes nothing. */
  'snapshot.delete': command(Type.Object({ snapshot: Id }), Empty),
  /**
   * Makes `new_volume`, served standalone, with what the snapshot holds of `volume`; it does not follow either of them. Repeat it until `state` is
   * cloned; a restart of the agent in between begins anew. Exists already: no change, so ids of clones are never used for anything else. Refused:
   * SNAPSHOT_UNKNOWN, SNAPSHOT_FAILED, VOLUME_NO_SPACE.
   */
  'snapshot.clone': command(
    Type.Object({ snapshot: Id, volume: Id, new_volume: Id, owner: Id }),
    CloneInfo,
  ),
  /** Its volumes become what it holds; their clients are disconnected first. Refused (VOLUME_BUSY) while a session has one of them. */
  'snapshot.rollback': command(Type.Object({ snapshot: Id }), SnapshotInfo),
  /** Divergence records of the volumes of `owner`; with `session`, only its. */
  'divergence.list': command(
    Type.Object({ owner: Id, session: Type.Optional(Id) }),
    Type.Object({ divergences: Type.Array(DivergenceInfo) }),
  ),
  /** Ranges of one volume in order, from `from` on. */
  'divergence.show': command(
    Type.Object({
      divergence: Id,
      owner: Id,
      volume: Id,
      from: Type.Integer({ minimum: 0 }),
      limit: Type.Integer({ minimum: 1, maximum: DIVERGENCE_RANGES_MAX }),
    }),
    Type.Object({ divergence: DivergenceInfo, ranges: Type.Array(DivergenceRange) }),
  ),
  /** Bytes as they were, base64. Only inside the ranges (RANGE_NOT_KEPT). */
  'divergence.read': command(
    Type.Object({
      divergence: Id,
      owner: Id,
      volume: Id,
      offset: Type.Integer({ minimum: 0 }),
      length: Type.Integer({ minimum: 1, maximum: DIVERGENCE_READ_BYTES_MAX }),
    }),
    Type.Object({ data: Type.String() }),
  ),
  /** For good. An unknown one changes nothing. */
  'divergence.delete': command(Type.Object({ divergence: Id, owner: Id }), Empty),
  /**
   * Stores the definition, durably, and brings the guest to it: a running one gets and gives back disks and NICs while it runs (the answer
   * says under `releasing` what it still holds). CPUs and memory change with the next start. Refused: STALE_GENERATION, VOLUME_UNKNOWN.
   */
  'server.define': command(Type.Object({ definition: ServerDefinition }), ServerInfo),
  /**
   * Starts the guest and keeps it running across restarts of the agent and of the host until it is stopped, or powers itself off. Running
   * already: no change. Refused: SERVER_UNKNOWN, NOT_SERVED (a disk of it may not be written at this site), NO_MEMORY, NO_DRIVER.
   */
  'server.start': command(ServerRequest, ServerInfo),
  /** Answers when the guest is off. Off already, or unknown: no change (power off, generation 1). */
  'server.stop': command(StopRequest, ServerInfo),
  /** Only a running guest is asked softly; a hard reboot starts one that is off. */
  'server.reboot': command(RebootRequest, ServerInfo),
  /** Powers off at once and forgets the server, its console included. Its volumes stay. Unknown: no change. */
  'server.remove': command(ServerRequest, Empty),
  /** Refused (SERVER_UNKNOWN) for one that this agent does not know. */
  'server.show': command(ServerRequest, ServerInfo),
  /** What the guest wrote to its serial console, oldest line first. */
  'server.console': command(ConsoleRequest, Type.Object({ output: Type.String() })),
  /**
   * Looks at a running guest until the probe succeeds or the wait is over; see probes.ts. Changes nothing. Refused (SERVER_UNKNOWN) for one that
   * this agent does not know.
   */
  'server.probe': command(ProbeRequest, ProbeAnswer),
  /** Known images of this site. */
  'image.list': command(Type.Object({}), Type.Object({ images: Type.Array(ImageInfo) })),
  /** Begins to make the image available if it is not. */
  'image.prepare': command(Type.Object({ image: Id }), ImageInfo),
  /**
   * Writes an image to the beginning of a volume that is served standalone and that no client has open; goes on after a restart of the
   * agent. Repeat it until `state` is filled. Refused: VOLUME_BUSY, IMAGE_UNKNOWN, IMAGE_FAILED, SIZE_MISMATCH (the volume is too small).
   */
  'volume.fill': command(FillRequest, FillInfo),
  /**
   * Named work of the vault: the same request again tells how far it is, and of one that failed what went wrong; another request is another attempt. All of
   * them are refused with NO_VAULT where none is configured, and `show` and `cancel` with WORK_UNKNOWN for a name that was never started here. Refused at
   * once: VOLUME_UNKNOWN, VOLUME_FAILED, NOT_CONSISTENT.
   */
  'backup.start': command(BackupRequest, BackupInfo),
  'backup.show': command(Type.Object({ backup: Uuid }), BackupInfo),
  /** Answers when it has ended; one that is done stays done. */
  'backup.cancel': command(Type.Object({ backup: Uuid }), BackupInfo),
  /**
   * Volumes are written at their writer. Their clients are kept out until it is done; refused (VOLUME_BUSY) while one has a volume open, NOT_WRITER, SIZE_MISMATCH (the volume is
   * smaller), CHECKPOINT_UNKNOWN.
   */
  'restore.start': command(RestoreRequest, RestoreInfo),
  'restore.show': command(Type.Object({ restore: Uuid }), RestoreInfo),
  /** Leaves volumes half written. */
  'restore.cancel': command(Type.Object({ restore: Uuid }), RestoreInfo),
  /** At the destination: what the source needs to send one replica here. Each call makes another ticket. Refused: NO_VAULT, NO_REPLICA_DOOR. */
  'replica.admit': command(ReplicaAdmitRequest, ReplicaAdmission),
  /** At the source. The same request with another ticket goes on with it. */
  'replica.start': command(ReplicaRequest, ReplicaInfo),
  'replica.show': command(Type.Object({ replica: Uuid }), ReplicaInfo),
  'replica.cancel': command(Type.Object({ replica: Uuid }), ReplicaInfo),
  'vault.list': command(VaultListRequest, VaultList),
  /** Unknown: no change. Refused: CHECKPOINT_LOCKED. Its space comes back with `vault.collect`. */
  'vault.forget': command(Type.Object({ checkpoint: Uuid }), Empty),
  /** Never shortens; answers what holds now. */
  'vault.lock': command(
    Type.Object({ checkpoint: Uuid, until: Type.Integer({ minimum: 0 }) }),
    Type.Object({ locked_until: Type.Number() }),
  ),
  /**
   * Read-only exports `checkpoint/ID/VOLUME` straight from the vault, over TLS for certificates of `owner` only; kept over restarts of the agent until they are
   * detached, or the checkpoint is forgotten. The same again: no change. `attachment`: on whose behalf, chosen by the caller; a checkpoint stays attached while
   * one of them is left. Refused: CHECKPOINT_UNKNOWN, TOO_MANY_ATTACHED, ATTACHMENT_ENDED (this one was detached before it came).
   */
  'vault.attach': command(
    Type.Object({ checkpoint: Uuid, owner: Id, attachment: Type.Optional(Uuid) }),
    VaultAttachment,
  ),
  /** Ends this attachment, left out: all of them. The last one drops the connections. Not attached: no change. */
  'vault.detach': command(
    Type.Object({ checkpoint: Uuid, attachment: Type.Optional(Uuid) }),
    Empty,
  ),
  'vault.collect': command(Type.Object({ collect: Uuid }), CollectInfo),
  'vault.verify': command(VaultVerifyRequest, VaultVerifyInfo),
} as const

export type CommandName = keyof typeof COMMANDS
export type CommandRequest<N extends CommandName> = Static<(typeof COMMANDS)[N]['request']>
export type CommandAnswer<N extends CommandName> = Static<(typeof COMMANDS)[N]['answer']>

/** Header of a command that is bound to it: the mark of the database's history out of which it was sent, see ReportAnswer. */
export const HISTORY_HEADER = 'x-holdfast-history'

/**
 * Commands that an agent takes only out of the history that it has reported to last. The end of a session is the one command after which a
 * site answers clients without anybody's leave; sent by a control plane whose database was replaced by an older one since, and late on
 * its way, it would end a session that the restored record has going on.
 */
export const BOUND_TO_HISTORY: ReadonlySet<string> = new Set<CommandName>(['session.close'])

export const CommandRefusal = Type.Object({
  /** STALE_EPOCH, NOT_CONSISTENT, NOT_WRITER, WRONG_STATE, SIZE_MISMATCH, VOLUME_BUSY, VOLUME_UNKNOWN, VOLUME_FAILED, NO_SPACE ... */
  code: Type.String(),
  text: Type.String(),
  hint: Type.String(),
})
export type CommandRefusal = Static<typeof CommandRefusal>
