import type { FastifyRequest } from 'fastify'
import type { TokenView } from '#control/identity/login.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, originOf, principalOf } from '../http/request.ts'
import { AuthRequest, credentialOf, scopeOf } from './auth-request.ts'
import { tokenObject } from './codec.ts'
import { refuse } from './errors.ts'
import type { IamServices } from './services.ts'

/** Tokens: issue, describe, check, revoke. */
export function tokenRoutes(app: Api, services: IamServices): void {
  const { logins } = services.identity
  const path = '/v3/auth/tokens'

  const bodyOf = (request: FastifyRequest, view: TokenView) => {
    const bare = 'nocatalog' in (request.query as object)
    const project = view.caller.project?.id ?? null
    return {
      token: tokenObject(
        view,
        bare ? null : services.catalogue(originOf(request, services), project),
      ),
    }
  }

  app.post(
    path,
    { schema: { body: AuthRequest }, config: { access: 'open', audit: 'token.issue' } },
    async (request, reply) => {
      const credential = credentialOf(request.body)
      const outcome = await logins.issue(credential, scopeOf(request.body), request.ip)
      if ('denied' in outcome) {
        if (!outcome.throttled) {
          await services.audit.write({
            project: null,
            actor: outcome.user ?? 'unknown',
            source: request.ip,
            action: 'token.issue',
            target: null,
            result: 401,
            detail: { request: request.id, by: credential.method },
          })
        }
        const retry =
          outcome.retryAfterS === null ? {} : { 'retry-after': String(outcome.retryAfterS) }
        throw refuse(401, outcome.denied, retry)
      }
      // From here on the audit log knows who this is.
      request.principal = outcome.caller
      auditTarget(request, outcome.token.auditId, { methods: outcome.token.methods })
      return await reply
        .code(201)
        .header('x-subject-token', outcome.secret)
        .header('vary', 'X-Auth-Token')
        .send(bodyOf(request, outcome))
    },
  )

  /** The token in question, if the caller may know about it: its own user, or an administrator. */
  async function subject(request: FastifyRequest): Promise<{ secret: string; view: TokenView }> {
    const secret = request.headers['x-subject-token']
    if (typeof secret !== 'string' || secret === '') {
      throw refuse(400, 'The header X-Subject-Token is missing.')
    }
    const view = await logins.describe(secret)
    const { user, domainRole } = principalOf(request)
    const allowed = view?.caller.user.id === user.id || domainRole === 'admin'
    if (view === null || !allowed) throw refuse(404, 'The subject token is unknown or has ended.')
    return { secret, view }
  }

  app.get(path, { config: { access: 'user' } }, async (request, reply) => {
    const { secret, view } = await subject(request)
    // One Go client takes the token that it goes on with from this header.
    return await reply.header('x-subject-token', secret).send(bodyOf(request, view))
  })
  app.head(path, { config: { access: 'user' } }, async (request, reply) => {
    const { secret } = await subject(request)
    return await reply.code(200).header('x-subject-token', secret).send()
  })
  app.delete(
    path,
    { config: { access: 'user', audit: 'token.revoke' } },
    async (request, reply) => {
      const { secret, view } = await subject(request)
      await logins.revoke(secret)
      auditTarget(request, view.token.auditId)
      return await reply.code(204).send()
    },
  )
}
