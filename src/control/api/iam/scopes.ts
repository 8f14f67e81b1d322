import Type from 'typebox'
import type { FastifyRequest } from 'fastify'
import { isFault } from '#base/fault.ts'
import { findDomain, findProject, projectsOfUser } from '#control/identity/directory.ts'
import { NAME_TAKEN, NAME_UNFIT } from '#control/identity/manage.ts'
import type { ProjectRow } from '#control/store/tables/identity.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, originOf, principalOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import { domainObject, listLinks, projectObject } from './codec.ts'
import { refuse } from './errors.ts'
import type { IamServices } from './services.ts'

/** The catalogue, and the projects, domains and regions that a caller can see. */
export function scopeRoutes(app: Api, services: IamServices): void {
  const user = { config: { access: 'user' } } as const
  const selfOf = (request: FastifyRequest) => originOf(request, services) + request.url

  app.get('/v3/auth/catalog', user, async (request) => {
    const { project, role, by } = principalOf(request)
    const named = request.headers['x-project-id']
    const foreign = by === 'signature' ? named !== undefined : role === null
    if (project === null && foreign) {
      throw refuse(403, 'The token or key is not bound to a project or domain.')
    }
    const catalog = services.catalogue(originOf(request, services), project?.id ?? null)
    return { catalog, links: listLinks(selfOf(request)) }
  })

  /** Projects that the caller may know of: all of the domain for its administrators, else those with a role. */
  async function visibleProjects(request: FastifyRequest): Promise<ProjectRow[]> {
    const principal = principalOf(request)
    if (principal.domainRole === 'admin') {
      return await services.identity.management.listProjects(principal.domain.id)
    }
    return await projectsOfUser(services.store.db, principal.user.id)
  }

  app.get('/v3/auth/projects', user, async (request) => {
    const origin = originOf(request, services)
    const rows = await projectsOfUser(services.store.db, principalOf(request).user.id)
    return {
      projects: rows.map((row) => projectObject(row, origin)),
      links: listLinks(selfOf(request)),
    }
  })

  const ByName = Type.Object({ name: Type.Optional(Type.String()) })
  app.get('/v3/auth/domains', { ...user, schema: { querystring: ByName } }, async (request) => {
    const { name } = request.query
    const row = await findDomain(services.store.db, { id: principalOf(request).domain.id })
    const rows = row === undefined || (name !== undefined && row.name !== name) ? [] : [row]
    const origin = originOf(request, services)
    return {
      domains: rows.map((one) => domainObject(one, origin)),
      links: listLinks(selfOf(request)),
    }
  })

  const Filter = Type.Object({
    name: Type.Optional(Type.String()),
    domain_id: Type.Optional(Type.String()),
    parent_id: Type.Optional(Type.String()),
    enabled: Type.Optional(Type.String()),
    is_domain: Type.Optional(Type.String()),
    page: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000_000 })),
    per_page: Type.Optional(Type.Integer({ minimum: 1, maximum: 5_000 })),
  })
  app.get('/v3/projects', { ...user, schema: { querystring: Filter } }, async (request) => {
    const { name, domain_id, parent_id, enabled, is_domain, page, per_page } = request.query
    const matching = (await visibleProjects(request)).filter(
      (row) =>
        (name === undefined || row.name === name) &&
        (domain_id === undefined || row.domain === domain_id) &&
        (parent_id === undefined || row.domain === parent_id) &&
        (enabled === undefined || (row.enabled === 1) === isTrue(enabled)) &&
        (is_domain === undefined || !isTrue(is_domain)),
    )
    const size = per_page ?? matching.length
    const start = ((page ?? 1) - 1) * size
    const origin = originOf(request, services)
    return {
      projects: matching.slice(start, start + size).map((row) => projectObject(row, origin)),
      links: listLinks(selfOf(request)),
    }
  })

  const NewProject = Type.Object({
    project: Type.Object({
      name: Type.String(),
      description: optional(Type.String({ maxLength: 1_000 })),
    }),
  })
  app.post(
    '/v3/projects',
    {
      schema: { body: NewProject },
      config: { access: 'administrator', audit: 'project.create' },
    },
    async (request, reply) => {
      const { name, description } = request.body.project
      const { domain } = principalOf(request)
      try {
        const { management } = services.identity
        const row = await management.createProject(domain.id, name, description ?? '')
        auditTarget(request, row.id, { name })
        const project = projectObject(row, originOf(request, services))
        return await reply.code(201).send({ project })
      } catch (error) {
        if (isFault(error, NAME_TAKEN)) throw refuse(409, 'A project of this name exists.')
        if (isFault(error, NAME_UNFIT)) throw refuse(400, `name: ${NAME_UNFIT.hint}`)
        throw error
      }
    },
  )

  // The parameter is not called project_id: it is what the request is about, not what the caller must be bound to.
  const ById = Type.Object({ id: Type.String() })
  app.get('/v3/projects/:id', { ...user, schema: { params: ById } }, async (request) => {
    const row = await findProject(services.store.db, request.params.id)
    const visible =
      row !== undefined && (await visibleProjects(request)).some(({ id }) => id === row.id)
    if (row === undefined || !visible) throw refuse(404, 'There is no such project.')
    return { project: projectObject(row, originOf(request, services)) }
  })

  app.get('/v3/regions', { config: { access: 'open' } }, async (request) => {
    const { region: id } = services
    const region = {
      id,
      type: 'public',
      description: '',
      parent_region_id: null,
      locales: { 'en-us': id },
      links: { self: `${originOf(request, services)}/v3/regions/${id}` },
    }
    return { regions: [region], links: listLinks(selfOf(request)) }
  })
}

const isTrue = (text: string): boolean => text === '' || /^(?:true|1|yes)$/i.test(text)
