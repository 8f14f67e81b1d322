import Type, { type Static } from 'typebox'
import type { DrillOptions } from '#control/operations/definitions/drills/drill-facts.ts'
import type { CreateDrillRefusal } from '#control/operations/definitions/drills/drill-decision.ts'
import type { DrillChangeRefusal } from '#control/operations/definitions/drills/drill-requests.ts'
import type { ScheduleRefusal } from '#control/operations/definitions/drills/drill-schedules.ts'
import { DRILL_WORDS } from '#control/operations/definitions/drills/drill-words.ts'
import {
  PROBE_TIMEOUT_MS,
  PROBE_TIMEOUT_MS_MAX,
  PROBE_TIMEOUT_MS_MIN,
  PROBES_MAX,
  SCHEDULES_PER_PROJECT_MAX,
} from '#domain/drill.ts'
import { Probe } from '#wire/site/probes.ts'
import { refuse } from './errors.ts'

/* What drills and schedules take, and why they are refused. */

const Id = Type.String({ minLength: 1, maxLength: 64 })
/** A group has at most 256 pairs, and an instance at least one; and `*`. */
const PROBED_MAX = 257
export const Name = Type.String({ pattern: '^[A-Za-z0-9._-]{1,64}$' })
export const Vpc = Type.Union([Id, Type.Null()], {
  description: 'VPC of the drill servers; null: one is made for the group, and used again.',
})

export const OptionsInput = {
  probes: Type.Optional(
    Type.Record(Type.String({ maxLength: 64 }), Type.Array(Probe, { maxItems: PROBES_MAX }), {
      maxProperties: PROBED_MAX,
      description:
        'By id of a protected instance; `*` stands for all others that its recovery plan asks nothing of. Without any: boot. An empty list: only that the server is started, which proves nothing.',
    }),
  ),
  timeout_ms: Type.Optional(
    Type.Integer({
      minimum: PROBE_TIMEOUT_MS_MIN,
      maximum: PROBE_TIMEOUT_MS_MAX,
      description: `How long the probes of a server may take from its start; ${PROBE_TIMEOUT_MS} when left out. Those of a recovery plan have their own time.`,
    }),
  ),
  plan: Type.Optional(
    Type.Union([Type.Literal('follow'), Type.Literal('ignore')], {
      description:
        'Whether the servers come up in the order of the recovery plan. Default: follow.',
    }),
  ),
}
const Options = Type.Object(OptionsInput)

export function optionsOf(
  { probes, timeout_ms, plan }: Static<typeof Options>,
  before: DrillOptions = { probes: {}, timeoutMs: PROBE_TIMEOUT_MS },
): DrillOptions {
  const ignore = plan === undefined ? before.plan === 'ignore' : plan === 'ignore'
  return {
    probes: probes ?? before.probes,
    timeoutMs: timeout_ms ?? before.timeoutMs,
    ...(ignore ? { plan: 'ignore' as const } : {}),
  }
}

type Refused = CreateDrillRefusal | DrillChangeRefusal | ScheduleRefusal | 'REPORT_UNKNOWN'

const RULE =
  'Give FREQ=DAILY, WEEKLY or MONTHLY, with INTERVAL, BYDAY, BYMONTHDAY, BYMONTH, BYHOUR, BYMINUTE, UNTIL.'

/** Of refusals that are no conflict with what is there. */
const STATUS: Partial<Record<CreateDrillRefusal, 400 | 404>> = {
  GROUP_UNKNOWN: 404,
  DRILL_VPC_UNKNOWN: 404,
  DRILL_PROBES_UNKNOWN: 400,
}

type OwnRefusal = Exclude<Refused, CreateDrillRefusal>
const OWN: Record<OwnRefusal, readonly [400 | 404 | 409, string, string]> = {
  DRILL_UNKNOWN: [404, 'There is no such drill in the project.', 'List the drills.'],
  DRILL_STATE: [409, 'The drill is being made or deleted.', 'Wait until it has settled.'],
  SCHEDULE_UNKNOWN: [404, 'There is no such schedule in the project.', 'List the schedules.'],
  REPORT_UNKNOWN: [404, 'There is no such report.', 'List the reports of the project.'],
  QUOTA_SCHEDULES: [
    409,
    `The project has ${SCHEDULES_PER_PROJECT_MAX} schedules already.`,
    'Delete one first.',
  ],
  RULE_LENGTH: [400, 'The rule is too long.', RULE],
  RULE_SYNTAX: [400, 'The rule is none of RFC 5545.', RULE],
  RULE_PARTS: [400, 'The rule has a part that is not taken, or not with the others.', RULE],
  RULE_INTERVAL: [400, 'INTERVAL is from 1 to 30.', RULE],
  RULE_DENSITY: [400, 'Drills are at least an hour apart.', RULE],
  RULE_ZONE: [400, 'The time zone is unknown.', 'Give an IANA name, for example Europe/Berlin.'],
  RULE_NEVER: [400, 'The rule never comes to pass.', 'Look at UNTIL.'],
}

const isOwn = (code: Refused): code is OwnRefusal => Object.hasOwn(OWN, code)

export const refusalOf = (code: Refused) => {
  if (isOwn(code)) {
    const [status, message, hint] = OWN[code]
    return refuse(status, code, message, hint)
  }
  const { message, action } = DRILL_WORDS[code]
  return refuse(STATUS[code] ?? 409, code, message, action)
}
