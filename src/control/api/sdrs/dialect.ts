import { OPERATIONS_FULL } from '#control/operations/engine.ts'
import type { Dialect } from '../http/dialect.ts'
import { drillRoutes } from './drills.ts'
import { errorBody, sdrsErrors, SDRS_CODES, type SdrsCode } from './errors.ts'
import { groupRoutes } from './groups.ts'
import { instancePartRoutes } from './instance-parts.ts'
import { instanceTagRoutes } from './instance-tags.ts'
import { instanceRoutes } from './instances.ts'
import { pairRoutes } from './pairs.ts'
import { rpoRoutes } from './rpo.ts'
import type { SdrsServices } from './services.ts'
import { surroundingRoutes } from './surroundings.ts'
import { taskRoutes } from './task-center.ts'

export interface SdrsOptions {
  /** See ErrorOptions. Default 404. */
  readonly absentStatus?: 404 | 400
}

/** The disaster recovery API, version 1. */
export function sdrsDialect(services: SdrsServices, options: SdrsOptions = {}): Dialect {
  const refuse = sdrsErrors({ absentStatus: options.absentStatus ?? 404 })
  const context = { services, refuse }
  return {
    name: 'sdrs',
    prefixes: ['/v1'],
    common: {
      unauthenticated: common('SDRS.0002'),
      foreign_project: common('SDRS.0001'),
      forbidden: common('SDRS.0005'),
      malformed_body: common('SDRS.0201'),
      invalid_input: common('SDRS.0201'),
      too_large: { status: 413, code: 'SDRS.0201' },
      unknown_path: { status: 404, code: 'APIGW.0101' },
      method_not_allowed: { status: 405, code: 'APIGW.0101' },
      too_many_requests: { status: 429, code: 'APIGW.0308' },
      unavailable: common('SDRS.0008'),
      internal: common('SDRS.0013'),
    },
    envelope: errorBody,
    fault: ({ kind }) =>
      kind.code === OPERATIONS_FULL.code ? refuse('SDRS.0404', `${kind.text} ${kind.hint}`) : null,
    mount(app) {
      surroundingRoutes(app, context)
      groupRoutes(app, context)
      pairRoutes(app, context)
      instanceRoutes(app, context)
      instancePartRoutes(app, context)
      instanceTagRoutes(app, context)
      taskRoutes(app, context)
      rpoRoutes(app, context)
      drillRoutes(app, context)
    },
  }
}

const common = (code: SdrsCode) => ({ status: SDRS_CODES[code][0], code })
