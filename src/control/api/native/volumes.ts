import Type from 'typebox'
import type { Api } from '../http/dialect.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import { ById, describe, nullable, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'

/** Where a volume may be written now, and the credential to do it over TCP. */
export function volumeRoutes(app: Api, services: NativeServices): void {
  const Connection = Type.Object({
    export: Type.String({ description: 'Name of the NBD export.' }),
    site: Type.String(),
    unix: Type.String({ description: "Socket on the agent's own machine." }),
    tcp: nullable(
      Type.Object({
        host: Type.String(),
        port: Type.Integer(),
        tls: Type.Boolean(),
        ca: Type.String({ description: "PEM of the authority of the server's certificate." }),
      }),
    ),
  })
  app.get(
    '/api/v1/volumes/:id/connection',
    {
      // Reading it is the first step of writing the volume.
      config: { role: 'operator' },
      schema: describe(
        'Tell where a volume or pair may be written now; 409 with the reason when nowhere',
        'volumes',
        Connection,
        { params: ById },
      ),
    },
    async (request) => {
      const location = await services.directory.locate(projectOf(request), request.params.id)
      switch (location.kind) {
        case 'unknown':
          throw refuse(
            404,
            'VOLUME_UNKNOWN',
            'There is no such volume or replication pair.',
            'List the volumes.',
          )
        case 'refused':
          throw refuse(
            409,
            'VOLUME_NOT_WRITABLE',
            location.reason,
            'Ask again, or look at the status of the group.',
          )
        case 'served': {
          const { export: name, site, unix, tcp } = location
          const ca = services.authority
          return { export: name, site, unix, tcp: tcp === null ? null : { ...tcp, ca } }
        }
      }
    },
  )

  const Credential = Type.Object({
    cert: Type.String(),
    key: Type.String(),
    ca: Type.String(),
    expires_at: Time,
  })
  app.post(
    '/api/v1/nbd-credentials',
    {
      config: { audit: 'nbd-credential.issue', emptyBody: true },
      schema: describe(
        "Issue a client certificate for the project's exports over TLS; its key is shown this once",
        'volumes',
        Credential,
        { body: Type.Object({}) },
        201,
      ),
    },
    async (request, reply) => {
      if (services.certificates === null) {
        throw refuse(
          409,
          'NO_SIGNING_KEY',
          'This control plane issues no client certificates.',
          'Set pki.caKey, or issue one with the tools of the authority.',
        )
      }
      const { user } = principalOf(request)
      const project = projectOf(request)
      const { cert, key, expiresAtMs } = await services.certificates.issue(project, user.id)
      auditTarget(request, project)
      return await reply
        .code(201)
        .send({ cert, key, ca: services.authority, expires_at: timeOf(expiresAtMs) })
    },
  )
}
