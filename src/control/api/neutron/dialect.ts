import type { Dialect } from '../http/dialect.ts'
import { errorBody, NEUTRON_TYPES, type NeutronType } from './errors.ts'
import { networkRoutes } from './networks.ts'
import { portRoutes } from './ports.ts'
import { securityGroupRoutes } from './security-groups.ts'
import { tagRoutes } from './tags.ts'
import type { NeutronServices } from './services.ts'

/** The network API, version 2.0: it shows what the VPC API manages, and changes security groups and tags. */
export function neutronDialect(services: NeutronServices): Dialect {
  return {
    name: 'neutron',
    prefixes: ['/v2.0'],
    common: {
      unauthenticated: common('Unauthorized'),
      foreign_project: common('ForeignProject'),
      forbidden: common('Forbidden'),
      malformed_body: common('HTTPBadRequest'),
      invalid_input: common('InvalidInput'),
      too_large: common('RequestTooLarge'),
      unknown_path: common('HTTPNotFound'),
      method_not_allowed: common('MethodNotAllowed'),
      too_many_requests: common('TooManyRequests'),
      unavailable: common('ServiceUnavailable'),
      internal: common('InternalError'),
    },
    envelope: errorBody,
    mount(app) {
      app.get('/v2.0/extensions', async () => ({ extensions: [] }))
      networkRoutes(app, services)
      portRoutes(app, services)
      securityGroupRoutes(app, services)
      tagRoutes(app, services)
    },
  }
}

const common = (type: NeutronType) => ({ status: NEUTRON_TYPES[type][0], code: type })
