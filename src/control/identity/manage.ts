import { randomBytes, randomInt } from 'node:crypto'
import type { Clock } from '#base/clock.ts'
import { Fault, fault } from '#base/fault.ts'
import { newHexId } from '#base/ids.ts'
import { bit } from '#control/store/bit.ts'
import type { Store, Transaction } from '#control/store/store.ts'
import type {
  AccessKeyRow,
  ProjectRow,
  RoleGrantRow,
  UserRow,
} from '#control/store/tables/identity.ts'
import { type Db, findProject, findProjectByName, findUser, findUserByName } from './directory.ts'
import { PASSWORD_CHARACTERS, type Passwords } from './passwords.ts'
import type { Role } from './principal.ts'
import type { SecretBox } from './secret-box.ts'
import { revokeTokensOfUser } from './tokens.ts'

/* Changes of users, projects, roles and access keys, for administrators. Every change is one transaction; when
 * it returns it is durable and holds from the next request on. */

export const USER_UNKNOWN = fault({
  code: 'USER_UNKNOWN',
  retry: 'never',
  text: 'There is no such user.',
  hint: 'List the users to see their ids.',
})
export const PROJECT_UNKNOWN = fault({
  code: 'PROJECT_UNKNOWN',
  retry: 'never',
  text: 'There is no such project.',
  hint: 'List the projects to see their ids.',
})
export const ACCESS_KEY_UNKNOWN = fault({
  code: 'ACCESS_KEY_UNKNOWN',
  retry: 'never',
  text: 'There is no such access key.',
  hint: 'List the access keys of the user.',
})
export const NAME_TAKEN = fault({
  code: 'NAME_TAKEN',
  retry: 'never',
  text: 'The name is in use.',
  hint: 'Choose another one.',
})
export const NAME_UNFIT = fault({
  code: 'NAME_UNFIT',
  retry: 'never',
  text: 'The name cannot be used.',
  hint: 'Use 1 to 64 letters, digits, dots, underscores, hyphens, at signs or blanks, no blank at either end.',
})
export const PASSWORD_UNFIT = fault({
  code: 'PASSWORD_UNFIT',
  retry: 'never',
  text: 'The password cannot be used.',
  hint: `Use ${PASSWORD_CHARACTERS.least} to ${PASSWORD_CHARACTERS.most} characters, and not the name of the user.`,
})
export const PROJECT_IN_USE = fault({
  code: 'PROJECT_IN_USE',
  retry: 'never',
  text: 'The project still has volumes, servers or protection groups.',
  hint: 'Delete them first.',
})
export const LAST_ADMINISTRATOR = fault({
  code: 'LAST_ADMINISTRATOR',
  retry: 'never',
  text: 'Nobody would be left who may manage users.',
  hint: 'Make another user administrator of the domain first.',
})
export const ACCESS_KEYS_FULL = fault({
  code: 'ACCESS_KEYS_FULL',
  retry: 'never',
  text: 'The user has as many access keys as one can have.',
  hint: 'Delete one that is not used any more.',
})

/** Enough to change keys without a gap, few enough to know what each is for. */
const KEYS_PER_USER_MAX = 10

const NAME = /^[\p{L}\p{N}._@-](?:[\p{L}\p{N}._@ -]{0,62}[\p{L}\p{N}._@-])?$/u

export type User = Omit<UserRow, 'password_hash'>
export type AccessKey = Omit<AccessKeyRow, 'sealed_secret'>
export type GrantScope = 'project' | 'domain'

export interface Management {
  listUsers(domain: string): Promise<User[]>
  showUser(domain: string, id: string): Promise<User>
  createUser(
    domain: string,
    user: {
      readonly name: string
      readonly password: string
      readonly defaultProject: string | null
    },
  ): Promise<User>
  /** Disabling ends all tokens of the user; its access keys are refused while it lasts. */
  enableUser(domain: string, id: string, enabled: boolean): Promise<User>
  /** Ends all tokens of the user. */
  setPassword(domain: string, id: string, password: string): Promise<void>
  /** Deletes its roles, access keys and tokens with it. */
  deleteUser(domain: string, id: string): Promise<void>

  listGrants(domain: string, user: string): Promise<RoleGrantRow[]>
  /** Replaces the role that the user had in this scope. */
  grant(domain: string, user: string, scope: GrantScope, scopeId: string, role: Role): Promise<void>
  /** No role there: no change. */
  revoke(domain: string, user: string, scope: GrantScope, scopeId: string): Promise<void>

  listProjects(domain: string): Promise<ProjectRow[]>
  createProject(domain: string, name: string, description: string): Promise<ProjectRow>
  /** Deletes the roles in it and the access keys made for it. */
  deleteProject(domain: string, id: string): Promise<void>

  listAccessKeys(domain: string, user: string): Promise<AccessKey[]>
  /** The secret is shown this once. */
  createAccessKey(
    domain: string,
    user: string,
    options: { readonly project: string | null; readonly description: string },
  ): Promise<{ readonly key: AccessKey; readonly secret: string }>
  deleteAccessKey(domain: string, user: string, id: string): Promise<void>
}

export function createManagement(options: {
  readonly store: Store
  readonly clock: Clock
  readonly passwords: Passwords
  readonly box: SecretBox
}): Management {
  const { store, clock, passwords, box } = options

  return {
    async listUsers(domain) {
      const rows = await store.db
        .selectFrom('users')
        .selectAll()
        .where('domain', '=', domain)
        .orderBy('name')
        .execute()
      return rows.map(withoutHash)
    },
    async showUser(domain, id) {
      return withoutHash(await userIn(store.db, domain, id))
    },
    async createUser(domain, { name, password, defaultProject }) {
      checkName(name)
      checkPassword(password, name)
      const password_hash = await passwords.hash(password)
      return await store.write(async (tx) => {
        if ((await findUserByName(tx, domain, name)) !== undefined) {
          throw new Fault(NAME_TAKEN, `creating user ${name}`)
        }
        if (defaultProject !== null) await projectIn(tx, domain, defaultProject)
        const nowMs = clock.wallMs()
        const row: UserRow = {
          id: newHexId(),
          domain,
          name,
          enabled: 1,
          password_hash,
          password_changed_at: nowMs,
          default_project: defaultProject,
          created_at: nowMs,
        }
        await tx.insertInto('users').values(row).execute()
        return withoutHash(row)
      })
    },
    async enableUser(domain, id, enabled) {
      return await store.write(async (tx) => {
        await userIn(tx, domain, id)
        await tx
          .updateTable('users')
          .set({ enabled: bit(enabled) })
          .where('id', '=', id)
          .execute()
        if (!enabled) {
          await revokeTokensOfUser(tx, id)
          await assertAdministrator(tx, domain, `disabling user ${id}`)
        }
        return withoutHash(await userIn(tx, domain, id))
      })
    },
    async setPassword(domain, id, password) {
      const { name } = await userIn(store.db, domain, id)
      checkPassword(password, name)
      const password_hash = await passwords.hash(password)
      await store.write(async (tx) => {
        await userIn(tx, domain, id)
        await tx
          .updateTable('users')
          .set({ password_hash, password_changed_at: clock.wallMs() })
          .where('id', '=', id)
          .execute()
        await revokeTokensOfUser(tx, id)
      })
    },
    async deleteUser(domain, id) {
      await store.write(async (tx) => {
        await userIn(tx, domain, id)
        await tx.deleteFrom('tokens').where('user_id', '=', id).execute()
        await tx.deleteFrom('access_keys').where('user_id', '=', id).execute()
        await tx.deleteFrom('role_grants').where('user_id', '=', id).execute()
        await tx.deleteFrom('users').where('id', '=', id).execute()
        await assertAdministrator(tx, domain, `deleting user ${id}`)
      })
    },

    async listGrants(domain, user) {
      await userIn(store.db, domain, user)
      return await store.db
        .selectFrom('role_grants')
        .selectAll()
        .where('user_id', '=', user)
        .orderBy('created_at')
        .execute()
    },
    async grant(domain, user, scope, scopeId, role) {
      await store.write(async (tx) => {
        await userIn(tx, domain, user)
        await scopeIn(tx, domain, scope, scopeId)
        await tx
          .insertInto('role_grants')
          .values({ user_id: user, scope, scope_id: scopeId, role, created_at: clock.wallMs() })
          .onConflict((conflict) =>
            conflict.columns(['user_id', 'scope', 'scope_id']).doUpdateSet({ role }),
          )
          .execute()
        await assertAdministrator(tx, domain, `granting ${role} to user ${user}`)
      })
    },
    async revoke(domain, user, scope, scopeId) {
      await store.write(async (tx) => {
        await userIn(tx, domain, user)
        await scopeIn(tx, domain, scope, scopeId)
        await tx
          .deleteFrom('role_grants')
          .where('user_id', '=', user)
          .where('scope', '=', scope)
          .where('scope_id', '=', scopeId)
          .execute()
        await assertAdministrator(tx, domain, `taking a role from user ${user}`)
      })
    },

    async listProjects(domain) {
      return await store.db
        .selectFrom('projects')
        .selectAll()
        .where('domain', '=', domain)
        .orderBy('name')
        .execute()
    },
    async createProject(domain, name, description) {
      checkName(name)
      return await store.write(async (tx) => {
        if ((await findProjectByName(tx, domain, name)) !== undefined) {
          throw new Fault(NAME_TAKEN, `creating project ${name}`)
        }
        const created_at = clock.wallMs()
        const row: ProjectRow = {
          id: newHexId(),
          domain,
          name,
          description,
          enabled: 1,
          created_at,
        }
        await tx.insertInto('projects').values(row).execute()
        return row
      })
    },
    async deleteProject(domain, id) {
      await store.write(async (tx) => {
        await projectIn(tx, domain, id)
        await refuseIfInUse(tx, id)
        await tx
          .updateTable('users')
          .set({ default_project: null })
          .where('default_project', '=', id)
          .execute()
        await tx
          .deleteFrom('role_grants')
          .where('scope', '=', 'project')
          .where('scope_id', '=', id)
          .execute()
        await tx.deleteFrom('access_keys').where('project', '=', id).execute()
        for (const table of GONE_WITH_PROJECT) {
          await tx.deleteFrom(table).where('project', '=', id).execute()
        }
        await tx
          .deleteFrom('tokens')
          .where('scope', '=', 'project')
          .where('scope_id', '=', id)
          .execute()
        await tx.deleteFrom('projects').where('id', '=', id).execute()
      })
    },

    async listAccessKeys(domain, user) {
      await userIn(store.db, domain, user)
      const rows = await store.db
        .selectFrom('access_keys')
        .selectAll()
        .where('user_id', '=', user)
        .orderBy('created_at')
        .orderBy('id')
        .execute()
      return rows.map(withoutSecret)
    },
    async createAccessKey(domain, user, { project, description }) {
      const id = newAccessKeyId()
      const secret = randomBytes(30).toString('base64url')
      const key = await store.write(async (tx) => {
        await userIn(tx, domain, user)
        if (project !== null) await projectIn(tx, domain, project)
        const row = await insertAccessKey(tx, box, {
          id,
          secret,
          user,
          project,
          description,
          nowMs: clock.wallMs(),
        })
        const keys = await tx
          .selectFrom('access_keys')
          .select('id')
          .where('user_id', '=', user)
          .execute()
        if (keys.length > KEYS_PER_USER_MAX) {
          throw new Fault(ACCESS_KEYS_FULL, `creating an access key for user ${user}`)
        }
        return row
      })
      return { key: withoutSecret(key), secret }
    },
    async deleteAccessKey(domain, user, id) {
      await store.write(async (tx) => {
        await userIn(tx, domain, user)
        const { numDeletedRows } = await tx
          .deleteFrom('access_keys')
          .where('id', '=', id)
          .where('user_id', '=', user)
          .executeTakeFirstOrThrow()
        if (numDeletedRows === 0n) throw new Fault(ACCESS_KEY_UNKNOWN, `deleting ${id}`)
      })
    },
  }
}

export async function insertAccessKey(
  tx: Transaction,
  box: SecretBox,
  key: {
    readonly id: string
    readonly secret: string
    readonly user: string
    readonly project: string | null
    readonly description: string
    readonly nowMs: number
  },
): Promise<AccessKeyRow> {
  const row: AccessKeyRow = {
    id: key.id,
    user_id: key.user,
    project: key.project,
    description: key.description,
    sealed_secret: box.seal(key.secret, key.id),
    enabled: 1,
    created_at: key.nowMs,
  }
  await tx.insertInto('access_keys').values(row).execute()
  return row
}

const UPPER_AND_DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'

/** 20 capitals and digits: a name that may be shown. */
export const newAccessKeyId = (): string =>
  Array.from({ length: 20 }, () => UPPER_AND_DIGITS[randomInt(UPPER_AND_DIGITS.length)]).join('')

const withoutHash = (row: UserRow): User => ({
  id: row.id,
  domain: row.domain,
  name: row.name,
  enabled: row.enabled,
  password_changed_at: row.password_changed_at,
  default_project: row.default_project,
  created_at: row.created_at,
})

const withoutSecret = (row: AccessKeyRow): AccessKey => ({
  id: row.id,
  user_id: row.user_id,
  project: row.project,
  description: row.description,
  enabled: row.enabled,
  created_at: row.created_at,
})

function checkName(name: string): void {
  if (!NAME.test(name)) throw new Fault(NAME_UNFIT, `using ${JSON.stringify(name)} as a name`)
}

function checkPassword(password: string, name: string): void {
  const { least, most } = PASSWORD_CHARACTERS
  if (password.length < least || password.length > most || password === name) {
    throw new Fault(PASSWORD_UNFIT, `setting the password of ${name}`)
  }
}

async function userIn(db: Db, domain: string, id: string): Promise<UserRow> {
  const user = await findUser(db, id)
  if (user === undefined || user.domain !== domain)
    throw new Fault(USER_UNKNOWN, `looking for ${id}`)
  return user
}

async function projectIn(tx: Transaction, domain: string, id: string): Promise<ProjectRow> {
  const project = await findProject(tx, id)
  if (project === undefined || project.domain !== domain) {
    throw new Fault(PROJECT_UNKNOWN, `looking for ${id}`)
  }
  return project
}

async function scopeIn(
  tx: Transaction,
  domain: string,
  scope: GrantScope,
  id: string,
): Promise<void> {
  if (scope === 'project') await projectIn(tx, domain, id)
  else if (id !== domain) throw new Fault(PROJECT_UNKNOWN, `looking for domain ${id}`)
}

/** What carries no data and does nothing by itself: it is not in the way of its project's end. */
const GONE_WITH_PROJECT = [
  'ports',
  'subnets',
  'vpcs',
  'security_group_rules',
  'security_groups',
  'tags',
  'keypairs',
] as const

async function refuseIfInUse(tx: Transaction, project: string): Promise<void> {
  for (const table of ['volumes', 'servers', 'protection_groups'] as const) {
    const row = await tx
      .selectFrom(table)
      .select('id')
      .where('project', '=', project)
      .limit(1)
      .executeTakeFirst()
    if (row !== undefined) throw new Fault(PROJECT_IN_USE, `deleting project ${project}`)
  }
}

/** After a change, inside its transaction: undone when no enabled user is left who is admin of the domain. */
async function assertAdministrator(tx: Transaction, domain: string, doing: string): Promise<void> {
  const row = await tx
    .selectFrom('users')
    .innerJoin('role_grants', 'role_grants.user_id', 'users.id')
    .select('users.id')
    .where('users.enabled', '=', 1)
    .where('role_grants.scope', '=', 'domain')
    .where('role_grants.scope_id', '=', domain)
    .where('role_grants.role', '=', 'admin')
    .limit(1)
    .executeTakeFirst()
  if (row === undefined) throw new Fault(LAST_ADMINISTRATOR, doing)
}
