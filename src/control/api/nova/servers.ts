import type { FastifyRequest } from 'fastify'
import {
  changeServer,
  requestServerDeletion,
  requestServers,
} from '#control/operations/definitions/servers/server-requests.ts'
import { viewServers } from '#control/resources/server-views.ts'
import { listSubnets } from '#control/resources/networks.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import { inputWith } from '../compute/input.ts'
import { pageOfServers } from '../compute/lists.ts'
import type { ComputeServices } from '../compute/services.ts'
import { one, type ServerFilter } from '../compute/words.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, originOf, principalOf, projectOf } from '../http/request.ts'
import { serverCreated, serverObject, serverRef } from './codec.ts'
import { createRequest } from './create.ts'
import { badRequest, notFound, refuse } from './errors.ts'
import { linkBase, refusalOf, ServerPath, serverView } from './lookup.ts'

/** `/v2.1/{project}/servers`, and the older path of creation. */
type Query = Readonly<Record<string, unknown>>

export const LIMIT_MAX = 1_000

const input = inputWith(badRequest)

export function serverRoutes(app: Api, services: ComputeServices): void {
  const base = '/v2.1/:project_id/servers'
  const { db } = services.store

  for (const path of [base, '/v2.1/:project_id/os-volumes_boot']) {
    app.post(path, { config: { audit: 'server.create' } }, async (request, reply) => {
      const project = projectOf(request)
      const { request: wanted, count, onlyNetwork } = createRequest(request.body)
      const nics = onlyNetwork ? await onTheOnlyNetwork(project, wanted.nics) : wanted.nics
      const user = principalOf(request).user.id
      const outcome = await requestServers(services, { ...wanted, nics, project, user }, count)
      if (!outcome.ok) throw creationRefusal(outcome.refusal)
      auditTarget(request, outcome.servers.map(({ id }) => id).join(','))
      const [view] = await viewServers(db, project, outcome.servers.slice(0, 1))
      if (view === undefined) throw notFound()
      const links = linkBase(request, services)
      void reply
        .code(202)
        .header('location', `${links.origin}/v2.1/${project}/servers/${view.server.id}`)
      return { server: serverCreated(view, links) }
    })
  }

  /** Nobody named one: the project's network if it has just one. */
  async function onTheOnlyNetwork<Nic extends { readonly subnet: string | null }>(
    project: string,
    nics: readonly Nic[],
  ): Promise<Nic[]> {
    const subnets = await listSubnets(db, project)
    if (subnets.length > 1) {
      throw refuse(409, 'The project has several networks: name one of them.')
    }
    return nics.map((nic) => ({ ...nic, subnet: subnets[0]?.id ?? null }))
  }

  app.get(base, async (request) => {
    const { page, more } = await select(request)
    const links = linkBase(request, services)
    return { servers: page.rows.map((row) => serverRef(row, links)), ...more }
  })

  app.get(`${base}/detail`, async (request) => {
    const { page, more } = await select(request)
    const links = linkBase(request, services)
    return { servers: (await page.views()).map((view) => serverObject(view, links)), ...more }
  })

  async function select(request: FastifyRequest) {
    const query = request.query as Query
    const limit = limitOf(query)
    const marker = one(query, 'marker')
    let left = 0
    const page = await pageOfServers(db, projectOf(request), filterOf(query), (rows) => {
      const ordered = inOrder(rows, query)
      const at = marker === undefined ? -1 : ordered.findIndex(({ id }) => id === marker)
      if (marker !== undefined && at < 0) throw badRequest(`marker: there is no server ${marker}.`)
      left = ordered.length - at - 1
      return ordered.slice(at + 1, at + 1 + limit)
    })
    const last = page.rows.at(-1)
    const more = left > limit && last !== undefined ? nextPage(request, services, last) : {}
    return { page, more }
  }

  app.get(`${base}/:server_id`, { schema: { params: ServerPath } }, async (request) => {
    const view = await serverView(services, projectOf(request), request.params.server_id)
    return { server: serverObject(view, linkBase(request, services)) }
  })

  app.put(
    `${base}/:server_id`,
    { schema: { params: ServerPath }, config: { audit: 'server.update' } },
    async (request) => {
      const project = projectOf(request)
      const { server_id: id } = request.params
      auditTarget(request, id)
      const server = input.members(request.body, 'server')
      const name = (server['name'] ?? null) === null ? null : input.text(server, 'name').trim()
      const described = Object.hasOwn(server, 'description')
      const outcome = await changeServer(services, project, id, {
        ...(name === null ? {} : { name }),
        ...(described ? { description: input.optionalText(server, 'description') } : {}),
      })
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      const view = await serverView(services, project, id)
      return { server: serverObject(view, linkBase(request, services)) }
    },
  )

  app.delete(
    `${base}/:server_id`,
    { schema: { params: ServerPath }, config: { audit: 'server.delete' } },
    async (request, reply) => {
      const { server_id: id } = request.params
      auditTarget(request, id)
      const options = { deleteVolumes: false }
      const outcome = await requestServerDeletion(services, projectOf(request), [id], options)
      if (!outcome.ok) throw refusalOf(outcome.refusal)
      return await reply.code(204).send()
    },
  )
}

/** What is absent in the body of a creation is a mistake of the body, not an address that leads nowhere. */
function creationRefusal(refusal: Parameters<typeof refusalOf>[0]) {
  const plain = refusalOf(refusal)
  return plain.status === 404 ? badRequest(plain.message) : plain
}

function filterOf(query: Query): ServerFilter {
  return {
    name: one(query, 'name'),
    status: one(query, 'status')?.toUpperCase(),
    flavor: one(query, 'flavor'),
    image: one(query, 'image'),
    az: one(query, 'availability_zone'),
    ip: one(query, 'ip'),
    ipExact: undefined,
    changedSince: timeOf(one(query, 'changes-since')),
    tags: (one(query, 'tags')?.split(',') ?? []).map((text) => {
      const [key = '', ...rest] = text.split('=')
      return [key, rest.join('=')] as const
    }),
  }
}

function timeOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const ms = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN
  if (Number.isNaN(ms)) throw badRequest('changes-since: must be a time like 2026-01-02T03:04:05Z.')
  return ms
}

function limitOf(query: Query): number {
  const text = one(query, 'limit')
  if (text === undefined) return LIMIT_MAX
  if (!/^\d{1,9}$/.test(text)) throw badRequest('limit: must be a whole number.')
  return Math.min(Number(text) || LIMIT_MAX, LIMIT_MAX)
}

/** Columns by the names that clients know them under. */
const SORT_KEYS: Readonly<Record<string, keyof ServerRow>> = {
  created_at: 'created_at',
  updated_at: 'updated_at',
  display_name: 'name',
  name: 'name',
  uuid: 'id',
  id: 'id',
  availability_zone: 'az',
  vm_state: 'status',
  status: 'status',
  instance_type_id: 'flavor',
  image_ref: 'image',
  key_name: 'key_name',
}

/** Ties end by id, so that pages are stable. */
function inOrder(rows: readonly ServerRow[], query: Query): readonly ServerRow[] {
  const keys = [query['sort_key'] ?? []].flat()
  if (keys.length === 0) return rows
  const directions = [query['sort_dir'] ?? []].flat()
  const orders = keys.map((key, index) => {
    const column = typeof key === 'string' ? SORT_KEYS[key] : undefined
    const direction = directions[index] ?? 'desc'
    if (column === undefined) throw badRequest('sort_key: there is no such column.')
    if (direction !== 'asc' && direction !== 'desc') throw badRequest('sort_dir: asc or desc.')
    return { column, sign: direction === 'asc' ? 1 : -1 }
  })
  return rows.toSorted((a, b) => {
    for (const { column, sign } of orders) {
      const [left, right] = [a[column] ?? '', b[column] ?? '']
      if (left !== right) return left < right ? -sign : sign
    }
    return a.id < b.id ? -1 : 1
  })
}

function nextPage(request: FastifyRequest, services: ComputeServices, last: ServerRow) {
  const next = new URL(request.url, originOf(request, services))
  next.searchParams.set('marker', last.id)
  return { servers_links: [{ rel: 'next', href: next.toString() }] }
}
