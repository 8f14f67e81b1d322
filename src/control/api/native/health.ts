import Type from 'typebox'
import { isDenial } from '#control/identity/authenticator.ts'
import type { Api } from '../http/dialect.ts'
import { Refusal } from '../http/refusal.ts'
import { NATIVE_COMMON, refuse } from './errors.ts'
import { Age, describe, rounded } from './route.ts'
import type { NativeServices } from './services.ts'

/** Is it there, and how does it do: health, metrics, sites. */
export function healthRoutes(app: Api, services: NativeServices): void {
  const { agents, store, sites, region, version } = services

  const Health = Type.Object({
    status: Type.Literal('ok'),
    region: Type.String(),
    version: Type.String(),
  })
  app.get(
    '/api/v1/health',
    {
      config: { access: 'open' },
      schema: describe('Answers 200 while requests can be served, else 503', 'health', Health, {}),
    },
    async () => {
      try {
        await store.db.selectFrom('meta').select('id').executeTakeFirstOrThrow()
      } catch {
        throw refuse(
          503,
          'STORE_UNREACHABLE',
          'The state database does not answer.',
          'Check the database; replication goes on by itself meanwhile.',
        )
      }
      return { status: 'ok' as const, region, version }
    },
  )

  app.get(
    '/api/v1/metrics',
    {
      config: { access: 'open' },
      schema: {
        summary: 'Metrics for Prometheus: with a token, or from the same machine without a proxy',
        tags: ['health'],
        response: { 200: Type.String() },
      },
    },
    async (request, reply) => {
      const direct = PROXY_HEADERS.every((name) => !(name in request.headers))
      if (!direct || !LOOPBACK.test(request.ip)) {
        const token = request.headers['x-auth-token']
        const outcome =
          typeof token === 'string' ? await services.identity.authenticator.byToken(token) : null
        if (outcome === null || isDenial(outcome)) {
          const { status, code } = NATIVE_COMMON.unauthenticated
          throw new Refusal(status, code, 'Metrics need a token from another machine.')
        }
      }
      const { contentType, text } = await services.metrics.page()
      return await reply.type(contentType).send(text)
    },
  )

  const Agent = Type.Object({
    id: Type.String(),
    version: Type.String(),
    age_ms: Type.Number(),
    free_bytes: Type.Number(),
    sessions: Type.Integer(),
  })
  const Site = Type.Object({
    name: Type.String(),
    heard: Type.Boolean({ description: 'An agent reported within the configured silence.' }),
    age_ms: Age,
    agents: Type.Array(Agent),
  })
  app.get(
    '/api/v1/sites',
    {
      config: { access: 'user' },
      schema: describe(
        'List the sites of the region and when each was last heard',
        'sites',
        Type.Object({ sites: Type.Array(Site) }),
        {},
      ),
    },
    async () => ({
      sites: sites.map((name) => ({
        name,
        heard: agents.heard(name),
        age_ms: rounded(agents.at(name)?.ageMs),
        agents: agents
          .list()
          .filter(({ report }) => report.site === name)
          .map(({ report, ageMs }) => ({
            id: report.agent,
            version: report.version,
            age_ms: Math.round(ageMs),
            free_bytes: report.free_bytes,
            sessions: report.sessions.length,
          })),
      })),
    }),
  )
}

/** A proxy on this machine speaks for others. */
const PROXY_HEADERS = ['x-forwarded-for', 'x-real-ip', 'forwarded', 'via']
const LOOPBACK = /^(?:127\.\d+\.\d+\.\d+|::1|::ffff:127\.\d+\.\d+\.\d+)$/
