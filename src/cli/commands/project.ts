import type { Command } from 'commander'
import {
  createProject,
  deleteProject,
  listProjects,
  listQuotas,
  type ProjectInfo,
  type QuotaInfo,
  setQuotas,
} from '#client/identity.ts'
import type { CommandContext } from '../context.ts'
import { projectBy } from '../names.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf, openSession } from '../session.ts'
import { usageError } from '../usage.ts'

/* `holdfast project`: what volumes, groups and roles belong to. */

export function projectCommand(command: Command, context: CommandContext): void {
  command.description('projects: what volumes and groups belong to')
  const leaf = (name: string) => apiLeaf(context, command, name)

  apiAction(context, leaf('list').description('list the projects'), async (api, output) => {
    const { projects, domain_id } = await listProjects(api)
    output.result({ domain_id, projects }, table(projects))
  })

  const create = leaf('create')
    .description(
      'create a project; name it REGION or REGION_SOMETHING, clients read the region from it',
    )
    .argument('<name>')
    .option('--description <text>')
  apiAction<{ description?: string }>(context, create, async (api, output, flags, name = '') => {
    const project = await createProject(api, {
      name,
      ...(flags.description === undefined ? {} : { description: flags.description }),
    })
    output.result(project, table([project]))
  })

  const remove = leaf('delete')
    .description('delete a project without volumes and groups')
    .argument('<project>')
  apiAction(context, remove, async (api, output, _, name = '') => {
    const project = await projectBy(api, name)
    await deleteProject(api, project.id)
    output.result({ deleted: project.id }, `${project.name}: deleted`)
  })
  quotaCommands(command, context)
}

function quotaCommands(parent: Command, context: CommandContext): void {
  const command = parent.command('quota').description('how much a project may have')

  const show = apiLeaf(context, command, 'show')
    .description('show limits and what is used')
    .argument('<project>')
  apiAction(context, show, async (api, output, _, name = '') => {
    const { id } = await projectBy(api, name)
    const quotas = await listQuotas(api, id)
    output.result({ project_id: id, quotas }, quotaTable(quotas))
  })

  const set = apiLeaf(context, command, 'set')
    .description('set limits, all that are given or none: server_groups=50 replications=unlimited')
    .argument('<project>')
    .argument('<kind=limit...>', 'a number, `unlimited`, or `default`')
  set.action(async (name: string, settings: string[]) => {
    const api = await openSession(context.env, set.opts())
    const limits = Object.fromEntries(settings.map(limitOf))
    const { id } = await projectBy(api, name)
    const quotas = await setQuotas(api, id, limits)
    const changed = quotas.filter(({ kind }) => kind in limits)
    context.output(set).result({ project_id: id, quotas }, quotaTable(changed))
  })
}

function limitOf(setting: string): [string, number | null] {
  const [, kind, value] = /^([a-z_]+)=(\d{1,10}|unlimited|default)$/.exec(setting) ?? []
  if (kind === undefined || value === undefined) {
    throw usageError(`${setting}: give KIND=NUMBER, KIND=unlimited or KIND=default`)
  }
  if (value === 'default') return [kind, null]
  return [kind, value === 'unlimited' ? -1 : Number(value)]
}

const quotaTable = (quotas: readonly QuotaInfo[]): string[] =>
  columns(
    ['kind', 'used', 'limit', 'default'],
    quotas.map((one) => [one.kind, String(one.used), shown(one.limit), shown(one.default)]),
  )

const shown = (limit: number): string => (limit < 0 ? 'unlimited' : String(limit))

const table = (projects: readonly ProjectInfo[]): string[] =>
  columns(
    ['id', 'name', 'description'],
    projects.map((one) => [one.id, one.name, one.description]),
  )
