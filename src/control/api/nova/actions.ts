import { isFault } from '#base/fault.ts'
import {
  type PowerRequest,
  requestPower,
} from '#control/operations/definitions/servers/server-requests.ts'
import { findServer } from '#control/resources/servers.ts'
import { SITE_NEVER_SEEN, SITE_REFUSED, SITE_UNREACHABLE } from '#control/sites/client.ts'
import { inputWith, isMembers, type Members } from '../compute/input.ts'
import type { ComputeServices } from '../compute/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { badRequest, notFound, refuse } from './errors.ts'
import { refusalOf, ServerPath } from './lookup.ts'

/* `POST servers/{id}/action`: exactly one member, named for the action. Reading the console is one of them, so it
 * needs an operator like the others. Actions that this server does not have answer 400, as clients expect of an unknown one. */
const input = inputWith(badRequest)

export function actionRoutes(app: Api, services: ComputeServices): void {
  app.post(
    '/v2.1/:project_id/servers/:server_id/action',
    { schema: { params: ServerPath }, config: { audit: 'server.action' } },
    async (request, reply) => {
      const body: unknown = request.body
      const keys = isMembers(body) ? Object.keys(body) : []
      const [key] = keys
      if (!isMembers(body) || key === undefined || keys.length !== 1) {
        throw badRequest('The body must hold exactly one action.')
      }
      const { server_id: id } = request.params
      auditTarget(request, id, { action: key })
      if (key === 'os-getConsoleOutput') {
        const options = input.optionalMembers(body, key) ?? {}
        return { output: await consoleOf(services, projectOf(request), id, options) }
      }
      const power = powerOf(key, body)
      const outcome = await requestPower(services, projectOf(request), id, power)
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      // This API refuses what is so already; the other one takes it for done.
      if (outcome.operation === null) {
        const already = power.kind === 'start' ? 'active' : 'stopped'
        throw refuse(409, `Cannot '${key}' the server: it is ${already} already.`)
      }
      return await reply.code(202).send()
    },
  )
}

function powerOf(key: string, body: Members): PowerRequest {
  switch (key) {
    case 'os-start':
      return { kind: 'start', hard: false }
    case 'os-stop':
      return { kind: 'stop', hard: false }
    case 'reboot': {
      const type = input.text(input.members(body, key), 'type').toUpperCase()
      if (type !== 'SOFT' && type !== 'HARD') throw badRequest('reboot.type: SOFT or HARD.')
      return { kind: 'reboot', hard: type === 'HARD' }
    }
    default:
      throw badRequest(`${key} is not an action of this server.`)
  }
}

async function consoleOf(
  services: ComputeServices,
  project: string,
  id: string,
  options: Members,
): Promise<string> {
  const server = await findServer(services.store.db, project, id)
  if (server === undefined) throw notFound('There is no such server.')
  const length = input.integer(options, 'length')
  // All of it is asked for by no length or a negative one.
  const lines = length === null || length < 0 ? 0 : Math.min(length, LINES_MAX)
  if (length === 0) return ''
  try {
    const { output } = await services.commands.command(server.az, 'server.console', {
      server: id,
      lines,
    })
    return output
  } catch (error) {
    if (isFault(error, SITE_REFUSED)) {
      throw refuse(409, 'The server has no console yet: it is being made, or never ran.')
    }
    if (isFault(error, SITE_UNREACHABLE) || isFault(error, SITE_NEVER_SEEN)) {
      throw refuse(503, `The site ${server.az}, which has the console, does not answer.`)
    }
    throw error
  }
}

const LINES_MAX = 100_000
