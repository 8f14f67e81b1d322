import Type from 'typebox'
import type { CreateDrillRefusal } from '#control/operations/definitions/drills/drill-decision.ts'
import {
  renameDrill,
  requestDrill,
  requestDrillDeletion,
} from '#control/operations/definitions/drills/drill-requests.ts'
import { drillServers, findDrill, pageOfDrills } from '#control/resources/drills.ts'
import type { Queries } from '#control/store/store.ts'
import type { DrillRow } from '#control/store/tables/drills.ts'
import { isDrillStatus, PROBE_TIMEOUT_MS } from '#domain/drill.ts'
import { isName } from '#domain/text.ts'
import type { Api } from '../http/dialect.ts'
import type { Refusal } from '../http/refusal.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import { drillObject, isId } from './codec.ts'
import { absentInBody, type RefuseWith, type SdrsCode } from './errors.ts'
import { pageOf, type Query, statusFilter, text, wantedIds } from './lists.ts'
import type { SdrsContext } from './services.ts'

/** Disaster recovery drills: `/v1/{project}/disaster-recovery-drills`. Probes, reports and schedules are in our own API. */
const LIST = '/v1/:project_id/disaster-recovery-drills'
const ONE = `${LIST}/:disaster_recovery_drill_id` as const
const Path = Type.Object({
  project_id: Type.String(),
  disaster_recovery_drill_id: Type.String(),
})
const CreateBody = Type.Object({
  disaster_recovery_drill: Type.Object({
    server_group_id: Type.String(),
    name: Type.String(),
    drill_vpc_id: optional(Type.String()),
  }),
})
const RenameBody = Type.Object({ disaster_recovery_drill: Type.Object({ name: Type.String() }) })

export function drillRoutes(app: Api, { services, refuse }: SdrsContext): void {
  const drillId = (id: string): string => {
    if (id.trim() === '' || id === 'null') throw refuse('SDRS.1901')
    if (!isId(id)) throw refuse('SDRS.1900')
    return id.toLowerCase()
  }

  async function objects(db: Queries, drills: readonly DrillRow[]) {
    const servers = await drillServers(
      db,
      drills.map(({ id }) => id),
    )
    return drills.map((drill) => drillObject(drill, servers.get(drill.id) ?? []))
  }

  async function show(project: string, id: string) {
    return await services.store.read(async (db) => {
      const drill = await findDrill(db, project, id)
      if (drill === undefined || drill.forced_at !== null) throw refuse('SDRS.1902')
      const [disaster_recovery_drill] = await objects(db, [drill])
      return { disaster_recovery_drill }
    })
  }

  /** One that was given up is gone, for whoever deleted it here or elsewhere. */
  async function refuseGivenUp(project: string, id: string): Promise<void> {
    const drill = await findDrill(services.store.db, project, id)
    if (drill !== undefined && drill.forced_at !== null) throw refuse('SDRS.1902')
  }

  app.post(
    LIST,
    { schema: { body: CreateBody }, config: { audit: 'drill.create' } },
    async (request) => {
      const { disaster_recovery_drill: body } = request.body
      if (!isName(body.name)) throw refuse('SDRS.0202')
      if (!isId(body.server_group_id)) throw refuse('SDRS.0207')
      const vpc = body.drill_vpc_id ?? ''
      if (vpc !== '' && !isId(vpc)) throw refuse('SDRS.0204')
      const outcome = await requestDrill(services, {
        project: projectOf(request),
        user: principalOf(request).user.id,
        group: body.server_group_id.toLowerCase(),
        name: body.name,
        vpc: vpc === '' ? null : vpc.toLowerCase(),
        options: { probes: {}, timeoutMs: PROBE_TIMEOUT_MS },
        schedule: null,
        autoDelete: false,
      })
      if (!outcome.ok) throw createRefusal(outcome.refusal, refuse)
      auditTarget(request, outcome.drill.id, { group: outcome.drill.group_id })
      return { job_id: outcome.operation }
    },
  )

  app.get(LIST, async (request) => {
    const query = request.query as Query
    const page = pageOf(query, refuse)
    const status = statusFilter(query, isDrillStatus, refuse)
    const name = text(query, 'name')
    const groups = wantedIds(query, 'server_group_id', refuse)
    const vpc = text(query, 'drill_vpc_id')?.toLowerCase()
    return await services.store.read(async (db) => {
      const filter = { status, name, groups, vpc }
      const { rows, count } = await pageOfDrills(db, projectOf(request), filter, page)
      return { disaster_recovery_drills: await objects(db, rows), count }
    })
  })

  app.get(
    ONE,
    { schema: { params: Path } },
    async (request) =>
      await show(projectOf(request), drillId(request.params.disaster_recovery_drill_id)),
  )

  app.put(
    ONE,
    { schema: { params: Path, body: RenameBody }, config: { audit: 'drill.update' } },
    async (request) => {
      const id = drillId(request.params.disaster_recovery_drill_id)
      auditTarget(request, id)
      const { name } = request.body.disaster_recovery_drill
      if (!isName(name)) throw refuse('SDRS.0202')
      await refuseGivenUp(projectOf(request), id)
      const outcome = await renameDrill(services, projectOf(request), id, name)
      if (!outcome.ok) throw refuse('SDRS.1902')
      return await show(projectOf(request), id)
    },
  )

  app.delete(
    ONE,
    { schema: { params: Path }, config: { audit: 'drill.delete', emptyBody: true } },
    async (request) => {
      const id = drillId(request.params.disaster_recovery_drill_id)
      auditTarget(request, id)
      await refuseGivenUp(projectOf(request), id)
      const outcome = await requestDrillDeletion(services, projectOf(request), id)
      if (outcome.ok) return { job_id: outcome.operation }
      throw refuse(outcome.refusal === 'DRILL_UNKNOWN' ? 'SDRS.1902' : 'SDRS.1913')
    },
  )
}

const CREATE_CODES: Record<Exclude<CreateDrillRefusal, 'GROUP_UNKNOWN'>, [SdrsCode, string?]> = {
  DRILL_GROUP_STATE: ['SDRS.1002'],
  DRILL_NO_PAIRS: ['SDRS.1002', 'The group has no pair, so there is nothing to try.'],
  DRILL_GROUP_BUSY: [
    'SDRS.1002',
    'A pair or an instance of the group is being changed. Repeat when that has ended.',
  ],
  DRILL_INSTANCE_BROKEN: ['SDRS.1314'],
  DRILL_NO_DATA: ['SDRS.1830'],
  DRILL_SITE_SILENT: ['SDRS.1922', 'Nothing is heard from the DR site. Start its agent there.'],
  DRILL_COPY_FAILED: [
    'SDRS.1922',
    'A disk of the group has failed at the DR site. Replace it, and rebuild its pair.',
  ],
  DRILL_VPC_UNKNOWN: ['SDRS.1928'],
  DRILL_VPC_OF_GROUP: ['SDRS.1907'],
  DRILL_VPC_IN_USE: ['SDRS.1921'],
  DRILL_VPC_NO_SUBNETS: ['SDRS.1908'],
  DRILL_VPC_NO_RANGE: ['SDRS.1909'],
  DRILL_ADDRESS_TAKEN: ['SDRS.1910'],
  DRILL_NIC_MISSING: ['SDRS.1911'],
  DRILL_PROBES_UNKNOWN: ['SDRS.0201'],
  QUOTA_VPCS: ['SDRS.1929'],
  QUOTA_SUBNETS: ['SDRS.1930'],
  QUOTA_DRILLS: ['SDRS.1922', 'The project has as many drills as it can. Delete one first.'],
  QUOTA_INSTANCES: ['SDRS.1922', 'The quota of servers is used up. Delete servers, or raise it.'],
  QUOTA_VOLUMES: ['SDRS.1922', 'The quota of disks is used up. Delete disks, or raise it.'],
  QUOTA_GIGABYTES: ['SDRS.1922', 'The quota of gigabytes is used up. Delete disks, or raise it.'],
  QUOTA_PORTS: ['SDRS.1922', 'The quota of ports is used up. Delete ports, or raise it.'],
}

function createRefusal(refusal: CreateDrillRefusal, refuse: RefuseWith): Refusal {
  if (refusal === 'GROUP_UNKNOWN') return absentInBody('SDRS.1013')
  return refuse(...CREATE_CODES[refusal])
}
