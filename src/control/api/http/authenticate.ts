import type { FastifyRequest } from 'fastify'
import { type Authenticator, isDenial } from '#control/identity/authenticator.ts'
import { atLeast, type Principal } from '#control/identity/principal.ts'
import { isChanging } from './audit.ts'
import type { Dialect, RouteRules } from './dialect.ts'
import { Refusal } from './refusal.ts'

/* Who calls, and whether they may. The only place that decides it, for every route of every dialect.
 *
 * A token is looked up as soon as the headers are there, so that a body is read only for somebody known; a signature
 * covers the body and is checked after it. A request with both is judged by its token: one Go client signs it too.
 */

const SIGNATURE = /^[A-Z0-9]+-HMAC-SHA256\s/

/** The first half, from the headers alone. Throws 401. */
export async function authenticateByHeaders(
  authenticator: Authenticator,
  request: FastifyRequest,
  dialect: Dialect,
): Promise<void> {
  const token = request.headers['x-auth-token']
  if (typeof token === 'string' && token !== '') {
    request.principal = accept(await authenticator.byToken(token), dialect)
    return
  }
  if (!SIGNATURE.test(request.headers.authorization ?? '')) {
    throw unauthenticated(
      dialect,
      'The request has neither an X-Auth-Token header nor an SDK-HMAC-SHA256 signature.',
    )
  }
}

/** The second half, once the body is here. Throws 401. */
export async function authenticateByBody(
  authenticator: Authenticator,
  request: FastifyRequest,
  dialect: Dialect,
): Promise<void> {
  if (request.principal !== null) return
  const outcome = await authenticator.bySignature({
    method: request.method,
    target: request.raw.url ?? '/',
    headers: request.headers,
    body: request.rawBody,
    projectInPath: projectInPath(request),
    source: request.ip,
  })
  request.principal = accept(outcome, dialect)
}

function accept(
  outcome: Awaited<ReturnType<Authenticator['byToken']>>,
  dialect: Dialect,
): Principal {
  if (!isDenial(outcome)) return outcome
  throw unauthenticated(dialect, outcome.denied, outcome.code)
}

function unauthenticated(dialect: Dialect, message: string, code: string | null = null): Refusal {
  const { status, code: own } = dialect.common.unauthenticated
  return new Refusal(status, code ?? own, message, { 'www-authenticate': 'Keystone' })
}

/**
 * Binds the caller to the route's project and asks for the role. Throws the dialect's refusals. An unknown path
 * (`rules` null) asks for nothing more than being somebody.
 */
export function authorise(
  request: FastifyRequest,
  dialect: Dialect,
  rules: RouteRules | null,
  principal: Principal,
): void {
  const access = rules?.access ?? 'project'
  if (rules === null || access === 'open' || access === 'user') return
  const refuse = (kind: 'forbidden' | 'foreign_project', message: string) => {
    const { status, code } = dialect.common[kind]
    return new Refusal(status, code, message)
  }
  if (access === 'administrator') {
    if (principal.domainRole === 'admin') return
    throw refuse('forbidden', 'This needs the role admin on the whole domain.')
  }
  const inPath = projectInPath(request)
  if (principal.project === null) {
    throw refuse('foreign_project', 'The token or key is not bound to a project.')
  }
  if (inPath !== null && inPath !== principal.project.id) {
    throw refuse('foreign_project', 'The project in the path is not the one of the token or key.')
  }
  const role = rules.role ?? (isChanging(request.method) ? 'operator' : 'reader')
  if (!atLeast(principal.role, role)) {
    throw refuse('forbidden', `This needs the role ${role} in the project.`)
  }
}

function projectInPath(request: FastifyRequest): string | null {
  const { project_id: project } = request.params as { project_id?: string }
  return project ?? null
}
