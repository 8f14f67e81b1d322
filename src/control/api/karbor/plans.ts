import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { newId } from '#base/ids.ts'
import { deletePolicy } from '#control/operations/definitions/backup/policy-requests.ts'
import {
  deletePlanRows,
  findPlan,
  insertPlan,
  planResources,
  type PlanResource,
  readPlan,
  setPlanResources,
  updatePlan,
} from '#control/resources/backup-plans.ts'
import { listPlansPaged } from '#control/resources/backup-lists.ts'
import { SERVER_TYPE } from '#control/resources/checkpoints.ts'
import { classedLimit } from '#control/resources/quota-classes.ts'
import { quotaUsed } from '#control/resources/surroundings.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { Queries } from '#control/store/store.ts'
import type { BackupPlanRow } from '#control/store/tables/checkpoints.ts'
import { fits } from '#domain/quota.ts'
import { invalid, refuse, refuseAs } from '../backup/errors.ts'
import {
  descriptionMember,
  given,
  isAnyUuid,
  isMembers,
  type Members,
  objectList,
  textMember,
  uuidMember,
} from '../backup/input.ts'
import { afterMarker, flagOf, linksOf, one, pageFrom, type Query } from '../backup/lists.ts'
import { policyRefused } from '../backup/refusals.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, originOf, projectOf } from '../http/request.ts'
import { KARBOR_KEYS, onlyMembers, parametersMember } from './input.ts'

/* Plans: what is backed up together, without a schedule of its own. Policies are plans too, and are shown; they are changed as policies. */

const BASE = '/v1/:project_id/plans'
const PlanPath = Type.Object({ plan_id: Type.String() })
const RESOURCES_MAX = 64

export function planRoutes(app: Api, services: BackupApiServices): void {
  const { store, clock } = services

  app.post(BASE, { config: { audit: 'backup-plan.create' } }, async (request) => {
    const { plan } = onlyMembers(request.body, ['plan'])
    const members = onlyMembers(plan, [
      'name',
      'description',
      'provider_id',
      'parameters',
      'resources',
    ])
    const project = projectOf(request)
    const now = clock.wallMs()
    const row: BackupPlanRow = {
      id: newId(),
      project,
      user_id: request.principal?.user.id ?? '',
      form: 'plan',
      name: textMember(members, 'name', 255) ?? '',
      description: descriptionMember(members),
      provider: uuidMember(members, 'provider_id'),
      status: 'suspended',
      parameters: toJson(parametersMember(members)),
      created_at: now,
      updated_at: now,
    }
    const resources = resourcesOf(members)
    const full = await store.write(async (tx) => {
      const limit = await classedLimit(tx, project, 'backup_plans')
      if (!fits(limit, await quotaUsed(tx, project, 'backup_plans'))) return true
      await insertPlan(tx, row)
      await setPlanResources(tx, row, resources)
      return false
    })
    if (full) throw refuseAs(413, 'CSBS.9006', 'The quota of plans is used up.')
    auditTarget(request, row.id)
    return { plan: await planObject(store.db, row) }
  })

  app.get(BASE, async (request) => {
    const query = request.query as Query
    const page = pageFrom(query, KARBOR_KEYS)
    flagOf(query, 'all_tenants')
    const project = projectOf(request)
    return await store.read(async (db) => {
      const after = await afterMarker(page, project, (id) => readPlan(db, id))
      const filters = {
        name: one(query, 'name'),
        status: one(query, 'status'),
        description: one(query, 'description'),
      }
      const shown = await listPlansPaged(db, project, filters, { ...page, after })
      const plans = []
      for (const row of shown) plans.push(await planObject(db, row))
      return { plans, ...linksOf('plans', request.url, originOf(request, services), page, shown) }
    })
  })

  app.get(`${BASE}/:plan_id`, { schema: { params: PlanPath } }, async (request) => ({
    plan: await planObject(store.db, await known(services, request)),
  }))

  app.put(
    `${BASE}/:plan_id`,
    { schema: { params: PlanPath }, config: { audit: 'backup-plan.update' } },
    async (request) => {
      const { plan } = onlyMembers(request.body, ['plan'])
      const members = onlyMembers(plan, ['name', 'description', 'status', 'resources'])
      if (Object.keys(members).length === 0) throw invalid('plan: nothing to change.')
      const row = await known(services, request)
      if (row.form !== 'plan') throw invalid('A policy is changed as a policy.')
      if (row.status !== 'suspended') throw invalid('Only a suspended plan can be changed.')
      const status = textMember(members, 'status', 32)
      if (status !== null && status !== 'suspended' && status !== 'started') {
        throw invalid('status: suspended or started.')
      }
      const name = textMember(members, 'name', 255)
      const change = {
        ...(name === null ? {} : { name }),
        ...(given(members, 'description') ? { description: descriptionMember(members) } : {}),
        ...(status === null ? {} : { status }),
      }
      const resources = given(members, 'resources') ? resourcesOf(members) : null
      await store.write(async (tx) => {
        await updatePlan(tx, row.id, change, clock.wallMs())
        if (resources !== null) await setPlanResources(tx, row, resources)
      })
      return { plan: await planObject(store.db, { ...row, ...change }) }
    },
  )

  app.delete(
    `${BASE}/:plan_id`,
    { schema: { params: PlanPath }, config: { audit: 'backup-plan.delete' } },
    async (request, reply) => {
      const row = await known(services, request)
      if (row.form === 'policy') {
        const outcome = await deletePolicy(services, row.project, row.id)
        if (!outcome.ok) throw policyRefused(outcome.refusal)
      } else {
        await store.write((tx) => deletePlanRows(tx, row.id))
      }
      return await reply.code(200).send()
    },
  )
}

async function known(
  { store }: BackupApiServices,
  request: FastifyRequest,
): Promise<BackupPlanRow> {
  const { plan_id: id } = request.params as { plan_id: string }
  auditTarget(request, id)
  const row = isAnyUuid(id)
    ? await findPlan(store.db, projectOf(request), id.toLowerCase())
    : undefined
  if (row === undefined) throw refuse('CSBS.3000', 'There is no such plan.')
  return row
}

function resourcesOf(members: Members): PlanResource[] {
  const list = objectList(members, 'resources')
  if (list.length === 0 || list.length > RESOURCES_MAX) {
    throw invalid(`resources: 1 to ${RESOURCES_MAX}.`)
  }
  const resources = list.map((one) => {
    const [id, type, name] = [one['id'], one['type'], one['name']]
    if (type !== SERVER_TYPE) throw invalid(`type: only ${SERVER_TYPE} is backed up here.`)
    if (!isAnyUuid(id)) throw invalid('id: the id of a server.')
    if (typeof name !== 'string' || name.length > 255) throw invalid('name: text is expected.')
    const extraInfo = one['extra_info'] ?? {}
    if (!isMembers(extraInfo)) throw invalid('extra_info: an object is expected.')
    return { id: id.toLowerCase(), type, name, extraInfo }
  })
  if (new Set(resources.map(({ id }) => id)).size < resources.length) {
    throw invalid('resources: each server once.')
  }
  return resources
}

async function planObject(db: Queries, row: BackupPlanRow) {
  const resources = await planResources(db, row.id)
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    provider_id: row.provider,
    status: row.status,
    resources: resources.map(({ resource, type, name, extra_info }) => ({
      id: resource,
      type,
      name,
      extra_info: fromJson<Record<string, unknown>>(extra_info),
    })),
    parameters: fromJson<Record<string, unknown>>(row.parameters),
  }
}
