import {
  findDomain,
  findProject,
  findUser,
  grantedRole,
  roleInProject,
  type Db,
} from './directory.ts'
import type { Principal } from './principal.ts'
import type { TokenScope } from './tokens.ts'

/**
 * The caller behind a valid credential, as the directory stands now; or why there is none any more. A project scope needs
 * a role in the project, a domain scope one on the domain.
 */
export async function callerOf(
  db: Db,
  credential: {
    readonly user: string
    readonly scope: TokenScope
    readonly by: Principal['by']
    readonly accessKey: string | null
  },
): Promise<Principal | { readonly gone: 'user' | 'scope' }> {
  const user = await findUser(db, credential.user)
  const domain = user === undefined ? undefined : await findDomain(db, { id: user.domain })
  if (user === undefined || domain === undefined || user.enabled === 0) return { gone: 'user' }
  const domainRole = await grantedRole(db, user.id, 'domain', domain.id)
  const base = {
    user: { id: user.id, name: user.name },
    domain: { id: domain.id, name: domain.name },
    domainRole,
    by: credential.by,
    accessKey: credential.accessKey,
  }
  switch (credential.scope.kind) {
    case 'none':
      return { ...base, project: null, role: null }
    case 'domain':
      if (credential.scope.id !== domain.id || domainRole === null) return { gone: 'scope' }
      return { ...base, project: null, role: domainRole }
    case 'project': {
      const project = await findProject(db, credential.scope.id)
      if (project === undefined || project.enabled === 0) return { gone: 'scope' }
      const role = await roleInProject(db, user.id, project)
      if (role === null) return { gone: 'scope' }
      return { ...base, project: { id: project.id, name: project.name }, role }
    }
  }
}
