import type { FastifyRequest } from 'fastify'
import { assert } from '#base/assert.ts'
import { atLeast, type Principal, type Role } from '#control/identity/principal.ts'
import { Refusal } from './refusal.ts'

/* What handlers ask of a request. */

type AnyRequest = Pick<FastifyRequest, 'principal' | 'routeOptions'>

/** The caller. Never called on open routes. */
export function principalOf(request: AnyRequest): Principal {
  assert(request.principal !== null, 'a route with access rules has a caller')
  return request.principal
}

/** Id of the project that the caller is bound to; on routes with `:project_id`, that one. */
export function projectOf(request: AnyRequest): string {
  const { project } = principalOf(request)
  assert(project !== null, 'a route of a project has a caller with a project')
  return project.id
}

/** For rules that depend on the body. Throws the dialect's refusal when the caller's role is weaker. */
export function requireRole(request: AnyRequest, role: Role): void {
  const principal = principalOf(request)
  if (atLeast(principal.role, role)) return
  const { dialect } = request.routeOptions.config
  assert(dialect !== undefined, 'every route belongs to a dialect')
  const { status, code } = dialect.common.forbidden
  throw new Refusal(status, code, `This needs the role ${role}.`)
}

/** Says in the audit log what was touched. */
export function auditTarget(
  request: Pick<FastifyRequest, 'audit'>,
  target: string,
  detail: Readonly<Record<string, unknown>> = {},
): void {
  request.audit.target = target
  Object.assign(request.audit.detail, detail)
}

/**
 * Scheme, host and port under which this caller reaches the server: from the Host header, because behind names, port
 * forwards and tunnels only the caller knows it. Links in answers must be reachable for who gets them.
 */
export function originOf(
  request: Pick<FastifyRequest, 'headers'>,
  fallback: { readonly publicUrl: string },
): string {
  const { host } = request.headers
  const scheme = fallback.publicUrl.startsWith('https:') ? 'https' : 'http'
  return host !== undefined && HOST.test(host) ? `${scheme}://${host}` : fallback.publicUrl
}

const HOST = /^(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?$/
