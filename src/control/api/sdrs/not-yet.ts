import type { Api } from '../http/dialect.ts'
import { isId } from './codec.ts'
import type { SdrsCode } from './errors.ts'
import { pageOf, type Query } from './lists.ts'
import type { SdrsContext } from './services.ts'

/* Protected instances, their tags, drills and recovery point statistics. This server has none: lists are empty, an id names
 * nothing, and creating answers 501. Clients that look before they act work; docs/compatibility/sdrs.md lists them all. */

const INSTANCE = '/v1/:project_id/protected-instances/:protected_instance_id'
const DRILL = '/v1/:project_id/disaster-recovery-drills/:disaster_recovery_drill_id'

export function notYetRoutes(app: Api, { refuse }: SdrsContext): void {
  const emptyList = (path: string, member: string) =>
    app.get(path, async (request) => {
      pageOf(request.query as Query, refuse)
      return { [member]: [], count: 0 }
    })
  const absent = (
    method: 'GET' | 'PUT' | 'POST' | 'DELETE',
    path: string,
    parameter: string,
    malformed: SdrsCode,
    code: SdrsCode,
  ) =>
    app.route({
      method,
      url: path,
      handler: async (request) => {
        const id = (request.params as Record<string, string>)[parameter]
        throw refuse(isId(id) ? code : malformed)
      },
    })
  const notOffered = (method: 'POST', path: string) =>
    app.route({
      method,
      url: path,
      handler: async () => {
        throw refuse('SDRS.0009')
      },
    })

  emptyList('/v1/:project_id/protected-instances', 'protected_instances')
  notOffered('POST', '/v1/:project_id/protected-instances')
  notOffered('POST', '/v1/:project_id/protected-instances/batch')
  notOffered('POST', '/v1/:project_id/protected-instances/delete')
  app.get('/v1/:project_id/protected-instances/tags', async () => ({ tags: [] }))
  app.post(
    '/v1/:project_id/protected-instances/resource_instances/action',
    { config: { role: 'reader', query: true } },
    async (request) => {
      const action = (request.body as { action?: unknown } | null | undefined)?.action
      if (action === 'count') return { total_count: 0 }
      if (action === 'filter') return { resources: [], total_count: 0 }
      throw refuse('SDRS.2210')
    },
  )

  const instance = (method: 'GET' | 'PUT' | 'POST' | 'DELETE', path = '') =>
    absent(method, INSTANCE + path, 'protected_instance_id', 'SDRS.0208', 'SDRS.1320')
  instance('GET')
  instance('PUT')
  instance('DELETE')
  instance('POST', '/attachreplication')
  instance('DELETE', '/detachreplication/:replication_id')
  instance('POST', '/nic')
  instance('POST', '/nic/delete')
  instance('POST', '/resize')
  instance('GET', '/tags')
  instance('POST', '/tags')
  instance('POST', '/tags/action')
  instance('DELETE', '/tags/:key')

  emptyList('/v1/:project_id/disaster-recovery-drills', 'disaster_recovery_drills')
  notOffered('POST', '/v1/:project_id/disaster-recovery-drills')
  for (const method of ['GET', 'PUT', 'DELETE'] as const) {
    absent(method, DRILL, 'disaster_recovery_drill_id', 'SDRS.1900', 'SDRS.1902')
  }

  emptyList('/v1/:project_id/resource/rpo-statistics', 'resource_rpo_statistics')
}
