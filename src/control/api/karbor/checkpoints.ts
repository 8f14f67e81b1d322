import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import {
  findItemOrOnly,
  requestDeletion,
  requestRun,
} from '#control/operations/definitions/backup/backup-requests.ts'
import { requestPolicyReplication } from '#control/operations/definitions/backup/replica-requests.ts'
import { listCheckpoints } from '#control/resources/checkpoint-lists.ts'
import { findCheckpoint, readCheckpoint, settleCopy } from '#control/resources/checkpoints.ts'
import type { CheckpointRow } from '#control/store/tables/checkpoints.ts'
import { checkpointObject } from '../backup/codec.ts'
import { invalid, refuse, refuseAs } from '../backup/errors.ts'
import {
  envelope,
  given,
  isAnyUuid,
  isMembers,
  listMember,
  type Members,
  providerOf,
  uuidMember,
} from '../backup/input.ts'
import { flagOf, linksOf, one, pageFrom, type Query } from '../backup/lists.ts'
import { asKarbor, deletionRefused, replicationRefused, runRefused } from '../backup/refusals.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf, originOf } from '../http/request.ts'
import { KARBOR_KEYS, onlyMembers } from './input.ts'

/* Checkpoints: what a run of a policy or plan made. */

const BASE = '/v1/:project_id/providers/:provider_id/checkpoints'
const ProviderPath = Type.Object({ provider_id: Type.String() })
const CheckpointPath = Type.Object({ provider_id: Type.String(), checkpoint_id: Type.String() })

export function checkpointRoutes(app: Api, services: BackupApiServices): void {
  const { store, clock } = services

  app.post(
    BASE,
    { schema: { params: ProviderPath }, config: { audit: 'backup-policy.run' } },
    async (request) => {
      const members = envelope(request.body, 'checkpoint')
      const parameters = given(members, 'parameters') ? members['parameters'] : {}
      if (!isMembers(parameters)) throw invalid('parameters: an object is expected.')
      const plan = uuidMember(members, 'plan_id')
      const servers = listMember(parameters, 'resources').map((id) => {
        if (!isAnyUuid(id)) throw invalid('resources: ids of servers.')
        return id.toLowerCase()
      })
      const outcome = await requestRun(services, {
        project: projectOf(request),
        plan,
        provider: providerOf(request.params.provider_id),
        servers,
        // Whatever the caller says of it: only the schedule's own runs are subject to retention.
        scheduled: false,
        extraInfo: { created_by: 'manual' },
      })
      if (!outcome.ok) throw asKarbor(runRefused(outcome.refusal))
      auditTarget(request, outcome.checkpoint.id, { plan })
      return { checkpoint: checkpointObject(outcome.checkpoint) }
    },
  )

  app.get(BASE, { schema: { params: ProviderPath } }, async (request) => {
    const query = request.query as Query
    const page = pageFrom(query, KARBOR_KEYS)
    flagOf(query, 'all_tenants')
    const provider = providerOf(request.params.provider_id)
    const [from, to] = [dayFrom(query, 'start_date', 0), dayFrom(query, 'end_date', DAY_MS - 1)]
    const project = projectOf(request)
    const { marker } = page
    const after =
      marker === undefined ? null : ((await findCheckpoint(store.db, project, marker)) ?? null)
    if (marker !== undefined && after === null) throw invalid('marker: there is no such entry.')
    const filter = { project, provider, plan: one(query, 'plan_id'), status: one(query, 'status') }
    const shown = await listCheckpoints(store.db, { ...filter, from, to }, { ...page, after })
    return {
      checkpoints: shown.map((row) => checkpointObject(row, 'text')),
      ...linksOf('checkpoints', request.url, originOf(request, services), page, shown),
    }
  })

  app.get(`${BASE}/:checkpoint_id`, { schema: { params: CheckpointPath } }, async (request) => ({
    checkpoint: checkpointObject(await known(services, request), 'text'),
  }))

  app.delete(
    `${BASE}/:checkpoint_id`,
    { schema: { params: CheckpointPath }, config: { audit: 'backup.delete' } },
    async (request) => {
      const project = projectOf(request)
      const { checkpoint_id: id } = request.params
      auditTarget(request, id)
      if (!isAnyUuid(id)) throw refuse('CSBS.3001')
      const checkpoint = await findCheckpoint(store.db, project, id.toLowerCase())
      if (checkpoint?.provider !== providerOf(request.params.provider_id)) {
        throw refuse('CSBS.3001')
      }
      const wanted = one(request.query as Query, 'checkpoint_items')?.split(',') ?? []
      const items: string[] = []
      for (const text of wanted) {
        const item = await findItemOrOnly(store.db, project, text.trim().toLowerCase())
        if (item === undefined) throw refuse('CSBS.3001')
        items.push(item.id)
      }
      const outcome = await requestDeletion(services, project, checkpoint.id, items)
      if (!outcome.ok) throw deletionRefused(outcome.refusal)
      return {}
    },
  )

  app.put(
    `${BASE}/:checkpoint_id`,
    { schema: { params: CheckpointPath }, config: { audit: 'backup.reset-state' } },
    async (request) => {
      const body = onlyMembers(request.body, ['os-resetState'])
      const { state } = onlyMembers(body['os-resetState'], ['state'])
      if (state !== 'available' && state !== 'error') throw invalid('state: available or error.')
      const { id, project } = await known(services, request)
      const done = await store.write(async (tx) => {
        const row = await findCheckpoint(tx, project, id)
        if (row === undefined || !RESETTABLE.has(row.status)) return false
        await tx
          .updateTable('checkpoints')
          .set({ status: state, updated_at: clock.wallMs() })
          .where('id', '=', id)
          .execute()
        return true
      })
      if (!done) throw invalid('The state of the checkpoint cannot be set now.')
      return {}
    },
  )

  app.post(
    `${BASE}/action`,
    { schema: { params: ProviderPath }, config: { audit: 'backup-policy.replicate' } },
    async (request) => {
      const { copy } = onlyMembers(request.body, ['copy'])
      const members = onlyMembers(copy, ['plan_id', 'parameters'])
      const project = projectOf(request)
      const provider = providerOf(request.params.provider_id)
      const plan = uuidMember(members, 'plan_id')
      const made = await store.db
        .selectFrom('checkpoints')
        .select('id')
        .where('project', '=', project)
        .where('plan', '=', plan)
        .limit(1)
        .executeTakeFirst()
      if (made === undefined) throw invalid('The plan has no checkpoint yet.')
      const outcome = await requestPolicyReplication(services, {
        ...destinationOf(services, members, project),
        sourceProject: project,
        policy: plan,
        provider,
        scheduled: false,
        anyPlan: true,
      })
      if (!outcome.ok) throw replicationRefused(outcome.refusal)
      const ids = outcome.chosen.map(({ item }) => item)
      const rows =
        ids.length === 0
          ? []
          : await store.db
              .selectFrom('checkpoint_items')
              .select('checkpoint')
              .distinct()
              .where('id', 'in', ids.slice(0, 500))
              .execute()
      await store.write(async (tx) => {
        for (const { checkpoint } of rows) await settleCopy(tx, checkpoint, clock.wallMs(), true)
      })
      return {
        copy: {
          project_id: project,
          provider_id: provider,
          plan_id: plan,
          checkpoint_id: rows.map(({ checkpoint }) => checkpoint),
          parameters: members['parameters'] ?? {},
        },
      }
    },
  )
}

const RESETTABLE: ReadonlySet<string> = new Set([
  'available',
  'error',
  'copying',
  'wait_copying',
  'finished',
])

const DAY_MS = 86_400_000

function dayFrom(query: Query, name: string, more: number): number | undefined {
  const text = one(query, name)
  if (text === undefined) return undefined
  const ms = /^\d{4}-\d\d-\d\d$/.test(text) ? Date.parse(`${text}T00:00:00Z`) : Number.NaN
  if (Number.isNaN(ms)) throw invalid(`${name}: a day like 2026-01-31.`)
  return ms + more
}

/** Another project's checkpoint is forbidden, not absent: the ancestor says so, and ids are not secret. */
async function known(
  { store }: BackupApiServices,
  request: FastifyRequest,
): Promise<CheckpointRow> {
  const { checkpoint_id: id, provider_id: provider } = request.params as {
    checkpoint_id: string
    provider_id: string
  }
  auditTarget(request, id)
  const row = isAnyUuid(id) ? await readCheckpoint(store.db, id.toLowerCase()) : undefined
  if (row === undefined || row.provider !== providerOf(provider)) throw refuse('CSBS.3001')
  if (row.project !== projectOf(request)) {
    throw refuseAs(403, 'CSBS.3001', 'The checkpoint belongs to another project.')
  }
  return row
}

/** The parameters may name it, under the type of the resources; with one region there is no choice. */
function destinationOf(
  { destinations }: BackupApiServices,
  members: Members,
  project: string,
): { region: string; project: string; accelerate: boolean } {
  const parameters = isMembers(members['parameters']) ? members['parameters'] : {}
  const all = Object.assign({}, ...Object.values(parameters).filter(isMembers)) as Members
  const [only] = destinations
  const region = all['destination_region'] ?? only
  const there = all['destination_project_id'] ?? project
  if (typeof region !== 'string' || typeof there !== 'string') {
    throw invalid('parameters: destination_region and destination_project_id are expected.')
  }
  return { region, project: there, accelerate: all['enable_acceleration'] === true }
}
