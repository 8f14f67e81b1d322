import Type, { type Static } from 'typebox'
import type { Reference } from '#control/identity/directory.ts'
import type { Credential, WantedScope } from '#control/identity/login.ts'
import { optional } from '../http/validation.ts'
import { refuse } from './errors.ts'

/** The body of a request for a token, and what it means. Members that this server has no use for are ignored. */

const Text = Type.String({ maxLength: 1_024 })
const DomainRef = Type.Object({ id: optional(Text), name: optional(Text) })
const Identity = Type.Object({
  methods: Type.Array(Text, { minItems: 1, maxItems: 10 }),
  password: optional(
    Type.Object({
      user: Type.Object({
        id: optional(Text),
        name: optional(Text),
        domain: optional(DomainRef),
        password: Text,
      }),
    }),
  ),
  token: optional(Type.Object({ id: Text })),
})
const Scope = Type.Object({
  project: optional(
    Type.Object({ id: optional(Text), name: optional(Text), domain: optional(DomainRef) }),
  ),
  domain: optional(DomainRef),
  unscoped: optional(Type.Object({})),
})

export const AuthRequest = Type.Object({
  auth: Type.Object({
    identity: Identity,
    scope: optional(Type.Union([Type.Literal('unscoped'), Scope])),
  }),
})
export type AuthRequest = Static<typeof AuthRequest>

/** How the caller proves who they are. Throws 400 for what is incomplete, 401 for methods that are not offered. */
export function credentialOf({ auth: { identity } }: AuthRequest): Credential {
  const [method, ...others] = identity.methods
  if (others.length > 0) throw refuse(401, 'Only one authentication method at a time is offered.')
  if (method === 'token') {
    const id = identity.token?.id
    if (id === undefined) throw refuse(400, 'identity.token.id is missing.')
    return { method, token: id }
  }
  if (method !== 'password') {
    throw refuse(401, 'The authentication methods here are password and token.')
  }
  const user = identity.password?.user
  if (user === undefined) throw refuse(400, 'identity.password.user is missing.')
  const { password } = user
  if (isGiven(user.id)) return { method, user: { id: user.id }, password }
  if (!isGiven(user.name)) throw refuse(400, 'identity.password.user needs an id or a name.')
  const domain = referenceOf(user.domain)
  if (domain === null) {
    throw refuse(400, 'identity.password.user needs a domain (id or name) with a name.')
  }
  return { method, user: { name: user.name, domain }, password }
}

/** What the token is to be for. Throws 400 for several scopes at once. */
export function scopeOf({ auth: { scope } }: AuthRequest): WantedScope {
  if (!isGiven(scope)) return { kind: 'default' }
  if (scope === 'unscoped') return { kind: 'none' }
  const given = [scope.project, scope.domain, scope.unscoped].filter(isGiven)
  if (given.length > 1) throw refuse(400, 'scope names more than one of project, domain, unscoped.')
  if (isGiven(scope.unscoped)) return { kind: 'none' }
  if (isGiven(scope.domain)) {
    const domain = referenceOf(scope.domain)
    if (domain === null) throw refuse(400, 'scope.domain needs an id or a name.')
    return { kind: 'domain', domain }
  }
  const { project } = scope
  if (!isGiven(project)) throw refuse(401, 'The scopes here are project, domain and unscoped.')
  if (isGiven(project.id)) return { kind: 'project', id: project.id }
  if (!isGiven(project.name)) throw refuse(400, 'scope.project needs an id or a name.')
  return { kind: 'project', name: project.name, domain: referenceOf(project.domain) }
}

const isGiven = <T>(value: T | null | undefined): value is T =>
  value !== null && value !== undefined

function referenceOf(domain: Static<typeof DomainRef> | null | undefined): Reference | null {
  if (isGiven(domain?.id)) return { id: domain.id }
  return isGiven(domain?.name) ? { name: domain.name } : null
}
