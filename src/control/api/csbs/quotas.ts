import { derivedId } from '#base/ids.ts'
import { quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import { one, type Query } from '../backup/lists.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Api } from '../http/dialect.ts'
import { projectOf } from '../http/request.ts'

/* How much of its quotas a project has used, and its settings. */

export function quotaRoutes(app: Api, { store }: BackupApiServices): void {
  app.get('/v1/:project_id/quotas', async (request) => {
    const project = projectOf(request)
    const { db } = store
    const kinds = [
      ['backup_capacity', { unit: 'GB' }],
      ['backups', {}],
    ] as const
    const resources = await Promise.all(
      kinds.map(async ([type, more]) => ({
        type,
        quota: await quotaLimit(db, project, type),
        used: await quotaUsed(db, project, type),
        ...more,
      })),
    )
    return { quotas: { resources } }
  })

  // There is no dedicated storage here.
  app.get('/v1/:project_id/protect_config', async (request) => {
    const project = projectOf(request)
    const wanted = one(request.query as Query, 'dec_project_id')
    return {
      protect_config: {
        id: derivedId(`protect config of ${wanted ?? project}`),
        project_id: project,
        dec_enabled: false,
        dec_capacity: 0,
        dec_used_capacity: 0,
      },
    }
  })
}
