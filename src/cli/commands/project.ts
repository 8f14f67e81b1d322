import type { Command } from 'commander'
import { createProject, deleteProject, listProjects, type ProjectInfo } from '#client/identity.ts'
import type { CommandContext } from '../context.ts'
import { projectBy } from '../names.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'

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
}

const table = (projects: readonly ProjectInfo[]): string[] =>
  columns(
    ['id', 'name', 'description'],
    projects.map((one) => [one.id, one.name, one.description]),
  )
