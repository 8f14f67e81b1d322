import Type from 'typebox'
import type { AccessKey, GrantScope, User } from '#control/identity/manage.ts'
import type { Role } from '#control/identity/principal.ts'
import type { ProjectRow } from '#control/store/tables/identity.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, principalOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import { ById, describe, nullable, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'

/* Users, projects, roles and access keys, for administrators of the domain. */

const base = '/api/v1/identity'
const TAG = 'identity'
const RoleName = Type.Union([
  Type.Literal('admin'),
  Type.Literal('operator'),
  Type.Literal('reader'),
])
const ScopeName = Type.Union([Type.Literal('project'), Type.Literal('domain')])
const Id = Type.String({ minLength: 1, maxLength: 64 })
/** The catalogue's own rules on names and passwords answer with their own codes. */
const Text = Type.String({ maxLength: 1_000 })

const UserView = Type.Object({
  id: Type.String(),
  name: Type.String(),
  enabled: Type.Boolean(),
  default_project_id: nullable(Type.String()),
  created_at: Time,
  password_changed_at: Time,
})
const ProjectView = Type.Object({
  id: Type.String(),
  name: Type.String(),
  description: Type.String(),
  enabled: Type.Boolean(),
  created_at: Time,
})
const GrantView = Type.Object({ scope: ScopeName, scope_id: Type.String(), role: RoleName })
const KeyView = Type.Object({
  access_key: Type.String(),
  project_id: nullable(Type.String()),
  description: Type.String(),
  created_at: Time,
})

const userView = (user: User) => ({
  id: user.id,
  name: user.name,
  enabled: user.enabled === 1,
  default_project_id: user.default_project,
  created_at: timeOf(user.created_at),
  password_changed_at: timeOf(user.password_changed_at),
})

const projectView = (project: ProjectRow) => ({
  id: project.id,
  name: project.name,
  description: project.description,
  enabled: project.enabled === 1,
  created_at: timeOf(project.created_at),
})

const keyView = (key: AccessKey) => ({
  access_key: key.id,
  project_id: key.project,
  description: key.description,
  created_at: timeOf(key.created_at),
})

export function identityRoutes(app: Api, services: NativeServices): void {
  const { management } = services.identity
  const admin = (audit?: string) => ({
    config: { access: 'administrator' as const, ...(audit === undefined ? {} : { audit }) },
  })
  const domainOf = (request: Parameters<typeof principalOf>[0]) => principalOf(request).domain.id

  // ---------------------------------------------------------------- users

  app.get(
    `${base}/users`,
    {
      ...admin(),
      schema: describe('List users', TAG, Type.Object({ users: Type.Array(UserView) }), {}),
    },
    async (request) => ({ users: (await management.listUsers(domainOf(request))).map(userView) }),
  )
  const NewUser = Type.Object({
    name: Text,
    password: Text,
    default_project_id: optional(Id),
  })
  const OneUser = Type.Object({ user: UserView })
  app.post(
    `${base}/users`,
    {
      ...admin('user.create'),
      schema: describe('Create a user', TAG, OneUser, { body: NewUser }, 201),
    },
    async (request, reply) => {
      const { name, password, default_project_id } = request.body
      const defaultProject = default_project_id ?? null
      const user = await management.createUser(domainOf(request), {
        name,
        password,
        defaultProject,
      })
      auditTarget(request, user.id, { name })
      return await reply.code(201).send({ user: userView(user) })
    },
  )
  app.get(
    `${base}/users/:id`,
    { ...admin(), schema: describe('Show a user', TAG, OneUser, { params: ById }) },
    async (request) => ({
      user: userView(await management.showUser(domainOf(request), request.params.id)),
    }),
  )
  const Enabled = Type.Object({ enabled: Type.Boolean() })
  app.put(
    `${base}/users/:id`,
    {
      ...admin('user.enable'),
      schema: describe('Enable or disable a user; disabling ends its tokens', TAG, OneUser, {
        params: ById,
        body: Enabled,
      }),
    },
    async (request) => {
      const { id } = request.params
      const { enabled } = request.body
      auditTarget(request, id, { enabled })
      return { user: userView(await management.enableUser(domainOf(request), id, enabled)) }
    },
  )
  app.put(
    `${base}/users/:id/password`,
    {
      ...admin('user.password'),
      schema: describe('Set the password of a user; ends its tokens', TAG, Type.Object({}), {
        params: ById,
        body: Type.Object({ password: Text }),
      }),
    },
    async (request) => {
      const { id } = request.params
      auditTarget(request, id)
      await management.setPassword(domainOf(request), id, request.body.password)
      return {}
    },
  )
  app.delete(
    `${base}/users/:id`,
    {
      ...admin('user.delete'),
      schema: describe('Delete a user with its roles, keys and tokens', TAG, Type.Object({}), {
        params: ById,
      }),
    },
    async (request) => {
      const { id } = request.params
      auditTarget(request, id)
      await management.deleteUser(domainOf(request), id)
      return {}
    },
  )

  // ---------------------------------------------------------------- roles

  const GrantPath = Type.Object({ id: Id, scope: ScopeName, scope_id: Id })
  app.get(
    `${base}/users/:id/roles`,
    {
      ...admin(),
      schema: describe(
        'List the roles of a user',
        TAG,
        Type.Object({ roles: Type.Array(GrantView) }),
        { params: ById },
      ),
    },
    async (request) => {
      const grants = await management.listGrants(domainOf(request), request.params.id)
      return {
        roles: grants.map(({ scope, scope_id, role }) => ({
          scope: scope as GrantScope,
          scope_id,
          role: role as Role,
        })),
      }
    },
  )
  app.put(
    `${base}/users/:id/roles/:scope/:scope_id`,
    {
      ...admin('role.grant'),
      schema: describe(
        'Give a user a role in a project or in the whole domain, in place of the one it had there',
        TAG,
        Type.Object({}),
        { params: GrantPath, body: Type.Object({ role: RoleName }) },
      ),
    },
    async (request) => {
      const { id, scope, scope_id } = request.params
      const { role } = request.body
      auditTarget(request, id, { scope, scope_id, role })
      await management.grant(domainOf(request), id, scope, scope_id, role)
      return {}
    },
  )
  app.delete(
    `${base}/users/:id/roles/:scope/:scope_id`,
    {
      ...admin('role.revoke'),
      schema: describe('Take the role in a project or in the domain', TAG, Type.Object({}), {
        params: GrantPath,
      }),
    },
    async (request) => {
      const { id, scope, scope_id } = request.params
      auditTarget(request, id, { scope, scope_id })
      await management.revoke(domainOf(request), id, scope, scope_id)
      return {}
    },
  )

  // ---------------------------------------------------------------- projects

  app.get(
    `${base}/projects`,
    {
      ...admin(),
      schema: describe(
        'List projects',
        TAG,
        Type.Object({ domain_id: Type.String(), projects: Type.Array(ProjectView) }),
        {},
      ),
    },
    async (request) => {
      const domain_id = domainOf(request)
      const projects = (await management.listProjects(domain_id)).map(projectView)
      return { domain_id, projects }
    },
  )
  app.post(
    `${base}/projects`,
    {
      ...admin('project.create'),
      schema: describe(
        'Create a project; name it REGION or REGION_SOMETHING, clients read the region from it',
        TAG,
        Type.Object({ project: ProjectView }),
        { body: Type.Object({ name: Text, description: optional(Text) }) },
        201,
      ),
    },
    async (request, reply) => {
      const { name, description } = request.body
      const project = await management.createProject(domainOf(request), name, description ?? '')
      auditTarget(request, project.id, { name })
      return await reply.code(201).send({ project: projectView(project) })
    },
  )
  app.delete(
    `${base}/projects/:id`,
    {
      ...admin('project.delete'),
      schema: describe('Delete a project without volumes and groups', TAG, Type.Object({}), {
        params: ById,
      }),
    },
    async (request) => {
      const { id } = request.params
      auditTarget(request, id)
      await management.deleteProject(domainOf(request), id)
      return {}
    },
  )

  // ---------------------------------------------------------------- access keys

  app.get(
    `${base}/users/:id/access-keys`,
    {
      ...admin(),
      schema: describe(
        'List the access keys of a user',
        TAG,
        Type.Object({ access_keys: Type.Array(KeyView) }),
        { params: ById },
      ),
    },
    async (request) => {
      const keys = await management.listAccessKeys(domainOf(request), request.params.id)
      return { access_keys: keys.map(keyView) }
    },
  )
  app.post(
    `${base}/users/:id/access-keys`,
    {
      ...admin('access-key.create'),
      schema: describe(
        'Create an access key; its secret is shown this once',
        TAG,
        Type.Object({ access_key: KeyView, secret_key: Type.String() }),
        {
          params: ById,
          body: Type.Object({ project_id: optional(Id), description: optional(Text) }),
        },
        201,
      ),
    },
    async (request, reply) => {
      const { project_id, description } = request.body
      const { key, secret } = await management.createAccessKey(
        domainOf(request),
        request.params.id,
        { project: project_id ?? null, description: description ?? '' },
      )
      auditTarget(request, key.id, { user: request.params.id })
      return await reply.code(201).send({ access_key: keyView(key), secret_key: secret })
    },
  )
  const KeyPath = Type.Object({ id: Id, access_key: Id })
  app.delete(
    `${base}/users/:id/access-keys/:access_key`,
    {
      ...admin('access-key.delete'),
      schema: describe('Delete an access key', TAG, Type.Object({}), { params: KeyPath }),
    },
    async (request) => {
      const { id, access_key } = request.params
      auditTarget(request, access_key, { user: id })
      await management.deleteAccessKey(domainOf(request), id, access_key)
      return {}
    },
  )
}
