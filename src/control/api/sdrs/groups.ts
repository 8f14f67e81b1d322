import Type from 'typebox'
import { unreachable } from '#base/assert.ts'
import {
  type CreateGroupRefusal,
  type GroupRequestRefusal,
  renameGroup,
  requestGroup,
  requestGroupCommand,
} from '#control/operations/definitions/protection/group-requests.ts'
import { countDrills } from '#control/resources/drills.ts'
import { findGroup } from '#control/resources/groups.ts'
import { countInstancesOf, pageOfGroups, syncGistsOf } from '#control/resources/protection-lists.ts'
import { listDomains } from '#control/resources/surroundings.ts'
import { GROUP_STATUSES, type GroupCommand, isGroupStatus } from '#domain/protection-group.ts'
import type { Queries } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import { isDescription, isName } from '#domain/text.ts'
import type { Api } from '../http/dialect.ts'
import type { Refusal } from '../http/refusal.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import { groupObject, isId } from './codec.ts'
import {
  isAbnormal,
  pageOf,
  type Query,
  queryType,
  statusesWanted,
  statusFilter,
  text,
} from './lists.ts'
import { type SdrsContext, viewsOf } from './services.ts'

/** Protection groups: `/v1/{project}/server-groups`. */
const Path = Type.Object({ project_id: Type.String(), server_group_id: Type.String() })
const CreateBody = Type.Object({
  server_group: Type.Object({
    name: Type.String(),
    description: optional(Type.String()),
    source_availability_zone: Type.String(),
    target_availability_zone: Type.String(),
    domain_id: Type.String(),
    source_vpc_id: Type.String(),
    dr_type: optional(Type.Literal('migration')),
    // An extension of ours: who may go on when the sites and the witness lose each other.
    arbitration: optional(
      Type.Object({
        mode: Type.Union([Type.Literal('witness'), Type.Literal('static-priority')]),
        preferred_site: optional(Type.String()),
      }),
    ),
    // An extension of ours: whether a failover or reversal starts the servers of the new production site.
    start_servers: optional(Type.Boolean()),
  }),
})
const RenameBody = Type.Object({ server_group: Type.Object({ name: Type.String() }) })

export function groupRoutes(app: Api, context: SdrsContext): void {
  const { services, refuse } = context
  const groupId = (id: string): string => {
    if (!isId(id)) throw refuse('SDRS.0207')
    return id.toLowerCase()
  }

  /** In their order. Reads what belongs to these groups only. */
  async function objects(db: Queries, groups: readonly ProtectionGroupRow[]) {
    const ids = groups.map(({ id }) => id)
    const pairs = await syncGistsOf(db, ids)
    const viewOf = await viewsOf(db, services, groups, pairs)
    const instances = await countInstancesOf(db, ids)
    const drills = await countDrills(db, ids)
    const domains = new Map((await listDomains(db)).map((domain) => [domain.id, domain.name]))
    const byGroup = Map.groupBy(pairs, (pair) => pair.group_id)
    return groups.map((group) =>
      groupObject(
        group,
        byGroup.get(group.id) ?? [],
        viewOf(group.id),
        domains.get(group.domain) ?? '',
        instances.get(group.id) ?? 0,
        drills.get(group.id) ?? 0,
      ),
    )
  }

  async function show(project: string, id: string) {
    return await services.store.read(async (db) => {
      const group = await findGroup(db, project, id, 'sdrs')
      if (group === undefined) throw refuse('SDRS.1013')
      const [server_group] = await objects(db, [group])
      return { server_group }
    })
  }

  app.post(
    '/v1/:project_id/server-groups',
    { schema: { body: CreateBody }, config: { audit: 'protection-group.create' } },
    async (request) => {
      const { server_group: body } = request.body
      if (!isName(body.name)) throw refuse('SDRS.0202')
      const description = body.description ?? null
      if (description !== null && !isDescription(description)) throw refuse('SDRS.0212')
      if (!isId(body.domain_id)) throw refuse('SDRS.0205')
      if (!isId(body.source_vpc_id)) throw refuse('SDRS.0204')
      const mode = body.arbitration?.mode
      const preferred = body.arbitration?.preferred_site ?? body.source_availability_zone
      const sites = [body.source_availability_zone, body.target_availability_zone]
      if (!sites.includes(preferred)) throw refuse('SDRS.0203')
      const outcome = await requestGroup(services, {
        project: projectOf(request),
        name: body.name,
        description,
        sourceAz: body.source_availability_zone,
        targetAz: body.target_availability_zone,
        domain: body.domain_id.toLowerCase(),
        vpc: body.source_vpc_id.toLowerCase(),
        ...(mode === undefined ? {} : { arbitration: { mode, preferred } }),
        startServers: body.start_servers === true,
      })
      if (!outcome.ok) throw refuse(CREATE_CODES[outcome.refusal])
      auditTarget(request, outcome.group.id)
      return { job_id: outcome.operation }
    },
  )

  app.get('/v1/:project_id/server-groups', async (request) => {
    const query = request.query as Query
    const page = pageOf(query, refuse)
    const status = statusFilter(query, isGroupStatus, refuse)
    const preset = queryType(query, PRESETS, refuse)
    const filter = {
      form: 'sdrs',
      statuses: statusesWanted(status, statusesOf(preset)),
      name: text(query, 'name'),
      az: text(query, 'availability_zone'),
      noDrillSince:
        preset === 'period_no_dr_drill' ? services.clock.wallMs() - DRILL_PERIOD_MS : undefined,
    } as const
    return await services.store.read(async (db) => {
      const { rows, count } = await pageOfGroups(db, projectOf(request), filter, page)
      return { server_groups: await objects(db, rows), count }
    })
  })

  app.get(
    '/v1/:project_id/server-groups/:server_group_id',
    { schema: { params: Path } },
    async (request) => await show(projectOf(request), groupId(request.params.server_group_id)),
  )

  app.put(
    '/v1/:project_id/server-groups/:server_group_id',
    { schema: { params: Path, body: RenameBody }, config: { audit: 'protection-group.update' } },
    async (request) => {
      const id = groupId(request.params.server_group_id)
      auditTarget(request, id)
      const { name } = request.body.server_group
      if (!isName(name)) throw refuse('SDRS.0202')
      const outcome = await renameGroup(services, projectOf(request), id, name)
      if (!outcome.ok) throw refuse('SDRS.1013')
      return await show(projectOf(request), id)
    },
  )

  app.delete(
    '/v1/:project_id/server-groups/:server_group_id',
    { schema: { params: Path }, config: { audit: 'protection-group.delete' } },
    async (request) => {
      const id = groupId(request.params.server_group_id)
      auditTarget(request, id)
      return await command(projectOf(request), id, { kind: 'delete' })
    },
  )

  app.post(
    '/v1/:project_id/server-groups/:server_group_id/action',
    { schema: { params: Path }, config: { audit: 'protection-group.action' } },
    async (request) => {
      const wanted = actionOf(request.body, context)
      const id = groupId(request.params.server_group_id)
      auditTarget(request, id, { action: wanted.kind, user: principalOf(request).user.id })
      return await command(projectOf(request), id, wanted)
    },
  )

  async function command(
    project: string,
    id: string,
    wanted: Exclude<GroupCommand, { readonly kind: 'rename' }>,
  ) {
    const outcome = await requestGroupCommand(services, project, id, wanted, 'sdrs')
    if (!outcome.ok) throw commandRefusal(outcome.refusal, wanted.kind, context)
    return { job_id: outcome.operation }
  }
}

const CREATE_CODES = {
  DOMAIN_UNKNOWN: 'SDRS.0205',
  VPC_UNKNOWN: 'SDRS.0204',
  AZ_NOT_IN_DOMAIN: 'SDRS.0203',
  QUOTA_GROUPS: 'SDRS.0305',
} as const satisfies Record<CreateGroupRefusal, string>

const PRESETS = ['status_abnormal', 'stop_protected', 'period_no_dr_drill']
/** Three months: the period after which a drill is missed. */
const DRILL_PERIOD_MS = 90 * 24 * 3_600_000

/** States that a preset is about; undefined: it is about something else. */
function statusesOf(preset: string | undefined): readonly string[] | undefined {
  if (preset === 'status_abnormal') return GROUP_STATUSES.filter(isAbnormal)
  if (preset === 'stop_protected') return ['available', 'error-starting']
  return undefined
}

type Action = Exclude<GroupCommand, { readonly kind: 'rename' | 'delete' }>

/** The single key selects the action; its value is an object, or null. */
function actionOf(body: unknown, { refuse }: SdrsContext): Action {
  if (!isObject(body)) throw refuse('SDRS.0206')
  const keys = Object.keys(body).filter((key) => key in ACTIONS)
  const [key] = keys
  if (key === undefined || keys.length !== 1 || Object.keys(body).length !== 1) {
    throw refuse('SDRS.0206')
  }
  const value = body[key] ?? {}
  if (!isObject(value)) throw refuse('SDRS.0206')
  const action = ACTIONS[key as keyof typeof ACTIONS]
  switch (action) {
    case 'start':
    case 'stop':
      return { kind: action }
    case 'failover': {
      const force = value['force'] ?? false
      if (typeof force !== 'boolean')
        throw refuse('SDRS.0206', 'The value of force must be true or false.')
      const preferredOff = value['preferred_site_is_off'] ?? false
      if (typeof preferredOff !== 'boolean') {
        throw refuse('SDRS.0206', 'The value of preferred_site_is_off must be true or false.')
      }
      return { kind: 'failover', force, preferredOff }
    }
    case 'reverse': {
      const to = value['priority_station']
      if (to !== 'source' && to !== 'target') throw refuse('SDRS.0216')
      return { kind: 'reverse', to }
    }
    default:
      return unreachable(action)
  }
}

const ACTIONS = {
  'start-server-group': 'start',
  'stop-server-group': 'stop',
  'reverse-server-group': 'reverse',
  'failover-server-group': 'failover',
} as const

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

export const FORCE_HINT =
  'The DR side is not known to hold everything. To fail over all the same and accept the loss, send {"failover-server-group":{"force":true}}.'

export const PREFERRED_HINT =
  'The group is arbitrated by static priority, and its preferred site, of which nothing is heard, may be writing alone. Make sure that it is off, then send {"failover-server-group":{"force":true,"preferred_site_is_off":true}}.'

function commandRefusal(
  refusal: GroupRequestRefusal,
  command: string,
  { refuse }: SdrsContext,
): Refusal {
  switch (refusal) {
    case 'GROUP_UNKNOWN':
      return refuse('SDRS.1013')
    case 'GROUP_STATE':
      return refuse('SDRS.1002')
    case 'GROUP_WITHOUT_PAIRS':
      return refuse('SDRS.1002', 'The group has no replication pair with two usable disks.')
    case 'GROUP_BUSY_PAIRS':
      return refuse('SDRS.1002', 'A replication pair of the group is being changed. Wait for it.')
    case 'GROUP_BUSY_INSTANCES':
      return refuse('SDRS.1002', 'A protected instance of the group is being changed. Wait for it.')
    case 'GROUP_BROKEN_INSTANCES':
      return refuse('SDRS.1314')
    case 'GROUP_PRODUCTION_RUNS':
      return refuse('SDRS.1319')
    case 'GROUP_DR_RUNS':
      return refuse('SDRS.1342')
    case 'GROUP_HAS_INSTANCES':
      return refuse('SDRS.1001')
    case 'GROUP_HAS_DRILLS':
      return refuse('SDRS.1003')
    case 'GROUP_HAS_PAIRS':
      return refuse('SDRS.1010')
    case 'GROUP_STATION':
      return refuse('SDRS.0216')
    case 'GROUP_COPYING':
      return refuse('SDRS.1830', command === 'failover' ? FORCE_HINT : undefined)
    case 'GROUP_LINK_DOWN':
      return refuse(
        'SDRS.1824',
        command === 'failover'
          ? 'The replication link is down while production works (fault_level 5). If production is to be given up, send {"failover-server-group":{"force":true}}.'
          : undefined,
      )
    case 'GROUP_PRODUCTION_SILENT':
      return refuse('SDRS.1823')
    case 'GROUP_PREFERRED_MAY_RUN':
      return refuse('SDRS.1824', PREFERRED_HINT)
    default:
      return unreachable(refusal)
  }
}
