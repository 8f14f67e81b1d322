import type { Queries, Transaction } from '#control/store/store.ts'
import type { DomainRow, ProjectRow, UserRow } from '#control/store/tables/identity.ts'
import { type Role, stronger } from './principal.ts'

/** Queries about users, projects, domains and who holds which role where. */
export type Db = Queries | Transaction

/** By id, or by a name that is unique in its domain. */
export type Reference = { readonly id: string } | { readonly name: string }

export async function findDomain(db: Db, wanted: Reference): Promise<DomainRow | undefined> {
  const query = db.selectFrom('domains').selectAll()
  return await ('id' in wanted
    ? query.where('id', '=', wanted.id)
    : query.where('name', '=', wanted.name)
  ).executeTakeFirst()
}

export async function listDomains(db: Db): Promise<DomainRow[]> {
  return await db.selectFrom('domains').selectAll().orderBy('created_at').orderBy('id').execute()
}

export async function findUser(db: Db, id: string): Promise<UserRow | undefined> {
  return await db.selectFrom('users').selectAll().where('id', '=', id).executeTakeFirst()
}

export async function findUserByName(
  db: Db,
  domain: string,
  name: string,
): Promise<UserRow | undefined> {
  return await db
    .selectFrom('users')
    .selectAll()
    .where('domain', '=', domain)
    .where('name', '=', name)
    .executeTakeFirst()
}

export async function findProject(db: Db, id: string): Promise<ProjectRow | undefined> {
  return await db.selectFrom('projects').selectAll().where('id', '=', id).executeTakeFirst()
}

export async function findProjectByName(
  db: Db,
  domain: string,
  name: string,
): Promise<ProjectRow | undefined> {
  return await db
    .selectFrom('projects')
    .selectAll()
    .where('domain', '=', domain)
    .where('name', '=', name)
    .executeTakeFirst()
}

/** The role that was granted on exactly this scope. */
export async function grantedRole(
  db: Db,
  user: string,
  scope: 'project' | 'domain',
  scopeId: string,
): Promise<Role | null> {
  const row = await db
    .selectFrom('role_grants')
    .select('role')
    .where('user_id', '=', user)
    .where('scope', '=', scope)
    .where('scope_id', '=', scopeId)
    .executeTakeFirst()
  return (row?.role as Role | undefined) ?? null
}

/** The role in force in a project: granted there or on its domain, the stronger one. */
export async function roleInProject(
  db: Db,
  user: string,
  project: Pick<ProjectRow, 'id' | 'domain'>,
): Promise<Role | null> {
  return stronger(
    await grantedRole(db, user, 'project', project.id),
    await grantedRole(db, user, 'domain', project.domain),
  )
}

/** Enabled projects in which the user holds any role, by name. */
export async function projectsOfUser(db: Db, user: string): Promise<ProjectRow[]> {
  return await db
    .selectFrom('projects')
    .selectAll()
    .where('enabled', '=', 1)
    .where((eb) =>
      eb.exists(
        eb
          .selectFrom('role_grants')
          .select('role_grants.role')
          .where('role_grants.user_id', '=', user)
          .where((inner) =>
            inner.or([
              inner.and([
                inner('role_grants.scope', '=', 'project'),
                inner('role_grants.scope_id', '=', inner.ref('projects.id')),
              ]),
              inner.and([
                inner('role_grants.scope', '=', 'domain'),
                inner('role_grants.scope_id', '=', inner.ref('projects.domain')),
              ]),
            ]),
          ),
      ),
    )
    .orderBy('name')
    .orderBy('id')
    .execute()
}
