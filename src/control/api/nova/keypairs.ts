import Type from 'typebox'
import { findKeypair, listKeypairs } from '#control/resources/servers.ts'
import type { KeypairRow } from '#control/store/tables/servers.ts'
import { inputWith } from '../compute/input.ts'
import type { ComputeServices } from '../compute/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { keypairDetail, keypairObject } from './codec.ts'
import { badRequest, notFound, refuse } from './errors.ts'
import { fingerprintOf, newKeyPair, PUBLIC_KEY_CHARACTERS_MAX } from './ssh-keys.ts'
import { minorOf } from './versions.ts'

/* Key pairs. A server remembers the name of one; nothing here can put the key into a guest. Names are unique in the project. */
const KeypairPath = Type.Object({ project_id: Type.String(), keypair_name: Type.String() })

const NAME = /^[A-Za-z0-9_ @.-]{1,255}$/
/** Per project. At the limit a new one is refused. */
const KEYPAIRS_MAX = 100

const input = inputWith(badRequest)

export function keypairRoutes(app: Api, services: ComputeServices): void {
  const { store, clock } = services
  const base = '/v2.1/:project_id/os-keypairs'

  app.get(base, async (request) => ({
    keypairs: (await listKeypairs(store.db, projectOf(request))).map((row) => ({
      keypair: keypairObject(row),
    })),
  }))

  app.post(base, { config: { audit: 'keypair.create' } }, async (request, reply) => {
    const project = projectOf(request)
    const wanted = input.members(request.body, 'keypair')
    const name = input.text(wanted, 'name')
    if (!NAME.test(name)) throw badRequest('name: letters, digits, blanks and the signs _@.-')
    if ((input.filledText(wanted, 'type') ?? 'ssh') !== 'ssh') {
      throw badRequest('type: only ssh is offered.')
    }
    const given = input.filledText(wanted, 'public_key', PUBLIC_KEY_CHARACTERS_MAX)
    const made = given === null ? await newKeyPair('Generated-by-Holdfast') : null
    const publicKey = made?.publicKey ?? given?.trim() ?? ''
    const fingerprint = fingerprintOf(publicKey)
    if (fingerprint === null || publicKey.includes('\n')) {
      throw badRequest('public_key: must be one line as OpenSSH writes it.')
    }
    auditTarget(request, name)
    const row: KeypairRow = {
      project,
      user_id: principalOf(request).user.id,
      name,
      public_key: publicKey,
      fingerprint,
      created_at: clock.wallMs(),
    }
    await store.write(async (tx) => {
      const known = await listKeypairs(tx, project)
      if (known.some((one) => one.name === name)) {
        throw refuse(409, `Key pair '${name}' already exists.`)
      }
      if (known.length >= KEYPAIRS_MAX) throw refuse(403, 'The quota of key pairs is used up.')
      await tx.insertInto('keypairs').values(row).execute()
    })
    void reply.code(minorOf(request) >= 2 ? 201 : 200)
    const secret = made === null ? {} : { private_key: made.privateKey }
    return { keypair: { ...keypairObject(row), ...secret } }
  })

  app.get(`${base}/:keypair_name`, { schema: { params: KeypairPath } }, async (request) => {
    const row = await findKeypair(store.db, projectOf(request), request.params.keypair_name)
    if (row === undefined) throw notFound('There is no such key pair.')
    return { keypair: keypairDetail(row) }
  })

  app.delete(
    `${base}/:keypair_name`,
    { schema: { params: KeypairPath }, config: { audit: 'keypair.delete' } },
    async (request, reply) => {
      const project = projectOf(request)
      const { keypair_name: name } = request.params
      auditTarget(request, name)
      await store.write(async (tx) => {
        if ((await findKeypair(tx, project, name)) === undefined) {
          throw notFound('There is no such key pair.')
        }
        await tx
          .deleteFrom('keypairs')
          .where('project', '=', project)
          .where('name', '=', name)
          .execute()
      })
      return await reply.code(minorOf(request) >= 2 ? 204 : 202).send()
    },
  )
}
