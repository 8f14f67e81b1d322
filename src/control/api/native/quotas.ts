import Type from 'typebox'
import { unreachable } from '#base/assert.ts'
import { PROJECT_UNKNOWN } from '#control/identity/manage.ts'
import {
  changeQuotas,
  projectQuotas,
  type QuotaView,
  type RefusedQuota,
} from '#control/operations/definitions/quota-requests.ts'
import { isQuotaKind, QUOTA_KINDS, QUOTA_LIMIT_MAX, type QuotaKind, QUOTAS } from '#domain/quota.ts'
import type { Api } from '../http/dialect.ts'
import type { Refusal } from '../http/refusal.ts'
import { auditTarget, principalOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import { ById, describe } from './route.ts'
import type { NativeServices } from './services.ts'

/* What a project may have, for administrators of the domain. The projects themselves see it in the APIs of the resources. */

const TAG = 'identity'
const Quota = Type.Object({
  kind: Type.String(),
  limit: Type.Integer({ description: '-1: unlimited.' }),
  used: Type.Integer(),
  default: Type.Integer({ description: 'Holds while no limit of its own is set.' }),
  min: Type.Integer(),
  max: Type.Integer({ description: '-1: no bound.' }),
})
const Quotas = Type.Object({ quotas: Type.Array(Quota) })
const Change = Type.Object({
  quotas: Type.Record(Type.String(), Type.Union([Type.Number(), Type.Null()]), {
    description: 'Limits by kind. -1: unlimited; null: the default.',
  }),
})

const view = ({ kind, limit, used, fallback }: QuotaView) => ({
  kind,
  limit,
  used,
  default: fallback,
  min: QUOTAS[kind].min,
  max: QUOTAS[kind].max,
})

export function quotaRoutes(app: Api, { store, identity }: NativeServices): void {
  const path = '/api/v1/projects/:id/quotas'

  async function projectOf(request: Parameters<typeof principalOf>[0], id: string) {
    const projects = await identity.management.listProjects(principalOf(request).domain.id)
    if (projects.some((project) => project.id === id)) return id
    throw refuse(404, PROJECT_UNKNOWN.code, PROJECT_UNKNOWN.text, PROJECT_UNKNOWN.hint)
  }

  const show = async (project: string) => ({
    quotas: (await store.read((db) => projectQuotas(db, project))).map(view),
  })

  app.get(
    path,
    {
      config: { access: 'administrator' },
      schema: describe('Show the quotas of a project', TAG, Quotas, { params: ById }),
    },
    async (request) => await show(await projectOf(request, request.params.id)),
  )

  app.put(
    path,
    {
      config: { access: 'administrator', audit: 'project.quotas' },
      schema: describe(
        'Set quotas of a project: all that are given, or none. What it has already is never taken away',
        TAG,
        Quotas,
        { params: ById, body: Change },
      ),
    },
    async (request) => {
      const { quotas } = request.body
      auditTarget(request, request.params.id, { quotas })
      const project = await projectOf(request, request.params.id)
      const limits = new Map<QuotaKind, number | null>()
      for (const [kind, limit] of Object.entries(quotas)) {
        if (!isQuotaKind(kind)) {
          const hint = `Use one of ${QUOTA_KINDS.join(', ')}.`
          throw refuse(400, 'QUOTA_KIND_UNKNOWN', `There is no quota of ${kind}.`, hint)
        }
        limits.set(kind, limit)
      }
      const refused = await changeQuotas(store, project, limits)
      if (refused !== null) throw refusalOf(refused)
      return await show(project)
    },
  )
}

function refusalOf({ kind, refusal, used }: RefusedQuota): Refusal {
  switch (refusal) {
    case 'QUOTA_OUT_OF_RANGE': {
      const { min, max } = QUOTAS[kind]
      const hint = `Give a whole number from ${min} to ${max < 0 ? QUOTA_LIMIT_MAX : max}${max < 0 ? ', or -1 for no limit' : ''}.`
      return refuse(400, refusal, `${kind} cannot have this limit.`, hint)
    }
    case 'QUOTA_BELOW_USAGE': {
      const hint = 'Delete some first, or give a higher limit.'
      return refuse(409, refusal, `The project has ${used} of ${kind} already.`, hint)
    }
    default:
      return unreachable(refusal)
  }
}
