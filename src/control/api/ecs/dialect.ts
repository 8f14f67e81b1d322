import type { ComputeServices } from '../compute/services.ts'
import type { Dialect } from '../http/dialect.ts'
import { diskRoutes } from './disks.ts'
import { common, errorBody } from './errors.ts'
import { powerRoutes } from './power.ts'
import { serverRoutes } from './servers.ts'
import { tagRoutes } from './tags.ts'

/** The server API of public clouds, versions 1 and 1.1. Its jobs are those of the one job store, see sdrs/jobs.ts. */
export function ecsDialect(services: ComputeServices): Dialect {
  return {
    name: 'ecs',
    prefixes: ['/v1.1'],
    common: {
      unauthenticated: common('Ecs.0002'),
      foreign_project: common('Ecs.0003'),
      forbidden: common('Ecs.0003'),
      malformed_body: common('Ecs.0000'),
      invalid_input: common('Ecs.0005'),
      too_large: { status: 413, code: 'Ecs.0000' },
      unknown_path: common('Ecs.0404'),
      method_not_allowed: common('Ecs.0405'),
      too_many_requests: common('Ecs.0429'),
      unavailable: common('Ecs.0503'),
      internal: common('Ecs.0500'),
    },
    envelope: errorBody,
    mount(app) {
      serverRoutes(app, services)
      powerRoutes(app, services)
      diskRoutes(app, services)
      tagRoutes(app, services)
    },
  }
}
