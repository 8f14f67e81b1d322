import type { ComputeServices } from '../compute/services.ts'
import type { Dialect } from '../http/dialect.ts'
import { actionRoutes } from './actions.ts'
import { attachmentRoutes, interfaceRoutes } from './attachments.ts'
import { common, errorBody } from './errors.ts'
import { flavorRoutes } from './flavors.ts'
import { keypairRoutes } from './keypairs.ts'
import { metadataRoutes } from './metadata.ts'
import { serverRoutes } from './servers.ts'
import { surroundingRoutes } from './surroundings.ts'
import { tagRoutes } from './tags.ts'
import { versionHeaders, versionRoutes } from './versions.ts'

/** The server API of OpenStack, version 2.1 with microversions up to 2.60. See docs/compatibility/compute.md. */
export function novaDialect(services: ComputeServices): Dialect {
  return {
    name: 'nova',
    prefixes: ['/v2.1'],
    common: {
      unauthenticated: common(401),
      foreign_project: common(403),
      forbidden: common(403),
      malformed_body: common(400),
      invalid_input: common(400),
      too_large: common(413),
      unknown_path: common(404),
      method_not_allowed: common(405),
      too_many_requests: common(429),
      unavailable: common(503),
      internal: common(500),
    },
    envelope: errorBody,
    mount(app) {
      versionHeaders(app)
      versionRoutes(app, services)
      serverRoutes(app, services)
      actionRoutes(app, services)
      attachmentRoutes(app, services)
      interfaceRoutes(app, services)
      metadataRoutes(app, services)
      tagRoutes(app, services)
      flavorRoutes(app, services)
      keypairRoutes(app, services)
      surroundingRoutes(app, services)
    },
  }
}
