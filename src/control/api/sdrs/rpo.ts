import { pageOfRpoPoints } from '#control/resources/rpo.ts'
import type { RpoPointRow } from '#control/store/tables/rpo.ts'
import type { Api } from '../http/dialect.ts'
import { projectOf } from '../http/request.ts'
import { spaceTime } from './codec.ts'
import type { RefuseWith } from './errors.ts'
import { pageOf, type Query, text } from './lists.ts'
import type { SdrsContext } from './services.ts'

/** How many pairs were behind, and when: `/v1/{project}/resource/rpo-statistics`. */
export function rpoRoutes(app: Api, { services, refuse }: SdrsContext): void {
  app.get('/v1/:project_id/resource/rpo-statistics', async (request) => {
    const query = request.query as Query
    const page = pageOf(query, refuse)
    const type = text(query, 'resource_type')
    if (type !== undefined && type !== 'replication') {
      throw refuse('SDRS.0201', 'The only resource_type is replication.')
    }
    const period = {
      from: timeFrom(query, 'start_time', refuse),
      to: timeFrom(query, 'end_time', refuse),
    }
    const { db } = services.store
    const { rows, count } = await pageOfRpoPoints(db, projectOf(request), period, page)
    return { resource_rpo_statistics: rows.map(rpoObject), count }
  })
}

const rpoObject = (row: RpoPointRow) => ({
  id: row.id,
  point_time: spaceTime(row.point_at).slice(0, 16),
  resource_num: row.behind,
  resource_type: 'replication' as const,
  created_at: spaceTime(row.created_at),
  updated_at: spaceTime(row.updated_at),
})

const TIME = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(\.\d{1,6})?$/

/** `2024-04-01 12:00:00.000`, UTC, with one to six digits behind the point or none; undefined when absent. */
function timeFrom(query: Query, name: string, refuse: RefuseWith): number | undefined {
  const given = text(query, name)
  if (given === undefined) return undefined
  const [, day, time, fraction = ''] = TIME.exec(given) ?? []
  const ms = Date.parse(`${day}T${time}${fraction.slice(0, 4)}Z`)
  if (Number.isNaN(ms))
    throw refuse('SDRS.0201', `The ${name} must be a time as 2024-04-01 12:00:00.000.`)
  return ms
}
