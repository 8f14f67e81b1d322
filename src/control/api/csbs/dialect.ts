import { BACKUP_COMMON, flatError } from '../backup/errors.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Dialect } from '../http/dialect.ts'
import { backupRoutes } from './backups.ts'
import { policyRoutes } from './policies.ts'
import { quotaRoutes } from './quotas.ts'
import { replicationRoutes } from './replication.ts'
import { resourceRoutes } from './resources.ts'
import { tagRoutes } from './tags.ts'

/**
 * Backups of servers under the service's own forms: flat errors. Paths that it has in common with its ancestor are in the dialect
 * `karbor`, whose errors both kinds of clients read.
 */
export function csbsDialect(services: BackupApiServices): Dialect {
  return {
    name: 'csbs',
    // Nothing below /v1 is told from other services there by its beginning.
    prefixes: [],
    common: BACKUP_COMMON,
    envelope: flatError,
    mount(app) {
      resourceRoutes(app, services)
      backupRoutes(app, services)
      policyRoutes(app, services)
      replicationRoutes(app, services)
      tagRoutes(app, services)
      quotaRoutes(app, services)
    },
  }
}
