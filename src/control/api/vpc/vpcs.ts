import Type from 'typebox'
import {
  changeVpc,
  deleteVpc,
  provideDefaults,
  requestVpc,
} from '#control/operations/definitions/networks/network-requests.ts'
import { findVpc, listVpcs } from '#control/resources/networks.ts'
import type { VpcRow } from '#control/store/tables/networks.ts'
import type { Api } from '../http/dialect.ts'
import { type Query, valuesOf } from '../http/page.ts'
import type { Refusal } from '../http/refusal.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import type { VpcServices } from './services.ts'
import { refuse, type VpcCode } from './errors.ts'
import { pageRows } from './lists.ts'

export const VpcPath = Type.Object({ project_id: Type.String(), vpc_id: Type.String() })

/** Lengths in characters. */
export const Name = Type.String({ maxLength: 64 })
export const Description = Type.String({ maxLength: 255 })

const VpcBody = Type.Object({
  vpc: Type.Object({
    name: optional(Name),
    cidr: optional(Type.String()),
    description: optional(Description),
  }),
})

/** The range of a VPC that asks for none. */
const DEFAULT_RANGE = '192.168.0.0/16'

const vpcObject = ({ id, name, description, cidr }: VpcRow) => ({
  id,
  name,
  description,
  cidr,
  status: 'OK',
  routes: [],
  enable_shared_snat: false,
  enhanced_local_route: true,
  enterprise_project_id: '0',
})

export function vpcRoutes(app: Api, services: VpcServices): void {
  const base = '/v1/:project_id/vpcs'
  const { db } = services.store

  app.post(
    base,
    { schema: { body: VpcBody }, config: { audit: 'vpc.create' } },
    async (request) => {
      const { name, cidr, description } = request.body.vpc
      const outcome = await requestVpc(services, {
        project: projectOf(request),
        name: name ?? '',
        description: description ?? '',
        cidr: cidr === null || cidr === undefined || cidr === '' ? DEFAULT_RANGE : cidr,
      })
      if (!outcome.ok) throw vpcRefusal(outcome.refusal)
      auditTarget(request, outcome.vpc.id)
      return { vpc: vpcObject(outcome.vpc) }
    },
  )

  app.get(base, async (request) => {
    const project = projectOf(request)
    await provideDefaults(services, project)
    const query = request.query as Query
    const [ids, names] = [valuesOf(query, 'id'), valuesOf(query, 'name')]
    const rows = (await listVpcs(db, project)).filter(
      ({ id, name }) =>
        (ids.length === 0 || ids.includes(id)) && (names.length === 0 || names.includes(name)),
    )
    return { vpcs: pageRows(rows, query).map(vpcObject) }
  })

  const find = async (project: string, id: string): Promise<VpcRow> => {
    await provideDefaults(services, project)
    const row = await findVpc(db, project, id)
    if (row === undefined) throw refuse('VPC.0202')
    return row
  }

  const one = { schema: { params: VpcPath } }
  app.get(`${base}/:vpc_id`, one, async (request) => ({
    vpc: vpcObject(await find(projectOf(request), request.params.vpc_id)),
  }))

  // The only thing that one client reads in version 3: a VPC has one range here, never further ones.
  app.get('/v3/:project_id/vpc/vpcs/:vpc_id', one, async (request) => {
    const { id, name, cidr, description } = await find(projectOf(request), request.params.vpc_id)
    return { vpc: { id, name, cidr, description, status: 'ACTIVE', extend_cidrs: [], tags: [] } }
  })

  app.put(
    `${base}/:vpc_id`,
    { schema: { params: VpcPath, body: VpcBody }, config: { audit: 'vpc.update' } },
    async (request) => {
      const { vpc_id: id } = request.params
      auditTarget(request, id)
      const { name, cidr, description } = request.body.vpc
      const outcome = await changeVpc(services, projectOf(request), id, {
        ...(typeof name === 'string' ? { name } : {}),
        ...(typeof description === 'string' ? { description } : {}),
        ...(typeof cidr === 'string' && cidr !== '' ? { cidr } : {}),
      })
      if (!outcome.ok) throw vpcRefusal(outcome.refusal)
      return { vpc: vpcObject(outcome.vpc) }
    },
  )

  app.delete(
    `${base}/:vpc_id`,
    { schema: { params: VpcPath }, config: { audit: 'vpc.delete' } },
    async (request, reply) => {
      const { vpc_id: id } = request.params
      auditTarget(request, id)
      const outcome = await deleteVpc(services, projectOf(request), id)
      if (!outcome.ok) throw vpcRefusal(outcome.refusal)
      return await reply.code(204).send()
    },
  )
}

const REFUSALS = {
  RANGE: [
    'VPC.0101',
    'cidr: a network of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16 with a prefix from 8 to 28 and no bit set behind it.',
  ],
  QUOTA_VPCS: ['VPC.0114', 'The quota of VPCs is used up.'],
  VPC_UNKNOWN: ['VPC.0202', undefined],
  RANGE_IN_USE: ['VPC.0107', undefined],
  VPC_IS_DEFAULT: ['VPC.0105', undefined],
  VPC_IN_USE: ['VPC.0106', undefined],
} as const satisfies Record<string, readonly [VpcCode, string | undefined]>

function vpcRefusal(refusal: keyof typeof REFUSALS): Refusal {
  const [code, message] = REFUSALS[refusal]
  return refuse(code, message)
}
