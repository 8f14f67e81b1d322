import type { Api } from '../http/dialect.ts'
import { originOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import type { IamServices } from './services.ts'

/* Version documents. They are read before the first login, so they are open, and their links are what the client uses
 * from then on, so they follow the address it came by.
 *
 * The list at the root has to please clients of three services at once: keystoneauth looks for an identity entry whose id
 * begins with v3, and for the volume service's v2; the disaster recovery SDK looks for v1 and wants all members. */

const UPDATED = '2023-04-04T00:00:00Z'

const identityVersion = (origin: string, status: string) => ({
  id: 'v3.14',
  status,
  updated: UPDATED,
  links: [{ rel: 'self', href: `${origin}/v3/` }],
  'media-types': [{ base: 'application/json', type: 'application/vnd.openstack.identity-v3+json' }],
})

export function versionRoutes(app: Api, services: IamServices): void {
  const open = { config: { access: 'open' } } as const

  app.get('/', open, async (request) => {
    const origin = originOf(request, services)
    const identity = { ...identityVersion(origin, 'CURRENT'), version: '', min_version: '' }
    return { versions: [identity, ...services.versions(origin)] }
  })
  app.get('/v3', open, async (request) => ({
    version: identityVersion(originOf(request, services), 'stable'),
  }))
  // Clients that find a v2 of identity would try to log in there.
  app.get('/v2.0', open, async () => {
    throw refuse(404, 'Version 2 of the identity service is not offered; use v3.')
  })
}
