import type { Dialect } from '../http/dialect.ts'
import { cloudVolumeRoutes } from './cloud-volumes.ts'
import { consistencyGroupRoutes } from './consistency-groups.ts'
import { EVS_CODES, type EvsCode, errorBody } from './errors.ts'
import { replicationRoutes } from './replications.ts'
import type { EvsServices } from './services.ts'
import { cloudSnapshotRoutes, snapshotRoutes } from './snapshots.ts'
import { surroundingRoutes, versionRoutes } from './surroundings.ts'
import { tagRoutes } from './tags.ts'
import { metadataRoutes, retypeRoute, volumeRoutes } from './volumes.ts'

/** The volume API, version 2, and the part of it that clients ask for under version 3. */
export function evsDialect(services: EvsServices): Dialect {
  return {
    name: 'evs',
    prefixes: ['/v2'],
    common: {
      unauthenticated: common('EVS.5401'),
      foreign_project: common('EVS.0001'),
      forbidden: common('EVS.1027'),
      malformed_body: common('EVS.5400'),
      invalid_input: common('EVS.5400'),
      too_large: { status: 413, code: 'EVS.5400' },
      unknown_path: common('EVS.5404'),
      method_not_allowed: { status: 405, code: 'EVS.5400' },
      too_many_requests: { status: 429, code: 'EVS.5413' },
      unavailable: common('EVS.5503'),
      internal: common('EVS.5500'),
    },
    envelope: errorBody,
    mount(app) {
      versionRoutes(app, services)
      for (const version of ['v2', 'v3'] as const) {
        volumeRoutes(app, services, version)
        metadataRoutes(app, services, version)
        retypeRoute(app, services, version)
        surroundingRoutes(app, services, version)
        snapshotRoutes(app, services, version)
      }
      cloudVolumeRoutes(app, services)
      tagRoutes(app, services)
      cloudSnapshotRoutes(app, services)
      replicationRoutes(app, services)
      consistencyGroupRoutes(app, services)
    },
  }
}

const common = (code: EvsCode) => ({ status: EVS_CODES[code][0], code })
