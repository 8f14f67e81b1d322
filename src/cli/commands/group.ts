import type { Command } from 'commander'
import type { ApiSession } from '#client/api.ts'
import {
  createGroup,
  deleteGroup,
  failOverGroup,
  listDomains,
  listGroups,
  listVpcs,
  reverseGroup,
  type SdrsDomain,
  type SdrsGroup,
  showGroup,
  startGroup,
  stopGroup,
} from '#client/sdrs.ts'
import type { CommandContext } from '../context.ts'
import { followJob, type JobFlags } from '../jobs.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { usageError } from '../usage.ts'

/* `holdfast group`: protection groups and their life, over the SDRS interface. */

export const jobOptions = (command: Command): Command =>
  command
    .option('--no-wait', 'print the job and leave')
    .option('--timeout <seconds>', 'longest wait for the job', '300')

interface CreateFlags extends JobFlags {
  readonly source: string
  readonly target: string
  readonly vpc?: string
  readonly description?: string
}

export function groupCommand(command: Command, context: CommandContext): void {
  command.description('protection groups: create, start, stop, switch sides, fail over')
  const leaf = (name: string) => apiLeaf(context, command, name)

  const create = jobOptions(
    leaf('create')
      .description('create a group whose volumes move together')
      .argument('<name>')
      .requiredOption('--source <site>', 'production site')
      .requiredOption('--target <site>', 'DR site')
      .option('--vpc <id>', 'network (default: the first of the project)')
      .option('--description <text>', 'at most 64 bytes, without < and >'),
  )
  apiAction<CreateFlags>(context, create, async (api, output, flags, name = '') => {
    const domain = domainOf(await listDomains(api), flags.source, flags.target)
    const vpcId = flags.vpc ?? (await listVpcs(api))[0]?.id
    if (vpcId === undefined) throw usageError('--vpc is required: the project has no network')
    const job = await createGroup(api, {
      name,
      source: flags.source,
      target: flags.target,
      domainId: domain.id,
      vpcId,
      ...(flags.description === undefined ? {} : { description: flags.description }),
    })
    const ended = await followJob(api, output, job, flags, `creating group ${name}`)
    const group = ended?.entities['server_group_id']
    if (typeof group === 'string') output.say(`group ${group}`)
  })

  apiAction(context, leaf('list').description('list the groups'), async (api, output) => {
    const groups = await listGroups(api)
    output.result({ groups }, table(groups))
  })

  const show = leaf('show').description('show a group').argument('<group>')
  apiAction(context, show, async (api, output, _, id = '') => {
    const group = await showGroup(api, id)
    output.result(group, table([group]))
  })

  const change = (
    name: string,
    about: string,
    act: (api: ApiSession, group: string, flags: { force?: boolean }) => Promise<string>,
    extend: (one: Command) => Command = (one) => one,
  ) => {
    const one = extend(jobOptions(leaf(name).description(about).argument('<group>')))
    apiAction<JobFlags & { force?: boolean }>(context, one, async (api, output, flags, id = '') => {
      await followJob(api, output, await act(api, id, flags), flags, `${name} ${id}`)
    })
  }
  change(
    'start',
    'protect: copy, then keep both sites in sync; after a failover: protect again',
    startGroup,
  )
  change('stop', 'stop protecting; production goes on alone', stopGroup)
  change(
    'reverse',
    'planned switch: the other site becomes production, nothing is lost',
    async (api, id) => {
      const { priority_station: now } = await showGroup(api, id)
      return await reverseGroup(api, id, now === 'source' ? 'target' : 'source')
    },
  )
  change(
    'failover',
    'the production site is lost: make the DR site writable',
    (api, id, flags) => failOverGroup(api, id, flags.force === true),
    (one) =>
      one.option(
        '--force',
        'also to a side that is not known to hold every write: writes may be lost',
      ),
  )
  change('delete', 'delete a group without pairs', deleteGroup)
}

function domainOf(domains: readonly SdrsDomain[], source: string, target: string): SdrsDomain {
  const zones = (one: SdrsDomain) => [
    one.local_replication_cluster.availability_zone,
    one.remote_replication_cluster.availability_zone,
  ]
  const found = domains.find((one) => zones(one).includes(source) && zones(one).includes(target))
  if (found === undefined || source === target) {
    const known = domains.map((one) => zones(one).join(' and ')).join('; ')
    throw usageError(`--source ${source} --target ${target} is no domain, accepted: ${known}`)
  }
  return found
}

const table = (groups: readonly SdrsGroup[]): string[] =>
  columns(
    ['id', 'name', 'status', 'production', 'DR', 'pairs', 'progress'],
    groups.map((one) => {
      const sites = [one.source_availability_zone, one.target_availability_zone]
      const [production, dr] = one.priority_station === 'source' ? sites : sites.toReversed()
      return [
        one.id,
        one.name,
        one.status,
        production,
        dr,
        one.replication_num,
        `${one.progress} %`,
      ]
    }),
  )
