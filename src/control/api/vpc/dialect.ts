import type { Dialect } from '../http/dialect.ts'
import { errorBody, VPC_CODES, type VpcCode } from './errors.ts'
import { portRoutes } from './ports.ts'
import { securityGroupRoutes } from './security-groups.ts'
import { subnetRoutes } from './subnets.ts'
import { vpcRoutes } from './vpcs.ts'
import type { VpcServices } from './services.ts'

/**
 * The VPC API, version 1, and one read of version 3. Its paths begin like those of other services, so it claims no
 * prefix: what is unknown there is answered by them.
 */
export function vpcDialect(services: VpcServices): Dialect {
  return {
    name: 'vpc',
    prefixes: [],
    common: {
      unauthenticated: common('VPC.0009'),
      foreign_project: common('VPC.0007'),
      forbidden: common('VPC.0103'),
      malformed_body: common('VPC.0101'),
      invalid_input: common('VPC.0101'),
      too_large: common('VPC.0413'),
      unknown_path: common('VPC.0404'),
      method_not_allowed: common('VPC.0405'),
      too_many_requests: common('VPC.0429'),
      unavailable: common('VPC.0503'),
      internal: common('VPC.0500'),
    },
    envelope: errorBody,
    mount(app) {
      vpcRoutes(app, services)
      subnetRoutes(app, services)
      portRoutes(app, services)
      securityGroupRoutes(app, services)
    },
  }
}

const common = (code: VpcCode) => ({ status: VPC_CODES[code][0], code })
