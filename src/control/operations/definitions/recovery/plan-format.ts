import Type, { type Static } from 'typebox'
import { Compile } from 'typebox/compile'
import { assert } from '#base/assert.ts'
import { fromJson } from '#control/store/json.ts'
import type { PlannedInstance, PlannedScript, RecoveryPlan } from '#domain/recovery-plan.ts'
import { Probe } from '#wire/site/probes.ts'

/* Recovery plans as they are written and kept: JSON, times in seconds, instances by id. The same form goes over the API, where an instance
 * may also be named by its name if the group has only one of that name. */

/** At the limit a plan is refused. A group has at most 256 pairs, and an instance at least one. */
export const PLAN_WAVES_MAX = 64
export const PLAN_INSTANCES_MAX = 256
const AFTER_MAX = 64
const PROBES_MAX = 8
/** A guest that checks its disks after a crash takes its time. */
const PROBE_SECONDS_MAX = 3_600
/** The servers behind it wait for it: what takes longer is a pause with somebody in it. */
const SCRIPT_SECONDS_MAX = 300
const DEFAULT_PROBE_SECONDS = 300
const DEFAULT_SCRIPT_SECONDS = 60

const Instance = Type.String({ minLength: 1, maxLength: 64 })
const seconds = (maximum: number) => Type.Optional(Type.Integer({ minimum: 1, maximum }))

export const SCRIPT_NAME = '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'
const Script = Type.Object({
  script: Type.String({
    pattern: SCRIPT_NAME,
    description:
      'Name of an executable in the directory of the project in that of recovery scripts at the control plane.',
  }),
  timeout_s: seconds(SCRIPT_SECONDS_MAX),
})
const PlannedProbe = Type.Object({
  probe: Probe,
  timeout_s: seconds(PROBE_SECONDS_MAX),
})
const Settings = Type.Object({
  after: Type.Optional(Type.Array(Instance, { maxItems: AFTER_MAX })),
  probes: Type.Optional(Type.Array(PlannedProbe, { maxItems: PROBES_MAX })),
  not_ready: Type.Optional(
    Type.Union([Type.Literal('go_on'), Type.Literal('stop'), Type.Literal('pause')], {
      description: 'What follows when it does not become ready. Default: the others go on.',
    }),
  ),
  script_before: Type.Optional(Script),
  script_after: Type.Optional(Script),
})
const Wave = Type.Object({
  instances: Type.Array(Instance, { maxItems: PLAN_INSTANCES_MAX }),
  pause: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 200,
      description:
        'The wave waits until somebody says that it may begin; what is to be done first.',
    }),
  ),
})
export const PlanDocument = Type.Object({
  waves: Type.Optional(Type.Array(Wave, { maxItems: PLAN_WAVES_MAX })),
  instances: Type.Optional(Type.Record(Instance, Settings, { maxProperties: PLAN_INSTANCES_MAX })),
})
export type PlanDocument = Static<typeof PlanDocument>

const documents = Compile(PlanDocument)

/** The plan in the words of the domain. `idOf` turns what an instance was called by into its id. */
export function toPlan(
  { waves = [], instances = {} }: PlanDocument,
  idOf: (text: string) => string = (text) => text,
): RecoveryPlan<Probe> {
  return {
    waves: waves.map((wave) => ({
      instances: wave.instances.map(idOf),
      pause: wave.pause ?? null,
    })),
    instances: Object.fromEntries(
      Object.entries(instances).map(([name, one]) => [
        idOf(name),
        {
          after: (one.after ?? []).map(idOf),
          probes: (one.probes ?? []).map(({ probe, timeout_s = DEFAULT_PROBE_SECONDS }) => ({
            probe,
            timeoutMs: timeout_s * 1_000,
          })),
          notReady: one.not_ready ?? 'go_on',
          scriptBefore: scriptOf(one.script_before),
          scriptAfter: scriptOf(one.script_after),
        },
      ]),
    ),
  }
}

const scriptOf = (script: Static<typeof Script> | undefined): PlannedScript | null =>
  script === undefined
    ? null
    : {
        script: script.script,
        timeoutMs: (script.timeout_s ?? DEFAULT_SCRIPT_SECONDS) * 1_000,
      }

/** With every default spelled out. */
export function toDocument(plan: RecoveryPlan<Probe>): Required<PlanDocument> {
  return {
    waves: plan.waves.map(({ instances, pause }) => ({
      instances: [...instances],
      ...(pause === null ? {} : { pause }),
    })),
    instances: Object.fromEntries(
      Object.entries(plan.instances).map(([id, one]) => [id, settingsOf(one)]),
    ),
  }
}

const settingsOf = (one: PlannedInstance<Probe>): Static<typeof Settings> => ({
  after: [...one.after],
  probes: one.probes.map(({ probe, timeoutMs }) => ({ probe, timeout_s: timeoutMs / 1_000 })),
  not_ready: one.notReady,
  ...(one.scriptBefore === null ? {} : { script_before: written(one.scriptBefore) }),
  ...(one.scriptAfter === null ? {} : { script_after: written(one.scriptAfter) }),
})

const written = ({ script, timeoutMs }: PlannedScript) => ({
  script,
  timeout_s: timeoutMs / 1_000,
})

/** A plan that was stored, by this release or an older one. */
export function storedPlan(json: string): RecoveryPlan<Probe> {
  const document = fromJson<unknown>(json)
  assert(documents.Check(document), 'a stored recovery plan has its form')
  return toPlan(document)
}
