import type { FastifyRequest } from 'fastify'
import type { Api } from '../http/dialect.ts'
import { originOf } from '../http/request.ts'
import type { ComputeServices } from '../compute/services.ts'
import { badRequest, refuse } from './errors.ts'

/* Microversions. Every one that is advertised is accepted and answered with the same superset of members, because clients name
 * versions that they never asked about: one sends 2.55 always, another the highest of its own. Above 2.60 the attachments and from 2.61
 * the flavors have other shapes, so the list ends there. A request without the header is one of 2.1.
 *
 * Only statuses that a client could not know otherwise depend on the number: keypairs are made with 201 from 2.2 on, before with 200.
 */
export const MINOR_MAX = 60
const MINOR_MIN = 1

/** Older name first: a client that sends both sends the same in them. */
const HEADERS = ['x-openstack-nova-api-version', 'openstack-api-version'] as const

/** N of 2.N that the request asks for. Throws 400 for what is no version, 406 for one that there is not. */
export function minorOf(request: Pick<FastifyRequest, 'headers'>): number {
  const [old, current] = HEADERS.map((name) => request.headers[name]) as (string | undefined)[]
  const text = old ?? serviceVersion(current)
  if (text === undefined || text === '') return MINOR_MIN
  if (text === 'latest') return MINOR_MAX
  const [, major, minor] = /^(\d{1,4})\.(\d{1,4})$/.exec(text) ?? []
  if (major === undefined || minor === undefined) {
    throw badRequest(`${text} is not a version. It must be like 2.${MINOR_MAX}.`)
  }
  if (major !== '2' || Number(minor) < MINOR_MIN || Number(minor) > MINOR_MAX) {
    throw refuse(
      406,
      `Version ${text} is not supported. Minimum is 2.${MINOR_MIN} and maximum is 2.${MINOR_MAX}.`,
    )
  }
  return Number(minor)
}

/** `compute 2.60`, or a list of services with their versions. */
function serviceVersion(header: string | undefined): string | undefined {
  return header
    ?.split(',')
    .map((part) => part.trim().split(/\s+/))
    .find(([service]) => service === 'compute')?.[1]
}

/** Says in every answer of this dialect which version was applied. */
export function versionHeaders(app: Api): void {
  app.addHook('onRequest', async (_request, reply) => {
    void reply.header('vary', 'OpenStack-API-Version, X-OpenStack-Nova-API-Version')
  })
  app.addHook('preValidation', async (request, reply) => {
    if (request.is404 || request.routeOptions.config.access === 'open') return
    const version = `2.${minorOf(request)}`
    void reply
      .header('x-openstack-nova-api-version', version)
      .header('openstack-api-version', `compute ${version}`)
  })
}

const UPDATED = '2013-07-23T11:33:21Z'

export function versionRoutes(app: Api, services: ComputeServices): void {
  app.get('/v2.1', { config: { access: 'open' } }, async (request) => ({
    version: {
      id: 'v2.1',
      status: 'CURRENT',
      version: `2.${MINOR_MAX}`,
      min_version: `2.${MINOR_MIN}`,
      updated: UPDATED,
      links: [{ rel: 'self', href: `${originOf(request, services)}/v2.1/` }],
      'media-types': [
        {
          base: 'application/json',
          type: 'application/vnd.openstack.compute+json;version=2.1',
        },
      ],
    },
  }))
}
