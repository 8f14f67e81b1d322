import Type, { type Static } from 'typebox'
import type { DrillOptions } from '#control/operations/definitions/drill-facts.ts'
import type {
  CreateDrillRefusal,
  DrillChangeRefusal,
} from '#control/operations/definitions/drill-requests.ts'
import type { ScheduleRefusal } from '#control/operations/definitions/drill-schedules.ts'
import {
  DRILLS_PER_PROJECT_MAX,
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
export const Name = Type.String({ pattern: '^[A-Za-z0-9._-]{1,64}$' })
export const Vpc = Type.Union([Id, Type.Null()], {
  description: 'VPC of the drill servers; null: one is made for the group, and used again.',
})

export const OptionsInput = {
  probes: Type.Optional(
    Type.Record(Type.String({ maxLength: 64 }), Type.Array(Probe, { maxItems: PROBES_MAX }), {
      description:
        'By id of a protected instance; `*` stands for all others. Without any: boot. An empty list: only that the server is started.',
    }),
  ),
  timeout_ms: Type.Optional(
    Type.Integer({
      minimum: PROBE_TIMEOUT_MS_MIN,
      maximum: PROBE_TIMEOUT_MS_MAX,
      description: `How long the probes together may take; ${PROBE_TIMEOUT_MS} when left out.`,
    }),
  ),
}
const Options = Type.Object(OptionsInput)

export const optionsOf = (
  { probes, timeout_ms }: Static<typeof Options>,
  before: DrillOptions = { probes: {}, timeoutMs: PROBE_TIMEOUT_MS },
): DrillOptions => ({
  probes: probes ?? before.probes,
  timeoutMs: timeout_ms ?? before.timeoutMs,
})

type Refused = CreateDrillRefusal | DrillChangeRefusal | ScheduleRefusal | 'REPORT_UNKNOWN'

const QUOTA = 'Delete some, or have the quota raised.'
const RULE =
  'Give FREQ=DAILY, WEEKLY or MONTHLY, with INTERVAL, BYDAY, BYMONTHDAY, BYMONTH, BYHOUR, BYMINUTE, UNTIL.'

const REFUSALS: Record<Refused, readonly [400 | 404 | 409, string, string]> = {
  GROUP_UNKNOWN: [404, 'There is no such group.', 'List the groups.'],
  DRILL_UNKNOWN: [404, 'There is no such drill in the project.', 'List the drills.'],
  DRILL_STATE: [409, 'The drill is being made or deleted.', 'Wait until it has settled.'],
  SCHEDULE_UNKNOWN: [404, 'There is no such schedule in the project.', 'List the schedules.'],
  REPORT_UNKNOWN: [404, 'There is no such report.', 'List the reports of the project.'],
  DRILL_GROUP_STATE: [
    409,
    'The group is being changed, or could not be made.',
    'Wait until it has settled.',
  ],
  DRILL_NO_PAIRS: [409, 'The group has no pair, so there is nothing to try.', 'Add a pair.'],
  DRILL_GROUP_BUSY: [
    409,
    'A pair or an instance of the group is being changed.',
    'Repeat when that has ended.',
  ],
  DRILL_INSTANCE_BROKEN: [
    409,
    'A server or a disk of a protected instance is gone.',
    'Delete the instance and protect the server anew.',
  ],
  DRILL_NO_DATA: [
    409,
    'The disks at the DR site do not hold a whole state of production.',
    'Start the protection, and wait until the pairs are in sync.',
  ],
  DRILL_VPC_UNKNOWN: [404, 'There is no such VPC.', 'List the VPCs, or name none.'],
  DRILL_VPC_OF_GROUP: [
    409,
    'The VPC is that of the group: drill servers would meet production.',
    'Name another one, or none.',
  ],
  DRILL_VPC_IN_USE: [409, 'Another drill uses the VPC.', 'Delete that drill first.'],
  DRILL_VPC_NO_SUBNETS: [409, 'The VPC has no subnet.', 'Make one with the range of production.'],
  DRILL_VPC_NO_RANGE: [
    409,
    'The VPC has no subnet with the range of a protected server.',
    'Make one with the same CIDR, or name no VPC.',
  ],
  DRILL_ADDRESS_TAKEN: [
    409,
    'An address of a protected server is taken in the VPC.',
    'Delete the port that has it, or name no VPC.',
  ],
  DRILL_NIC_MISSING: [
    409,
    'A protected server has no NIC in the VPC of the group.',
    'Look at its NICs.',
  ],
  DRILL_PROBES_UNKNOWN: [
    400,
    'Probes are named for an instance that the group has not.',
    'Use ids of protected instances, or `*`.',
  ],
  QUOTA_DRILLS: [
    409,
    `The project has ${DRILLS_PER_PROJECT_MAX} drills already.`,
    'Delete one first.',
  ],
  QUOTA_SCHEDULES: [
    409,
    `The project has ${SCHEDULES_PER_PROJECT_MAX} schedules already.`,
    'Delete one first.',
  ],
  QUOTA_VPCS: [409, 'The quota of VPCs is used up.', 'Name an existing VPC.'],
  QUOTA_SUBNETS: [409, 'The quota of subnets is used up.', 'Name an existing VPC.'],
  QUOTA_INSTANCES: [409, 'The quota of servers is used up.', QUOTA],
  QUOTA_VOLUMES: [409, 'The quota of volumes is used up.', QUOTA],
  QUOTA_GIGABYTES: [409, 'The quota of gigabytes is used up.', QUOTA],
  QUOTA_PORTS: [409, 'The quota of ports is used up.', QUOTA],
  RULE_LENGTH: [400, 'The rule is too long.', RULE],
  RULE_SYNTAX: [400, 'The rule is none of RFC 5545.', RULE],
  RULE_PARTS: [400, 'The rule has a part that is not taken, or not with the others.', RULE],
  RULE_INTERVAL: [400, 'INTERVAL is from 1 to 30.', RULE],
  RULE_DENSITY: [400, 'Drills are at least an hour apart.', RULE],
  RULE_ZONE: [400, 'The time zone is unknown.', 'Give an IANA name, for example Europe/Berlin.'],
  RULE_NEVER: [400, 'The rule never comes to pass.', 'Look at UNTIL.'],
}

export const refusalOf = (code: Refused) => {
  const [status, message, hint] = REFUSALS[code]
  return refuse(status, code, message, hint)
}
