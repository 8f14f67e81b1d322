import Type, { type Static } from 'typebox'
import { ReplicaAdmission } from './site/backups.ts'

/* What two regions say to each other about one copy of a backup, over the API of the destination. The copy's id is that of the source's
 * replication record, so that everything may be repeated. */

const Text = (maxLength: number) => Type.String({ maxLength })
const Count = Type.Integer({ minimum: 0 })
const nullable = <T extends Type.TSchema>(schema: T) => Type.Union([schema, Type.Null()])

export const AdmissionRequest = Type.Object({
  source_region: Text(255),
  /** Of all disks together. */
  size_mb: Count,
})
export type AdmissionRequest = Static<typeof AdmissionRequest>

export const AdmissionAnswer = Type.Object({ admission: ReplicaAdmission })
export type AdmissionAnswer = Static<typeof AdmissionAnswer>

/** The backup as its source knows it. */
export const ReplicaDescription = Type.Object({
  source_region: Text(255),
  /** Id in the vault of the destination, where its bytes are complete. */
  checkpoint: Text(64),
  name: Text(255),
  description: nullable(Text(255)),
  resource_id: Text(64),
  resource_name: Text(255),
  resource_type: Text(64),
  resource_az: Text(64),
  incremental: Type.Boolean(),
  scheduled: Type.Boolean(),
  /** The policy of the source whose schedule sent it, so that this policy may let it go; left out: only people do. */
  source_policy: Type.Optional(nullable(Text(64))),
  size_mb: Count,
  average_speed: Count,
  space_saving: Count,
  backup_data: Type.Record(Type.String(), Type.Unknown()),
  address: nullable(Text(64)),
  /** ms since 1970, the moment that it shows. */
  taken_at: Count,
  tags: Type.Array(Type.Object({ key: Text(127), value: Text(255) }), { maxItems: 20 }),
  disks: Type.Array(
    Type.Object({
      volume: Text(64),
      volume_name: nullable(Text(255)),
      name: Text(255),
      system: Type.Boolean(),
      size_gb: Count,
      size_mb: Count,
    }),
    { minItems: 1, maxItems: 64 },
  ),
})
export type ReplicaDescription = Static<typeof ReplicaDescription>

/** What the schedule of a policy keeps of the copies that it sent. */
export const RetentionRequest = Type.Object({
  source_region: Text(255),
  /** Of the source. */
  policy: Text(64),
  rule: Type.Object({
    /** 0 and below: off. */
    max_backups: Type.Integer(),
    max_days: Type.Integer(),
    slots: Type.Object({ day: Count, week: Count, month: Count, year: Count }),
    /** The clock of slots is so far ahead of UTC. */
    zone_minutes: Type.Integer({ minimum: -840, maximum: 840 }),
  }),
})
export type RetentionRequest = Static<typeof RetentionRequest>

/** `removed`: how many are deleted now. */
export const RetentionAnswer = Type.Object({ removed: Count })

/** Whether a copy that was registered is still there. */
export const PresenceAnswer = Type.Object({ present: Type.Boolean() })

export const ReplicaAnswer = Type.Object({
  replica: Type.Object({ checkpoint_id: Text(64), checkpoint_item_id: Text(64) }),
})
export type ReplicaAnswer = Static<typeof ReplicaAnswer>
