import Type from 'typebox'
import { invalid, refuseAs } from '../backup/errors.ts'
import { isMembers } from '../backup/input.ts'
import { one, type Query } from '../backup/lists.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget } from '../http/request.ts'

/* The ancestor consists of several processes and lists them. Here one control plane does what they do, and it is up, for it answers. */

const SERVICES = [
  { id: 1, binary: 'karbor-operationengine' },
  { id: 2, binary: 'karbor-protection' },
] as const
/** The only one that can be changed. */
const ENGINE = 1

const ServicePath = Type.Object({ service_id: Type.String() })

export function processRoutes(app: Api, { region }: BackupApiServices): void {
  const view = (service: (typeof SERVICES)[number]) => ({
    ...service,
    host: region,
    status: 'enabled',
    state: 'up',
    updated_at: null,
    disabled_reason: null,
  })

  app.get('/v1/:project_id/os-services', async (request) => {
    const query = request.query as Query
    const [host, binary] = [one(query, 'host'), one(query, 'binary')]
    return {
      services: SERVICES.map(view).filter(
        (service) =>
          (host === undefined || service.host === host) &&
          (binary === undefined || service.binary === binary),
      ),
    }
  })

  app.put(
    '/v1/:project_id/os-services/:service_id',
    { schema: { params: ServicePath }, config: { role: 'admin', audit: 'backup-service.update' } },
    async (request) => {
      const { service_id: id } = request.params
      auditTarget(request, id)
      const service = SERVICES.find((one) => String(one.id) === id)
      if (service === undefined) throw refuseAs(404, 'CSBS.9001', 'There is no such service.')
      const status = isMembers(request.body) ? request.body['status'] : undefined
      if (status !== 'enabled' && status !== 'disabled')
        throw invalid('status: enabled or disabled.')
      if (service.id !== ENGINE) throw invalid('Only karbor-operationengine can be changed.')
      // Who stops one part of a control plane would stop the schedules of every project.
      if (status === 'disabled') throw invalid('It is not disabled here: disable the policies.')
      return { service: view(service) }
    },
  )
}
