import Type, { type Static } from 'typebox'

/* Checkpoints as the control plane and a site's agent speak of them. The agent moves the data between volumes of its site and the vault of
 * its region; whose backups they are and how long they live, only the control plane knows. Work is named by its caller, the same request again
 * tells how far it is, and it goes on by itself after a restart of the agent; so a caller repeats its request until `state` is an end. */

const Id = Type.String({ minLength: 1, maxLength: 64, pattern: '^[0-9a-zA-Z-]+$' })
export const Uuid = Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' })
const Count = Type.Number({ minimum: 0 })
const nullable = <T extends Type.TSchema>(schema: T) => Type.Union([schema, Type.Null()])

export const WorkState = Type.Union([
  Type.Literal('running'),
  Type.Literal('done'),
  Type.Literal('failed'),
  Type.Literal('cancelled'),
])

export const BackupRequest = Type.Object({
  /** Names the work; the snapshot that it reads is called the same. */
  backup: Uuid,
  /** All of one moment. Volumes of a session: at its writer, or at a replica that is consistent (refused with NOT_CONSISTENT otherwise). */
  volumes: Type.Array(Id, { minItems: 1, maxItems: 64 }),
  /**
   * The session as whose replica the volumes are read: refused with COPY_BEHIND unless it has all of them here, in sync and in touch, when the request comes and
   * at the moment of the snapshot. Left out: what this site has counts, unless a session says otherwise.
   */
  session: Type.Optional(Id),
  /**
   * Under which names the volumes are kept, in their order: those of the production disks, whichever side is read, so that increments follow each other
   * when the sides change.
   */
  names: Type.Array(Id, { minItems: 1, maxItems: 64 }),
  /** Checkpoint in this vault to build on; null: nothing is known of these volumes. Unknown there: as null. */
  parent: nullable(Uuid),
  /** Kept in the manifest, readable without a control plane. `owner` is added: that of the volumes. */
  labels: Type.Record(Type.String({ maxLength: 64 }), Type.String({ maxLength: 1024 })),
  /** Bytes read from the volumes per second; 0: no limit. */
  rate_bytes: Type.Integer({ minimum: 0 }),
})
export type BackupRequest = Static<typeof BackupRequest>

export const BackupInfo = Type.Object({
  backup: Uuid,
  state: WorkState,
  /** Code of a fault, and a sentence; null while nothing went wrong. */
  code: nullable(Type.String()),
  reason: nullable(Type.String()),
  /** Id of the checkpoint in the vault, once it is there. */
  checkpoint: nullable(Uuid),
  /** Wall clock of the site, ms, of the moment that the checkpoint shows; null before it. */
  taken_at: nullable(Type.Number()),
  /** Longest wait of a write because of the snapshot, ms. */
  stall_ms: Count,
  /** Of the volumes together, and how much of it has been dealt with. */
  total_bytes: Count,
  done_bytes: Count,
  /** Read because it may have changed, and added to the vault. */
  read_bytes: Count,
  stored_bytes: Count,
  /** full: all of it was read · scan: all was read and compared with the parent · changes: only what changed was read */
  manner: Type.Union([Type.Literal('full'), Type.Literal('scan'), Type.Literal('changes')]),
  duration_ms: Count,
})
export type BackupInfo = Static<typeof BackupInfo>

export const RestoreRequest = Type.Object({
  restore: Uuid,
  checkpoint: Uuid,
  /**
   * Written through the volume's own export, so a replicated volume is written at its writer and by its session. `blank`: the volume was made for this
   * and holds zeroes.
   */
  volumes: Type.Array(
    Type.Object({ name: Id, volume: Id, pair: nullable(Id), blank: Type.Boolean() }),
    { minItems: 1, maxItems: 64 },
  ),
  rate_bytes: Type.Integer({ minimum: 0 }),
})
export type RestoreRequest = Static<typeof RestoreRequest>

export const RestoreInfo = Type.Object({
  restore: Uuid,
  state: WorkState,
  code: nullable(Type.String()),
  reason: nullable(Type.String()),
  total_bytes: Count,
  done_bytes: Count,
  /** All of it has been read back from the volumes' export, or written, and compared with the manifest. */
  verified: Type.Boolean(),
  duration_ms: Count,
})
export type RestoreInfo = Static<typeof RestoreInfo>

/** Where the vault of another region is reached, and the right to add to it. Made by that region. */
export const ReplicaTarget = Type.Object({
  /** `https://host:port` of an agent of that region. */
  url: Type.String({ maxLength: 1024 }),
  /** PEM of the authority of its certificate. */
  authority: Type.String({ maxLength: 65_536 }),
  /** Good for this one replica and a limited time. Never logged. */
  ticket: Type.String({ maxLength: 4096 }),
})

export const ReplicaRequest = Type.Object({
  /** Names the work. The checkpoint in the other vault has an id of its own, told as `checkpoint` of the answer. */
  replica: Uuid,
  checkpoint: Uuid,
  /**
   * An earlier checkpoint of the same volumes, and what it is called there: only what differs from it is looked at. Left out, null, or gone on either side:
   * all blocks are asked for by name, which sends no more, and takes longer for large volumes.
   */
  base: Type.Optional(nullable(Type.Object({ checkpoint: Uuid, replica_checkpoint: Uuid }))),
  target: ReplicaTarget,
  /** Several streams at once, and stronger compression. */
  accelerate: Type.Boolean(),
  rate_bytes: Type.Integer({ minimum: 0 }),
})
export type ReplicaRequest = Static<typeof ReplicaRequest>

export const ReplicaInfo = Type.Object({
  replica: Uuid,
  state: WorkState,
  code: nullable(Type.String()),
  reason: nullable(Type.String()),
  /** Id of the checkpoint in the other vault, once it is there. */
  checkpoint: nullable(Uuid),
  total_bytes: Count,
  done_bytes: Count,
  /** Went over the line, in all attempts together; and was missing there. */
  sent_bytes: Count,
  missing_bytes: Count,
  duration_ms: Count,
})
export type ReplicaInfo = Static<typeof ReplicaInfo>

export const ReplicaAdmitRequest = Type.Object({
  replica: Uuid,
  /**
   * Labels of the checkpoint here, over those that come with it; `owner`, whose project may attach it, is never taken from the source. Bound to the
   * ticket.
   */
  labels: Type.Optional(
    Type.Record(Type.String({ maxLength: 64 }), Type.String({ maxLength: 1024 })),
  ),
})
export type ReplicaAdmitRequest = Static<typeof ReplicaAdmitRequest>

/** What another region needs to send one replica here; the ticket ends by itself. */
export const ReplicaAdmission = Type.Object({ target: ReplicaTarget, expires_at: Type.Number() })
export type ReplicaAdmission = Static<typeof ReplicaAdmission>

export const VaultCheckpoint = Type.Object({
  checkpoint: Uuid,
  created_at: Type.Number(),
  labels: Type.Record(Type.String(), Type.String()),
  volumes: Type.Array(Type.Object({ name: Id, size_bytes: Count })),
  stored_bytes: Count,
  /** ms since 1970; 0: not locked. */
  locked_until: Type.Number(),
})
export type VaultCheckpoint = Static<typeof VaultCheckpoint>

/** Checkpoints of a vault in the order of their ids: those behind `after`, or only `checkpoint`. */
export const VaultListRequest = Type.Object({
  checkpoint: Type.Optional(Uuid),
  after: Type.Optional(Uuid),
  /** Only their ids, which costs no look into any of them. */
  ids: Type.Optional(Type.Boolean()),
  limit: Type.Integer({ minimum: 1, maximum: 1000 }),
})
export type VaultListRequest = Static<typeof VaultListRequest>

export const VaultList = Type.Object({
  checkpoints: Type.Array(VaultCheckpoint),
  /** When only these were asked for. */
  ids: Type.Optional(Type.Array(Uuid)),
  /** Ids whose manifest cannot be read; `vault.verify` says more. */
  damaged: Type.Array(Uuid),
  /** There are more behind the last one. */
  more: Type.Boolean(),
})
export type VaultList = Static<typeof VaultList>

export const VaultAttachment = Type.Object({
  exports: Type.Array(Type.Object({ name: Type.String(), volume: Id, size_bytes: Count })),
})
export type VaultAttachment = Static<typeof VaultAttachment>

/** Gives back the space of what was forgotten. Named work, as backups. */
export const CollectInfo = Type.Object({
  collect: Uuid,
  state: WorkState,
  code: nullable(Type.String()),
  reason: nullable(Type.String()),
  checkpoints_deleted: Count,
  freed_bytes: Count,
  /** Goes with a later collection, when the backups that run now have ended. */
  waiting_bytes: Count,
  duration_ms: Count,
})
export type CollectInfo = Static<typeof CollectInfo>

/** Structure, with `data` every byte. Named work; begins anew after a restart of the agent. */
export const VaultVerifyRequest = Type.Object({ verify: Uuid, data: Type.Boolean() })
export type VaultVerifyRequest = Static<typeof VaultVerifyRequest>

export const VAULT_DAMAGES_MAX = 100

export const VaultVerifyInfo = Type.Object({
  verify: Uuid,
  state: WorkState,
  code: nullable(Type.String()),
  reason: nullable(Type.String()),
  checkpoints: Count,
  /** Sentences that name what is damaged, at most VAULT_DAMAGES_MAX of them. */
  damages: Type.Array(Type.String()),
  /** Checkpoints that cannot be restored whole because of it. */
  damaged_checkpoints: Type.Array(Uuid),
  /** Of each, what is wrong with it, in words that name nothing of any other. */
  reasons: Type.Optional(Type.Record(Uuid, Type.String())),
  duration_ms: Count,
})
export type VaultVerifyInfo = Static<typeof VaultVerifyInfo>
