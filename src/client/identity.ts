import type { ApiSession } from './api.ts'

/* Users, projects, roles and access keys over Holdfast's own interface, for administrators of the domain. */

export type RoleName = 'admin' | 'operator' | 'reader'

export interface UserInfo {
  readonly id: string
  readonly name: string
  readonly enabled: boolean
  readonly default_project_id: string | null
  readonly created_at: string
  readonly password_changed_at: string
}

export interface ProjectInfo {
  readonly id: string
  readonly name: string
  readonly description: string
  readonly enabled: boolean
  readonly created_at: string
}

export interface RoleGrant {
  readonly scope: 'project' | 'domain'
  readonly scope_id: string
  readonly role: RoleName
}

export interface AccessKeyInfo {
  readonly access_key: string
  readonly project_id: string | null
  readonly description: string
  readonly created_at: string
}

const base = '/api/v1/identity'
const at = encodeURIComponent

export async function listUsers(api: ApiSession): Promise<readonly UserInfo[]> {
  const { users } = await api.get<{ users: UserInfo[] }>(`${base}/users`)
  return users
}

export async function createUser(
  api: ApiSession,
  spec: { readonly name: string; readonly password: string; readonly project?: string },
): Promise<UserInfo> {
  const { user } = await api.post<{ user: UserInfo }>(`${base}/users`, {
    name: spec.name,
    password: spec.password,
    ...(spec.project === undefined ? {} : { default_project_id: spec.project }),
  })
  return user
}

export async function enableUser(api: ApiSession, id: string, enabled: boolean): Promise<UserInfo> {
  const { user } = await api.put<{ user: UserInfo }>(`${base}/users/${at(id)}`, { enabled })
  return user
}

export const setPassword = (api: ApiSession, id: string, password: string): Promise<unknown> =>
  api.put(`${base}/users/${at(id)}/password`, { password })

export const deleteUser = (api: ApiSession, id: string): Promise<unknown> =>
  api.delete(`${base}/users/${at(id)}`)

export async function listRoles(api: ApiSession, user: string): Promise<readonly RoleGrant[]> {
  const { roles } = await api.get<{ roles: RoleGrant[] }>(`${base}/users/${at(user)}/roles`)
  return roles
}

const rolePath = (user: string, { scope, scope_id }: Omit<RoleGrant, 'role'>): string =>
  `${base}/users/${at(user)}/roles/${scope}/${at(scope_id)}`

export const grantRole = (api: ApiSession, user: string, grant: RoleGrant): Promise<unknown> =>
  api.put(rolePath(user, grant), { role: grant.role })

export const revokeRole = (
  api: ApiSession,
  user: string,
  scope: Omit<RoleGrant, 'role'>,
): Promise<unknown> => api.delete(rolePath(user, scope))

/** All projects of the domain, and the domain's id. */
export const listProjects = (
  api: ApiSession,
): Promise<{ readonly domain_id: string; readonly projects: readonly ProjectInfo[] }> =>
  api.get(`${base}/projects`)

export interface QuotaInfo {
  readonly kind: string
  /** -1: unlimited. */
  readonly limit: number
  readonly used: number
  readonly default: number
}

export async function listQuotas(api: ApiSession, project: string): Promise<readonly QuotaInfo[]> {
  const { quotas } = await api.get<{ quotas: QuotaInfo[] }>(
    `/api/v1/projects/${at(project)}/quotas`,
  )
  return quotas
}

/** By kind; -1: unlimited, null: the default. All or none. */
export async function setQuotas(
  api: ApiSession,
  project: string,
  limits: Readonly<Record<string, number | null>>,
): Promise<readonly QuotaInfo[]> {
  const path = `/api/v1/projects/${at(project)}/quotas`
  const { quotas } = await api.put<{ quotas: QuotaInfo[] }>(path, { quotas: limits })
  return quotas
}

export async function createProject(
  api: ApiSession,
  spec: { readonly name: string; readonly description?: string },
): Promise<ProjectInfo> {
  const { project } = await api.post<{ project: ProjectInfo }>(`${base}/projects`, spec)
  return project
}

export const deleteProject = (api: ApiSession, id: string): Promise<unknown> =>
  api.delete(`${base}/projects/${at(id)}`)

export async function listKeys(api: ApiSession, user: string): Promise<readonly AccessKeyInfo[]> {
  const { access_keys } = await api.get<{ access_keys: AccessKeyInfo[] }>(
    `${base}/users/${at(user)}/access-keys`,
  )
  return access_keys
}

/** The secret is told this once. */
export const createKey = (
  api: ApiSession,
  user: string,
  spec: { readonly project_id?: string; readonly description?: string },
): Promise<{ readonly access_key: AccessKeyInfo; readonly secret_key: string }> =>
  api.post(`${base}/users/${at(user)}/access-keys`, spec)

export const deleteKey = (api: ApiSession, user: string, key: string): Promise<unknown> =>
  api.delete(`${base}/users/${at(user)}/access-keys/${at(key)}`)
