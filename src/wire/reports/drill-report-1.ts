import Type, { type Static } from 'typebox'
import { Probe } from '../site/probes.ts'

/* Version 1 of what a drill leaves behind, docs/formats/drill-report.md: no longer written, and read for ever. What both versions have alike is
 * repeated here, so that nothing that is done to later ones touches it. */

const strict = { additionalProperties: false }
const Text = Type.String()
const Count = Type.Integer({ minimum: 0 })
const Hash = Type.String({ pattern: '^[0-9a-f]{64}$' })
const nullable = <T extends Type.TSchema>(schema: T) => Type.Union([schema, Type.Null()])

const ProbeFinding = Type.Object(
  {
    probe: Probe,
    ok: Type.Boolean(),
    detail: Text,
    /** From the guest's start to the first success, as its site measured it. */
    since_start_ms: nullable(Count),
    /** From the request of the drill to the first success. */
    after_request_ms: nullable(Count),
  },
  strict,
)

const ServerFinding = Type.Object(
  {
    instance: Text,
    server: Text,
    name: Text,
    flavor: Text,
    addresses: Type.Array(Text),
    /** When the site said that it runs; null: it never did. */
    started_at: nullable(Count),
    probes: Type.Array(ProbeFinding),
  },
  strict,
)

const Production = Type.Object(
  { state: Text, epoch: Count, sequence: Count, acknowledged: Count },
  strict,
)

const DrillMoment = Type.Object(
  {
    taken_at: Count,
    /** The replication session, and where it stood at the moment; null: nothing replicated. */
    session: nullable(Text),
    epoch: nullable(Count),
    /** Last write of the group that the disks of the drill contain. */
    sequence: nullable(Count),
    /** What the production site said before the snapshot was asked for, and after it; null: it was not heard. */
    production_before: nullable(Production),
    production_after: nullable(Production),
    /** reflink, before_image */
    kinds: Type.Array(Text),
  },
  strict,
)

const DrillStep = Type.Object({ name: Text, started_at: Count, ms: Count }, strict)

const Teardown = Type.Object(
  {
    /** clean: the site was asked for every server, disk and snapshot of the drill, and has none of them. */
    verdict: Type.Union([Type.Literal('clean'), Type.Literal('not_clean')]),
    reasons: Type.Array(Text),
    asked: Type.Object({ servers: Count, disks: Count, snapshots: Count }, strict),
    steps: Type.Array(DrillStep),
  },
  strict,
)

export const DrillReport1 = Type.Object(
  {
    /** Place in the chain of this installation, from 1, and the hash of the report before it. */
    ordinal: Type.Integer({ minimum: 1 }),
    previous: Hash,
    made_at: Count,
    /** ready: the drill was made and looked at · failed: it could not be made · ended: it was torn down, or tried to be */
    stage: Type.Union([Type.Literal('ready'), Type.Literal('failed'), Type.Literal('ended')]),
    drill: Type.Object(
      {
        id: Text,
        name: Text,
        project: Text,
        user: Text,
        schedule: nullable(Text),
        requested_at: Count,
      },
      strict,
    ),
    group: Type.Object(
      {
        id: Text,
        name: Text,
        status: Text,
        production_site: Text,
        dr_site: Text,
        disks: Type.Array(
          Type.Object({ pair: Text, source: Text, clone: Text, size_gb: Count }, strict),
        ),
      },
      strict,
    ),
    moment: nullable(DrillMoment),
    /** How old the newest write of production that the drill does not show can be; null: not known. */
    data_age_ms: nullable(Count),
    data_age_basis: Text,
    /** Longest wait of a write of production because of the drill; null: no snapshot was taken. */
    production_stall_ms: nullable(Count),
    steps: Type.Array(DrillStep),
    servers: Type.Array(ServerFinding),
    /** From the request until every probe had succeeded; null: not all did. */
    recovery_time_ms: nullable(Count),
    /** passed · probes_failed: it was made, and not every probe succeeded · failed: it could not be made */
    result: Type.Union([
      Type.Literal('passed'),
      Type.Literal('probes_failed'),
      Type.Literal('failed'),
    ]),
    failure: nullable(Type.Object({ code: Text, message: Text, step: nullable(Text) }, strict)),
    teardown: nullable(Teardown),
  },
  strict,
)
export type DrillReport1 = Static<typeof DrillReport1>
