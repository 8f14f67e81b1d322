import type { Command } from 'commander'
import {
  attachPair,
  createInstance,
  deleteInstance,
  detachPair,
  listInstances,
  type SdrsInstance,
  showInstance,
} from '#client/instances.ts'
import type { CommandContext } from '../context.ts'
import { followJob, type JobFlags } from '../jobs.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { jobOptions } from './group.ts'

/* `holdfast instance`: protected instances, each a production server and its DR server, over the SDRS interface. */

export function instanceCommand(command: Command, context: CommandContext): void {
  command.description('protected instances: a production server and its DR server')
  const leaf = (name: string) => apiLeaf(context, command, name)

  const create = jobOptions(
    leaf('create')
      .description(
        'protect a server with all its disks; its DR server, DR volumes and pairs are made',
      )
      .argument('<name>')
      .requiredOption('--group <id>', 'protection group')
      .requiredOption('--server <id>', 'production server'),
  )
  apiAction<JobFlags & { group: string; server: string }>(
    context,
    create,
    async (api, output, flags, name = '') => {
      const job = await createInstance(api, { name, group: flags.group, server: flags.server })
      const ended = await followJob(api, output, job, flags, `protecting server ${flags.server}`)
      const instance = ended?.entities['protected_instance_id']
      if (typeof instance === 'string') output.say(`instance ${instance}`)
    },
  )

  const list = leaf('list')
    .description('list the protected instances')
    .option('--group <id>', 'only those of this group')
  apiAction<{ group?: string }>(context, list, async (api, output, flags) => {
    const instances = await listInstances(api, flags.group)
    output.result({ instances }, table(instances))
  })

  const show = leaf('show').description('show a protected instance').argument('<instance>')
  apiAction(context, show, async (api, output, _, id = '') => {
    const instance = await showInstance(api, id)
    output.result(instance, [
      ...table([instance]),
      ...instance.attachment.map(({ replication, device }) => `pair ${device}  ${replication}`),
    ])
  })

  const attach = jobOptions(
    leaf('attach')
      .description('attach a replication pair to both servers of an instance')
      .argument('<instance>')
      .argument('<pair>')
      .requiredOption('--device <name>', 'such as /dev/vdb'),
  )
  apiAction<JobFlags & { device: string }>(
    context,
    attach,
    async (api, output, flags, id = '', pair = '') => {
      const job = await attachPair(api, id, pair, flags.device)
      await followJob(api, output, job, flags, `attaching pair ${pair}`)
    },
  )

  const detach = jobOptions(
    leaf('detach')
      .description('take a replication pair out of both servers of an instance')
      .argument('<instance>')
      .argument('<pair>'),
  )
  apiAction<JobFlags>(context, detach, async (api, output, flags, id = '', pair = '') => {
    const job = await detachPair(api, id, pair)
    await followJob(api, output, job, flags, `detaching pair ${pair}`)
  })

  const remove = jobOptions(
    leaf('delete')
      .description('undo a protected instance; the production server stays')
      .argument('<instance>')
      .option('--with-dr-server', 'delete the DR server and its disks too'),
  )
  apiAction<JobFlags & { withDrServer?: boolean }>(
    context,
    remove,
    async (api, output, flags, id = '') => {
      const job = await deleteInstance(api, id, flags.withDrServer === true)
      await followJob(api, output, job, flags, `deleting instance ${id}`)
    },
  )
}

const table = (instances: readonly SdrsInstance[]): string[] =>
  columns(
    ['id', 'name', 'status', 'progress', 'source server', 'target server', 'production', 'pairs'],
    instances.map((one) => [
      one.id,
      one.name,
      one.status,
      `${one.progress} %`,
      one.source_server,
      one.target_server,
      one.priority_station,
      one.attachment.length,
    ]),
  )
