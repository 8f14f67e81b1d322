import {
  changeServer,
  type NewServerNic,
  requestServerDeletion,
  requestServers,
} from '#control/operations/definitions/servers/server-requests.ts'
import { findSubnet, findVpc } from '#control/resources/networks.ts'
import { listVolumeTypes } from '#control/resources/volumes.ts'
import { FLAVORS } from '#domain/flavor.ts'
import { inputWith } from '../compute/input.ts'
import { pageOfServers } from '../compute/lists.ts'
import type { ComputeServices } from '../compute/services.ts'
import { one, type ServerFilter } from '../compute/words.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, originOf, principalOf, projectOf } from '../http/request.ts'
import { cloudServer, ecsFlavor } from './codec.ts'
import { createRequest } from './create.ts'
import { badRequest, refusalOf } from './errors.ts'
import { ServerPath, serverView } from './lookup.ts'

/** `/v1/{project}/cloudservers`: servers as whole machines, every change a job. Creation is under v1.1, too. */
type Query = Readonly<Record<string, unknown>>

const LIMIT_DEFAULT = 25
const LIMIT_MAX = 1_000

const input = inputWith(badRequest)

export function serverRoutes(app: Api, services: ComputeServices): void {
  const base = '/v1/:project_id/cloudservers'
  const { db } = services.store

  for (const version of ['v1', 'v1.1']) {
    app.post(
      `/${version}/:project_id/cloudservers`,
      { config: { audit: 'server.create' } },
      async (request, reply) => {
        const project = projectOf(request)
        const types = (await listVolumeTypes(db)).map(({ name }) => name)
        const { request: wanted, count, vpc, dryRun } = createRequest(request.body, types)
        await checkVpc(project, vpc, wanted.nics)
        if (dryRun) return await reply.code(202).send()
        const user = principalOf(request).user.id
        const outcome = await requestServers(services, { ...wanted, project, user }, count)
        if (!outcome.ok) throw creationRefusal(outcome.refusal)
        const ids = outcome.servers.map(({ id }) => id)
        auditTarget(request, ids.join(','))
        return { job_id: outcome.operation, serverIds: ids }
      },
    )
  }

  /** The request names the VPC beside its subnets: they have to agree. */
  async function checkVpc(project: string, vpc: string, nics: readonly NewServerNic[]) {
    if ((await findVpc(db, project, vpc)) === undefined) throw badRequest('vpcid: no such VPC.')
    for (const { subnet } of nics) {
      const row = subnet === null ? undefined : await findSubnet(db, project, subnet)
      if (row === undefined) throw refusalOf('SUBNET_UNKNOWN')
      if (row.vpc !== vpc) throw badRequest(`nics: subnet ${row.id} is not in the VPC.`)
    }
  }

  app.get(`${base}/detail`, async (request) => {
    const query = request.query as Query
    const limit = Math.min(wholeNumber(query, 'limit') || LIMIT_DEFAULT, LIMIT_MAX)
    // The offset counts pages, from 1; 0 is the first one as well.
    const from = (Math.max(wholeNumber(query, 'offset'), 1) - 1) * limit
    const page = await pageOfServers(db, projectOf(request), filterOf(query), (rows) =>
      rows.slice(from, from + limit),
    )
    return { servers: (await page.views()).map(cloudServer), count: page.count }
  })

  app.get(`${base}/flavors`, async (request) => {
    const az = one(request.query as Query, 'availability_zone')
    const offered = az === undefined || services.sites.includes(az)
    const origin = originOf(request, services)
    const project = projectOf(request)
    const flavors = offered ? FLAVORS : []
    return { flavors: flavors.map((one) => ecsFlavor(one, services.sites, origin, project)) }
  })

  app.get(`${base}/:server_id`, { schema: { params: ServerPath } }, async (request) => ({
    server: cloudServer(await serverView(services, projectOf(request), request.params.server_id)),
  }))

  app.put(
    `${base}/:server_id`,
    { schema: { params: ServerPath }, config: { audit: 'server.update' } },
    async (request) => {
      const project = projectOf(request)
      const { server_id: id } = request.params
      auditTarget(request, id)
      const server = input.members(request.body, 'server')
      if (input.filledText(server, 'user_data', USER_DATA_MAX) !== null) {
        throw badRequest('user_data: nothing here can hand it to a guest, so it is not accepted.')
      }
      const name = input.filledText(server, 'name', 128)
      const description = input.optionalText(server, 'description')
      const outcome = await changeServer(services, project, id, {
        ...(name === null ? {} : { name: name.trim() }),
        ...(description === null ? {} : { description }),
      })
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      return { server: cloudServer(await serverView(services, project, id)) }
    },
  )

  app.post(`${base}/delete`, { config: { audit: 'server.delete' } }, async (request) => {
    const body = input.members({ body: request.body }, 'body')
    const ids = serverIds(input.objects(body, 'servers').map((server) => input.text(server, 'id')))
    auditTarget(request, ids.join(','))
    const deleteVolumes = input.boolean(body, 'delete_volume', false)
    // There are no public addresses, so `delete_publicip` has nothing to do.
    const outcome = await requestServerDeletion(services, projectOf(request), ids, {
      deleteVolumes,
    })
    if (!outcome.ok) throw refusalOf(outcome.refusal)
    return { job_id: outcome.operation }
  })
}

const USER_DATA_MAX = 65_536
const SERVERS_MAX = 1_000

/** Ids of a batch: at least one, each once. */
export function serverIds(given: readonly string[]): string[] {
  const ids = [...new Set(given)]
  if (ids.length === 0) throw badRequest('servers: at least one is required.')
  if (ids.length > SERVERS_MAX) throw badRequest(`servers: at most ${SERVERS_MAX}.`)
  return ids
}

/** What is absent in the body of a creation is a mistake of the body, not an address that leads nowhere. */
function creationRefusal(refusal: Parameters<typeof refusalOf>[0]) {
  const plain = refusalOf(refusal)
  return plain.status === 404 ? badRequest(plain.message) : plain
}

function wholeNumber(query: Query, name: string): number {
  const text = one(query, name) ?? '0'
  if (!/^\d{1,9}$/.test(text)) throw badRequest(`${name}: must be a whole number.`)
  return Number(text)
}

function filterOf(query: Query): ServerFilter {
  const tag = one(query, 'tags')
  return {
    name: one(query, 'name'),
    status: one(query, 'status')?.toUpperCase(),
    flavor: one(query, 'flavor'),
    image: undefined,
    az: undefined,
    ip: one(query, 'ip'),
    ipExact: one(query, 'ip_eq'),
    changedSince: undefined,
    tags: (tag?.split(',') ?? []).map((text) => {
      const [key = '', ...rest] = text.split('=')
      return [key, rest.join('=')] as const
    }),
  }
}
