import { BACKUP_COMMON, faultError } from '../backup/errors.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Dialect } from '../http/dialect.ts'
import { checkpointRoutes } from './checkpoints.ts'
import { logRoutes, verificationRoutes } from './logs.ts'
import { planRoutes } from './plans.ts'
import { processRoutes } from './processes.ts'
import { providerRoutes } from './providers.ts'
import { karborQuotaRoutes } from './quotas.ts'
import { restoreRoutes } from './restores.ts'
import { scheduleRoutes } from './schedules.ts'
import { triggerRoutes } from './triggers.ts'

/** What the backup service has from its ancestor, and what both have in common: errors begin with a fault and have the flat members behind it. */
export function karborDialect(services: BackupApiServices): Dialect {
  return {
    name: 'karbor',
    prefixes: [],
    common: BACKUP_COMMON,
    envelope: faultError,
    mount(app) {
      checkpointRoutes(app, services)
      restoreRoutes(app, services)
      planRoutes(app, services)
      providerRoutes(app, services)
      triggerRoutes(app, services)
      scheduleRoutes(app, services)
      logRoutes(app, services)
      verificationRoutes(app, services)
      karborQuotaRoutes(app, services)
      processRoutes(app, services)
    },
  }
}
