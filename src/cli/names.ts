import type { ApiSession } from '#client/api.ts'
import { listProjects, listUsers, type ProjectInfo, type UserInfo } from '#client/identity.ts'
import { usageError } from './usage.ts'

/* People type names, the interface takes ids: both are accepted wherever a user or project is meant. */

export async function userBy(api: ApiSession, nameOrId: string): Promise<UserInfo> {
  const users = await listUsers(api)
  const found = pick(users, nameOrId)
  if (found === undefined) throw usageError(`there is no user ${nameOrId}`)
  return found
}

export async function projectBy(api: ApiSession, nameOrId: string): Promise<ProjectInfo> {
  const { projects } = await listProjects(api)
  const found = pick(projects, nameOrId)
  if (found === undefined) throw usageError(`there is no project ${nameOrId}`)
  return found
}

const pick = <T extends { readonly id: string; readonly name: string }>(
  all: readonly T[],
  nameOrId: string,
): T | undefined =>
  all.find(({ id }) => id === nameOrId) ?? all.find(({ name }) => name === nameOrId)
