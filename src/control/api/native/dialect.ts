import swagger from '@fastify/swagger'
import type { Api, Dialect } from '../http/dialect.ts'
import { backupRateRoutes } from './backup-rates.ts'
import { backupRoutes } from './backups.ts'
import { drillScheduleRoutes } from './drill-schedules.ts'
import { drillRoutes } from './drills.ts'
import { errorBody, NATIVE_COMMON, refusalOfFault } from './errors.ts'
import { arbitrationRoutes } from './arbitration.ts'
import { automaticFailoverRoutes } from './automatic-failover.ts'
import { divergenceRoutes } from './divergences.ts'
import { failoverRoutes } from './failover.ts'
import { groupRoutes } from './groups.ts'
import { healthRoutes } from './health.ts'
import { identityRoutes } from './identity.ts'
import { eventRoutes, operationRoutes, stateRoutes } from './operations.ts'
import { preflightRoutes } from './preflight.ts'
import { replicaRoutes } from './replicas.ts'
import { recoveryRoutes } from './recovery.ts'
import { quotaRoutes } from './quotas.ts'
import type { NativeServices } from './services.ts'
import { snapshotRoutes } from './snapshots.ts'
import { verifyRoutes } from './verify.ts'
import { volumeTypeRoutes } from './volume-types.ts'
import { volumeRoutes } from './volumes.ts'

/** Our own API, for the command line, the console and monitoring. It serves its own description. */
export function nativeDialect(services: NativeServices): Dialect {
  return {
    name: 'native',
    prefixes: ['/api'],
    common: NATIVE_COMMON,
    envelope: errorBody,
    fault: refusalOfFault,
    mount(app) {
      void app.register(swagger, { openapi: documentHead(services) })
      // The description is made from routes that are declared after the plugin is loaded.
      void app.register((inner, _options, done) => {
        const api = inner as unknown as Api
        healthRoutes(api, services)
        identityRoutes(api, services)
        quotaRoutes(api, services)
        volumeRoutes(api, services)
        volumeTypeRoutes(api, services)
        groupRoutes(api, services)
        arbitrationRoutes(api, services)
        preflightRoutes(api, services)
        failoverRoutes(api, services)
        recoveryRoutes(api, services)
        automaticFailoverRoutes(api, services)
        verifyRoutes(api, services)
        divergenceRoutes(api, services)
        snapshotRoutes(api, services)
        replicaRoutes(api, services)
        backupRoutes(api, services)
        backupRateRoutes(api, services)
        drillRoutes(api, services)
        drillScheduleRoutes(api, services)
        operationRoutes(api, services)
        eventRoutes(api, services)
        stateRoutes(api, services)
        api.get(
          '/api/v1/openapi.json',
          { config: { access: 'open' }, schema: { summary: 'This document', tags: ['health'] } },
          async () => inner.swagger(),
        )
        done()
      })
    },
  }
}

const documentHead = ({ version, publicUrl }: NativeServices) => ({
  openapi: '3.1.0' as const,
  info: {
    title: 'Holdfast',
    version,
    description:
      'Health, identity, connections, status and events. Volumes and protection groups are managed through the APIs under /v1 and /v2.',
  },
  servers: [{ url: publicUrl }],
  components: {
    securitySchemes: {
      token: { type: 'apiKey' as const, in: 'header' as const, name: 'X-Auth-Token' },
    },
  },
  security: [{ token: [] }],
})
