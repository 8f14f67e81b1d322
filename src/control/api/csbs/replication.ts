import Type from 'typebox'
import {
  requestItemReplication,
  requestPolicyReplication,
} from '#control/operations/definitions/backup/replica-requests.ts'
import { findItemOrOnly } from '#control/operations/definitions/backup/backup-requests.ts'
import { listRecords, RECORD_KEYS } from '#control/resources/backup-lists.ts'
import { readRecord } from '#control/resources/checkpoints.ts'
import { recordObject } from '../backup/codec.ts'
import { invalid, refuse } from '../backup/errors.ts'
import {
  booleanMember,
  descriptionMember,
  envelope,
  isAnyUuid,
  type Members,
  providerOf,
  textMember,
  uuidMember,
} from '../backup/input.ts'
import { afterMarker, linksOf, one, pageFrom, type Query, timeOf } from '../backup/lists.ts'
import { replicationRefused } from '../backup/refusals.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, originOf, projectOf } from '../http/request.ts'

/* Copies of backups to other regions. */

const BASE = '/v1/:project_id/providers/:provider_id'
const ProviderPath = Type.Object({ provider_id: Type.String() })
const ItemPath = Type.Object({ provider_id: Type.String(), checkpoint_item_id: Type.String() })

export function replicationRoutes(app: Api, services: BackupApiServices): void {
  const { store, region, destinations } = services

  app.post(
    `${BASE}/checkpoints/replicate`,
    { schema: { params: ProviderPath }, config: { audit: 'backup-policy.replicate' } },
    async (request) => {
      const members = envelope(request.body, 'replication')
      const project = projectOf(request)
      const provider = providerOf(request.params.provider_id)
      const policy = uuidMember(members, 'policy_id')
      const destination = destinationOf(members)
      auditTarget(request, policy, { destination_region: destination.region })
      const outcome = await requestPolicyReplication(services, {
        ...destination,
        sourceProject: project,
        policy,
        provider,
        scheduled: booleanMember(members, 'auto_trigger', false),
      })
      if (!outcome.ok) throw replicationRefused(outcome.refusal)
      return {
        replication: {
          project_id: project,
          provider_id: provider,
          policy_id: policy,
          source_region: region,
          destination_region: destination.region,
          destination_project_id: destination.project,
          checkpoint_items: outcome.chosen.map(({ item, record }) => ({
            checkpoint_item_id: item,
            replication_record_id: record,
          })),
        },
      }
    },
  )

  app.post(
    `${BASE}/checkpoint_items/:checkpoint_item_id/replicate`,
    { schema: { params: ItemPath }, config: { audit: 'backup.replicate' } },
    async (request) => {
      const { checkpoint_item_id: id } = request.params
      const members = envelope(request.body, 'replication')
      const project = projectOf(request)
      const provider = providerOf(request.params.provider_id)
      const destination = destinationOf(members)
      auditTarget(request, id, { destination_region: destination.region })
      if (!isAnyUuid(id)) throw refuse('CSBS.3001')
      const item = await findItemOrOnly(store.db, project, id.toLowerCase())
      if (item === undefined) throw refuse('CSBS.3001')
      const outcome = await requestItemReplication(services, {
        ...destination,
        sourceProject: project,
        item: item.id,
        name: textMember(members, 'name', 255),
        description: descriptionMember(members),
      })
      if (!outcome.ok) throw replicationRefused(outcome.refusal)
      return {
        replication: {
          project_id: project,
          provider_id: provider,
          checkpoint_item_id: item.id,
          source_region: region,
          destination_region: destination.region,
          destination_project_id: destination.project,
          replication_record_id: outcome.record,
        },
      }
    },
  )

  app.get('/v1/:project_id/replication_capabilities', async () => ({
    regions: [{ name: region, replication_destinations: [...destinations] }],
  }))

  app.get('/v1/:project_id/replication_records', async (request) => {
    const query = request.query as Query
    const page = pageFrom(query, RECORD_KEYS)
    const [from, to] = [timeOf(query, 'start_time'), timeOf(query, 'end_time')]
    const filters = {
      status: one(query, 'status'),
      item: one(query, 'source_checkpoint_item_id'),
      checkpoint: one(query, 'source_checkpoint_id'),
      destination_region: one(query, 'destination_region'),
      policy: one(query, 'plan_id'),
      from,
      to,
    }
    const project = projectOf(request)
    const { rows: shown, count } = await store.read(async (db) => {
      const after = await afterMarker(page, project, (id) => readRecord(db, id))
      return await listRecords(db, project, filters, { ...page, after })
    })
    return {
      replication_records: shown.map((row) => recordObject(row, region)),
      count,
      ...linksOf('replication_records', request.url, originOf(request, services), page, shown),
    }
  })
}

function destinationOf(members: Members) {
  const region = textMember(members, 'destination_region', 255)
  const project = textMember(members, 'destination_project_id', 64)
  if (region === null || !/^[a-zA-Z0-9._-]+$/.test(region)) {
    throw invalid('destination_region: the name of a region.')
  }
  if (project === null || !/^[0-9a-zA-Z_-]+$/.test(project)) {
    throw invalid('destination_project_id: the id of a project there.')
  }
  return { region, project, accelerate: booleanMember(members, 'enable_acceleration', false) }
}
