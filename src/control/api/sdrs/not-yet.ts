import type { Api } from '../http/dialect.ts'
import { isId } from './codec.ts'
import type { SdrsCode } from './errors.ts'
import { pageOf, type Query } from './lists.ts'
import type { SdrsContext } from './services.ts'

/* Drills. This server has none: the list is empty, an id names nothing, and creating answers 501.
 * Clients that look before they act work; docs/compatibility/sdrs.md lists them all. */

const DRILL = '/v1/:project_id/disaster-recovery-drills/:disaster_recovery_drill_id'

export function notYetRoutes(app: Api, { refuse }: SdrsContext): void {
  const emptyList = (path: string, member: string) =>
    app.get(path, async (request) => {
      pageOf(request.query as Query, refuse)
      return { [member]: [], count: 0 }
    })
  const absent = (
    method: 'GET' | 'PUT' | 'DELETE',
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

  emptyList('/v1/:project_id/disaster-recovery-drills', 'disaster_recovery_drills')
  notOffered('POST', '/v1/:project_id/disaster-recovery-drills')
  for (const method of ['GET', 'PUT', 'DELETE'] as const) {
    absent(method, DRILL, 'disaster_recovery_drill_id', 'SDRS.1900', 'SDRS.1902')
  }
}
