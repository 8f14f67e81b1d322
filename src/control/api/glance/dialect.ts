import type { Dialect } from '../http/dialect.ts'
import { errorBody, statusTitle } from './errors.ts'
import { imageRoutes } from './images.ts'
import type { GlanceServices } from './services.ts'

/** The image API, version 2, in two spellings: Glance's and the cloud's own. Images are there to be read. */
export function glanceDialect(services: GlanceServices): Dialect {
  return {
    name: 'glance',
    prefixes: ['/image', '/v2/images', '/v2/cloudimages'],
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
      imageRoutes(app, services)
    },
  }
}

const common = (status: number) => ({ status, code: statusTitle(status) })
