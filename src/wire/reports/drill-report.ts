import Type, { type Static } from 'typebox'
import { Probe } from '../site/probes.ts'

/* What a drill leaves behind, docs/formats/drill-report.md. A kept format, version 2: files of this version are read for ever. Times are wall clock,
 * milliseconds since 1970; durations whole milliseconds. */

const strict = { additionalProperties: false }
const Text = Type.String()
const Count = Type.Integer({ minimum: 0 })
const Hash = Type.String({ pattern: '^[0-9a-f]{64}$' })
const nullable = <T extends Type.TSchema>(schema: T) => Type.Union([schema, Type.Null()])

export const ProbeFinding = Type.Object(
  {
    probe: Probe,
    ok: Type.Boolean(),
    detail: Text,
    /** From the guest's start to the first success, as its site measured it. */
    since_start_ms: nullable(Count),
    /** From the beginning of the drill to the first success. */
    after_begin_ms: nullable(Count),
  },
  strict,
)
export type ProbeFinding = Static<typeof ProbeFinding>

export const ServerFinding = Type.Object(
  {
    instance: Text,
    server: Text,
    name: Text,
    flavor: Text,
    addresses: Type.Array(Text),
    /** ready, not_ready, skipped; waiting, starting, probing: the drill ended before. */
    state: Text,
    /** Why it is not ready. */
    reason: nullable(Text),
    /** Since when it ran; null: it never did. */
    started_at: nullable(Count),
    probes: Type.Array(ProbeFinding),
  },
  strict,
)
export type ServerFinding = Static<typeof ServerFinding>

export const Production = Type.Object(
  { state: Text, epoch: Count, sequence: Count, acknowledged: Count },
  strict,
)
export type Production = Static<typeof Production>

export const DrillMoment = Type.Object(
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
export type DrillMoment = Static<typeof DrillMoment>

export const DrillStep = Type.Object({ name: Text, started_at: Count, ms: Count }, strict)
export type DrillStep = Static<typeof DrillStep>

export const Teardown = Type.Object(
  {
    /** clean: the site was asked for every server, disk and snapshot of the drill, and has none of them. */
    verdict: Type.Union([Type.Literal('clean'), Type.Literal('not_clean')]),
    reasons: Type.Array(Text),
    /** True: somebody gave it up with what was left, which goes when the site is heard. */
    forced: Type.Boolean(),
    asked: Type.Object({ servers: Count, disks: Count, snapshots: Count }, strict),
    steps: Type.Array(DrillStep),
  },
  strict,
)
export type Teardown = Static<typeof Teardown>

const Plan = Type.Object(
  {
    waves: Count,
    /** Names of scripts that were not run. */
    scripts_left_out: Type.Array(Text),
    pauses_left_out: Count,
  },
  strict,
)

export const DrillReport = Type.Object(
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
        /** When its turn came: everything is measured from here. Null: it did not. */
        began_at: nullable(Count),
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
    /** The recovery plan that the servers followed, and what of it a drill leaves out; null: none. */
    plan: nullable(Plan),
    servers: Type.Array(ServerFinding),
    /** From the beginning until every probe had succeeded; null: not all did. */
    recovery_time_ms: nullable(Count),
    /**
     * passed: every server came up, and is one that was asked something · probes_failed: it was made, and a server is not ready ·
     * nothing_proved: nothing failed, and there is no server or one that was asked nothing · failed: it could not be made
     */
    result: Type.Union([
      Type.Literal('passed'),
      Type.Literal('probes_failed'),
      Type.Literal('nothing_proved'),
      Type.Literal('failed'),
    ]),
    failure: nullable(Type.Object({ code: Text, message: Text, step: nullable(Text) }, strict)),
    teardown: nullable(Teardown),
  },
  strict,
)
export type DrillReport = Static<typeof DrillReport>
