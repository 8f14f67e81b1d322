import Type from 'typebox'
import type { Principal } from '#control/identity/principal.ts'
import {
  type ClassedKind,
  classedLimit,
  classLimit,
  classOf,
} from '#control/resources/quota-classes.ts'
import { quotaUsed, setQuotaLimit } from '#control/resources/surroundings.ts'
import { invalid, refuseAs } from '../backup/errors.ts'
import { isMembers, type Members } from '../backup/input.ts'
import type { BackupApiServices } from '../backup/services.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget } from '../http/request.ts'

/* Limits of plans and checkpoints: of a project, and of the class that projects without limits of their own belong to. */

const KINDS = [
  ['plans', 'backup_plans'],
  ['checkpoints', 'checkpoints'],
] as const

const ProjectPath = Type.Object({ target_project_id: Type.String() })
const ClassPath = Type.Object({ class_name: Type.String() })

async function limits(limitOf: (kind: ClassedKind) => Promise<number>) {
  const [plans, checkpoints] = await Promise.all(KINDS.map(([, kind]) => limitOf(kind)))
  return { plans: plans ?? 0, checkpoints: checkpoints ?? 0 }
}

export function karborQuotaRoutes(app: Api, services: BackupApiServices): void {
  const { store } = services
  const base = '/v1/:project_id/quotas/:target_project_id'

  const targetOf = (request: {
    readonly params: { readonly target_project_id: string }
    readonly principal: Principal | null
  }): string => {
    const target = request.params.target_project_id
    if (!/^[0-9a-fA-F-]{32,36}$/.test(target)) throw invalid('The id of a project is expected.')
    const own = request.principal?.project?.id
    if (target !== own && request.principal?.domainRole !== 'admin') {
      throw refuseAs(403, 'CSBS.9001', 'The quota of another project.')
    }
    return target
  }

  app.get(base, { schema: { params: ProjectPath } }, async (request) => {
    const project = targetOf(request)
    return {
      quota: { id: project, ...(await limits((kind) => classedLimit(store.db, project, kind))) },
    }
  })

  app.get(`${base}/defaults`, { schema: { params: ProjectPath } }, async (request) => ({
    quota: {
      id: targetOf(request),
      ...(await limits((kind) => classLimit(store.db, kind))),
    },
  }))

  app.get(`${base}/detail`, { schema: { params: ProjectPath } }, async (request) => {
    const project = targetOf(request)
    const of = async (kind: ClassedKind) => ({
      limit: await classedLimit(store.db, project, kind),
      in_use: await quotaUsed(store.db, project, kind),
      reserved: 0,
    })
    return {
      quota: {
        id: project,
        plans: await of('backup_plans'),
        checkpoints: await of('checkpoints'),
      },
    }
  })

  app.put(
    base,
    { schema: { params: ProjectPath }, config: { role: 'admin', audit: 'backup-quota.update' } },
    async (request) => {
      const project = targetOf(request)
      auditTarget(request, project)
      await change(services, project, quotaFrom(request.body, 'quota'))
      return {
        quota: { id: project, ...(await limits((kind) => classedLimit(store.db, project, kind))) },
      }
    },
  )

  app.delete(
    base,
    { schema: { params: ProjectPath }, config: { role: 'admin', audit: 'backup-quota.reset' } },
    async (request, reply) => {
      const project = targetOf(request)
      auditTarget(request, project)
      await store.write(async (tx) => {
        await tx
          .deleteFrom('quotas')
          .where('project', '=', project)
          .where('kind', 'in', ['backup_plans', 'checkpoints'])
          .execute()
      })
      return await reply.code(200).send()
    },
  )

  const classes = '/v1/:project_id/quota_classes/:class_name'
  const classView = async (name: string) => ({
    quota_class: { id: name, ...(await limits((kind) => classLimit(store.db, kind, name))) },
  })

  app.get(classes, { schema: { params: ClassPath } }, async (request) =>
    classView(request.params.class_name),
  )

  app.put(
    classes,
    { schema: { params: ClassPath }, config: { role: 'admin', audit: 'backup-quota.class' } },
    async (request) => {
      const { class_name: name } = request.params
      if (request.principal?.domainRole !== 'admin') {
        throw refuseAs(403, 'CSBS.9001', 'Classes are set by administrators of the domain.')
      }
      if (name.length > 64) throw invalid('class_name: at most 64 characters.')
      auditTarget(request, name)
      await change(services, classOf(name), quotaFrom(request.body, 'quota_class'))
      return await classView(name)
    },
  )
}

function quotaFrom(body: unknown, name: string): Members {
  const members = isMembers(body) ? body[name] : undefined
  if (!isMembers(members)) throw invalid(`${name}: an object is expected.`)
  return members
}

async function change(
  { store }: BackupApiServices,
  project: string,
  members: Members,
): Promise<void> {
  const wanted = KINDS.flatMap(([name, kind]) => {
    const value = members[name] ?? null
    if (value === null) return []
    const limit = typeof value === 'string' && /^-?\d+$/.test(value) ? Number(value) : value
    if (!Number.isInteger(limit) || (limit as number) < -1 || (limit as number) > 2_147_483_647) {
      throw invalid(`${name}: a whole number from -1 on.`)
    }
    return [[kind, limit as number] as const]
  })
  await store.write(async (tx) => {
    for (const [kind, limit] of wanted) await setQuotaLimit(tx, project, kind, limit)
  })
}
