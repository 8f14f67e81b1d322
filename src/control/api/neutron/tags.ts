import Type from 'typebox'
import { provideDefaults } from '#control/operations/definitions/networks/network-requests.ts'
import { findSubnet, findVpc } from '#control/resources/networks.ts'
import { findSecurityGroup } from '#control/resources/security-groups.ts'
import { deleteTags, setTags, type TaggedResource, tagsOf } from '#control/resources/tags.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import { isTagKey, isTagValue, TAGS_MAX } from '#domain/tag.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import type { NeutronServices } from './services.ts'
import { refuse } from './errors.ts'

/* Tags of VPCs, subnets and security groups. The publisher put them under this API's address although they belong to the
 * VPC API, and two Terraform providers read them after every read of such a resource. */

const Path = Type.Object({
  project_id: Type.String(),
  tagged_type: Type.String(),
  resource_id: Type.String(),
})

const ActionBody = Type.Object({
  action: Type.Union([Type.Literal('create'), Type.Literal('delete')]),
  tags: Type.Array(Type.Object({ key: Type.String(), value: optional(Type.String()) }), {
    minItems: 1,
    maxItems: TAGS_MAX,
  }),
})

export function tagRoutes(app: Api, services: NeutronServices): void {
  const base = '/v2.0/:project_id/:tagged_type/:resource_id/tags'
  const { store } = services

  app.get(base, { schema: { params: Path } }, async (request) => {
    const project = projectOf(request)
    await provideDefaults(services, project)
    const { tagged_type: type, resource_id: id } = request.params
    const of = await resourceAt(store.db, project, type, id)
    return { tags: await tagsOf(store.db, of.kind, of.resource) }
  })

  app.post(
    `${base}/action`,
    { schema: { params: Path, body: ActionBody }, config: { audit: 'network-tags.change' } },
    async (request, reply) => {
      const project = projectOf(request)
      await provideDefaults(services, project)
      const { tagged_type: type, resource_id: id } = request.params
      auditTarget(request, id)
      const { action } = request.body
      const tags = request.body.tags.map(({ key, value }) => ({ key, value: value ?? '' }))
      if (new Set(tags.map(({ key }) => key)).size < tags.length) {
        throw refuse('InvalidInput', 'tags: a key occurs twice.')
      }
      if (action === 'create' && !tags.every((tag) => isTagKey(tag.key) && isTagValue(tag.value))) {
        throw refuse('InvalidInput', 'tags: a key or a value is too long, or begins or ends blank.')
      }
      const keys = tags.map(({ key }) => key)
      const done = await store.write(async (tx) => {
        const of = await resourceAt(tx, project, type, id)
        if (action === 'create') return await setTags(tx, of, tags)
        await deleteTags(tx, of, keys)
        return true
      })
      if (!done) throw refuse('InvalidInput', `tags: at most ${TAGS_MAX} per resource.`)
      return await reply.code(204).send()
    },
  )
}

/** Throws 404. */
async function resourceAt(
  db: Queries | Transaction,
  project: string,
  type: string,
  id: string,
): Promise<TaggedResource> {
  const of = { project, resource: id }
  if (type === 'vpcs' && (await findVpc(db, project, id)) !== undefined) {
    return { ...of, kind: 'vpc' }
  }
  if (type === 'subnets' && (await findSubnet(db, project, id))?.id === id) {
    return { ...of, kind: 'subnet' }
  }
  if (type === 'security-groups' && (await findSecurityGroup(db, project, id)) !== undefined) {
    return { ...of, kind: 'security_group' }
  }
  throw refuse('ResourceNotFound')
}
