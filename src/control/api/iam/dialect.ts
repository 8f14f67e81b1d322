import type { Dialect } from '../http/dialect.ts'
import { errorBody, IAM_COMMON } from './errors.ts'
import { scopeRoutes } from './scopes.ts'
import type { IamServices } from './services.ts'
import { tokenRoutes } from './tokens.ts'
import { versionRoutes } from './versions.ts'

/** The identity API, version 3: as much of it as clients of the other services need. */
export function iamDialect(services: IamServices): Dialect {
  return {
    name: 'iam',
    prefixes: ['/', '/v3'],
    common: IAM_COMMON,
    envelope: errorBody,
    mount(app) {
      versionRoutes(app, services)
      tokenRoutes(app, services)
      scopeRoutes(app, services)
    },
  }
}
