import {
  type PowerRequest,
  requestPowers,
} from '#control/operations/definitions/servers/server-requests.ts'
import { inputWith, isMembers } from '../compute/input.ts'
import type { ComputeServices } from '../compute/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { badRequest, refusalOf } from './errors.ts'
import { serverIds } from './servers.ts'

/* `POST cloudservers/action`: start, stop or reboot, as a job. A server that is so already is no mistake here: its job succeeds at once. */
const input = inputWith(badRequest)

const KINDS: Readonly<Record<string, PowerRequest['kind']>> = {
  'os-start': 'start',
  'os-stop': 'stop',
  reboot: 'reboot',
}

export function powerRoutes(app: Api, services: ComputeServices): void {
  app.post(
    '/v1/:project_id/cloudservers/action',
    { config: { audit: 'server.power' } },
    async (request) => {
      const body: unknown = request.body
      const keys = isMembers(body) ? Object.keys(body) : []
      const [key] = keys
      const kind = key === undefined ? undefined : KINDS[key]
      if (!isMembers(body) || key === undefined || keys.length !== 1 || kind === undefined) {
        throw badRequest('The body must hold exactly one of os-start, os-stop and reboot.')
      }
      const batch = input.members(body, key)
      const ids = serverIds(input.objects(batch, 'servers').map((one) => input.text(one, 'id')))
      const type = (input.filledText(batch, 'type') ?? 'SOFT').toUpperCase()
      if (type !== 'SOFT' && type !== 'HARD') throw badRequest('type: SOFT or HARD.')
      auditTarget(request, ids.join(','), { action: key })
      const power = { kind, hard: type === 'HARD' }
      const outcome = await requestPowers(services, projectOf(request), ids, power)
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      return { job_id: outcome.operation }
    },
  )
}
