import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { findItemOrOnly } from '#control/operations/definitions/backup/backup-requests.ts'
import {
  countItems,
  ITEM_KEYS,
  type ItemFilter,
  listItems,
} from '#control/resources/checkpoint-lists.ts'
import { findItem, readItem } from '#control/resources/checkpoints.ts'
import { itemObjects } from '../backup/codec.ts'
import { invalid, refuse } from '../backup/errors.ts'
import { isAnyUuid } from '../backup/input.ts'
import { flagOf, linksOf, one, pageFrom, type Query, timeOf } from '../backup/lists.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Api } from '../http/dialect.ts'
import { originOf, projectOf } from '../http/request.ts'

/* Backups of servers: one, a list, a number. */

const BASE = '/v1/:project_id/checkpoint_items'
const ItemPath = Type.Object({ checkpoint_item_id: Type.String() })

export function backupRoutes(app: Api, services: BackupApiServices): void {
  const { store, region } = services

  app.get(BASE, async (request) => {
    const query = request.query as Query
    const page = pageFrom(query, ITEM_KEYS)
    const filter = filterFrom(request)
    const shown = await store.read(async (db) => {
      const marker = page.marker
      const after =
        marker === undefined
          ? null
          : ((filter.project === null
              ? await readItem(db, marker)
              : await findItem(db, filter.project, marker)) ?? null)
      if (marker !== undefined && after === null) throw invalid('marker: there is no such backup.')
      const rows = await listItems(db, filter, { ...page, after })
      return await itemObjects(db, region, rows)
    })
    return {
      checkpoint_items: shown,
      ...linksOf('checkpoint_items', request.url, originOf(request, services), page, shown),
    }
  })

  app.get(`${BASE}/count`, async (request) => ({
    count: await countItems(store.db, filterFrom(request)),
  }))

  app.get(`${BASE}/:checkpoint_item_id`, { schema: { params: ItemPath } }, async (request) => {
    const { checkpoint_item_id: id } = request.params
    if (!isAnyUuid(id)) throw refuse('CSBS.3001')
    const [shown] = await store.read(async (db) => {
      const row = await findItemOrOnly(db, projectOf(request), id.toLowerCase())
      return row === undefined ? [] : await itemObjects(db, region, [row])
    })
    if (shown === undefined) throw refuse('CSBS.3001')
    return { checkpoint_item: shown }
  })
}

function filterFrom(request: FastifyRequest): ItemFilter {
  const query = request.query as Query
  const kind = one(query, 'image_type')
  // Only who administers the whole domain sees more than the project.
  const everybody = flagOf(query, 'all_tenants') && request.principal?.domainRole === 'admin'
  return {
    project: everybody ? null : projectOf(request),
    status: one(query, 'status'),
    name: one(query, 'name'),
    resourceName: one(query, 'resource_name'),
    az: one(query, 'az'),
    resource: one(query, 'resource_id'),
    resourceType: one(query, 'resource_type'),
    policy: one(query, 'policy_id'),
    checkpoint: one(query, 'checkpoint_id'),
    address: one(query, 'ip'),
    imageType: kind,
    from: timeOf(query, 'start_time'),
    to: timeOf(query, 'end_time'),
  }
}
