import { type Command, Option } from 'commander'
import type { ApiSession } from '#client/api.ts'
import {
  grantRole,
  listProjects,
  listRoles,
  revokeRole,
  type RoleGrant,
  type RoleName,
} from '#client/identity.ts'
import type { CommandContext } from '../context.ts'
import { projectBy, userBy } from '../names.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { usageError } from '../usage.ts'

/* `holdfast role`: what a user may do, in one project or in the whole domain. */

const ROLES: readonly RoleName[] = ['admin', 'operator', 'reader']

interface ScopeFlags {
  readonly in?: string
  readonly domain?: boolean
}

export function roleCommand(command: Command, context: CommandContext): void {
  command.description('roles: admin manages everything, operator changes things, reader looks')
  const scoped = (name: string) =>
    apiLeaf(context, command, name)
      .addOption(new Option('--in <project>', 'the role is for this project'))
      .addOption(new Option('--domain', 'the role is for every project, and for managing users'))

  const list = apiLeaf(context, command, 'list')
    .description('list the roles of a user')
    .argument('<user>')
  apiAction(context, list, async (api, output, _, user = '') => {
    const roles = await listRoles(api, (await userBy(api, user)).id)
    const rows = roles.map((one) => [one.role, one.scope, one.scope_id])
    output.result({ roles }, columns(['role', 'scope', 'id'], rows))
  })

  const grant = scoped('grant')
    .description('give a user a role, in place of the one it had there')
    .argument('<user>')
    .argument('<role>', ROLES.join(', '))
  apiAction<ScopeFlags>(context, grant, async (api, output, flags, user = '', wanted = '') => {
    const role = ROLES.find((one) => one === wanted)
    if (role === undefined) {
      throw usageError(`role ${wanted} is not accepted, accepted: ${ROLES.join(', ')}`)
    }
    const given = { ...(await scopeOf(api, flags)), role }
    await grantRole(api, (await userBy(api, user)).id, given)
    output.result({ user, ...given }, `${user}: ${role} in ${given.scope} ${given.scope_id}`)
  })

  const revoke = scoped('revoke').description('take a role from a user').argument('<user>')
  apiAction<ScopeFlags>(context, revoke, async (api, output, flags, user = '') => {
    const scope = await scopeOf(api, flags)
    await revokeRole(api, (await userBy(api, user)).id, scope)
    output.result({ user, ...scope }, `${user}: no role in ${scope.scope} ${scope.scope_id}`)
  })
}

async function scopeOf(api: ApiSession, flags: ScopeFlags): Promise<Omit<RoleGrant, 'role'>> {
  if ((flags.in === undefined) === (flags.domain !== true)) {
    throw usageError('one of --in PROJECT and --domain is required')
  }
  return flags.in === undefined
    ? { scope: 'domain', scope_id: (await listProjects(api)).domain_id }
    : { scope: 'project', scope_id: (await projectBy(api, flags.in)).id }
}
