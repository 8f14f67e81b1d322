import type { CatalogueEntry } from '#control/identity/catalogue.ts'
import type { TokenView } from '#control/identity/login.ts'
import { atLeast, ROLES } from '#control/identity/principal.ts'
import type { DomainRow, ProjectRow } from '#control/store/tables/identity.ts'

/** From our own words to the API's objects. */

/** `2024-01-02T03:04:05.000000Z`: Go clients take nothing but RFC 3339 with a Z here. */
export const tokenTime = (ms: number): string => `${new Date(ms).toISOString().slice(0, -1)}000Z`

/** The body of a token. `catalogue` null: asked to leave it out. */
export function tokenObject(view: TokenView, catalogue: readonly CatalogueEntry[] | null) {
  const { token, caller } = view
  const domain = { id: caller.domain.id, name: caller.domain.name }
  const scoped = token.scope.kind !== 'none'
  return {
    methods: token.methods,
    issued_at: tokenTime(token.issuedAt),
    expires_at: tokenTime(token.expiresAt),
    user: { id: caller.user.id, name: caller.user.name, domain, password_expires_at: null },
    ...(caller.project === null ? {} : { project: { ...caller.project, domain } }),
    ...(token.scope.kind === 'domain' ? { domain } : {}),
    ...(scoped ? { roles: rolesOf(view) } : {}),
    ...(scoped && catalogue !== null ? { catalog: catalogue } : {}),
    audit_ids: token.parent === null ? [token.auditId] : [token.auditId, token.parent],
    is_domain: false,
  }
}

/** The role in force and the weaker ones that it includes, since some tools look for a role by name. */
const rolesOf = ({ caller }: TokenView) =>
  ROLES.filter((role) => atLeast(caller.role, role))
    .reverse()
    .map((role) => ({ id: role, name: role }))

export const projectObject = (row: ProjectRow, origin: string) => ({
  id: row.id,
  name: row.name,
  description: row.description,
  domain_id: row.domain,
  parent_id: row.domain,
  enabled: row.enabled === 1,
  is_domain: false,
  links: { self: `${origin}/v3/projects/${row.id}` },
})

export const domainObject = (row: DomainRow, origin: string) => ({
  id: row.id,
  name: row.name,
  description: '',
  enabled: true,
  links: { self: `${origin}/v3/domains/${row.id}` },
})

/** Clients follow `next`, so it is null on what is always the last page. */
export const listLinks = (self: string) => ({ self, next: null, previous: null })
