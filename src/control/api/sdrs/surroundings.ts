import Type from 'typebox'
import { listDomains, quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import { QUOTAS } from '#domain/quota.ts'
import type { Api } from '../http/dialect.ts'
import { originOf, projectOf } from '../http/request.ts'
import { domainObject } from './codec.ts'
import type { SdrsContext } from './services.ts'

/** Versions, domains and quotas. */
const UPDATED = '2018-05-30T15:00:00Z'

/** The entry of this service in a list of versions. */
export const sdrsVersion = (origin: string) => ({
  id: 'v1',
  links: [{ href: `${origin}/v1`, rel: 'self' }],
  version: '',
  min_version: '',
  status: 'CURRENT',
  updated: UPDATED,
})

export function surroundingRoutes(app: Api, { services }: SdrsContext): void {
  app.get('/v1', { config: { access: 'open' } }, async (request) => ({
    version: sdrsVersion(originOf(request, services)),
  }))

  app.get(
    '/v1/:project_id/active-domains',
    { schema: { params: Type.Object({ project_id: Type.String() }) } },
    async () => ({ domains: (await listDomains(services.store.db)).map(domainObject) }),
  )

  app.get('/v1/:project_id/sdrs/quotas', async (request) => {
    const project = projectOf(request)
    const { db } = services.store
    const kinds = ['server_groups', 'replications'] as const
    const resources = await Promise.all(
      kinds.map(async (type) => ({
        type,
        used: await quotaUsed(db, project, type),
        quota: await quotaLimit(db, project, type),
        min: QUOTAS[type].min,
        max: QUOTAS[type].max,
      })),
    )
    return { quotas: { resources } }
  })
}
