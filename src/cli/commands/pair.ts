import type { Command } from 'commander'
import {
  createPair,
  deletePair,
  expandPair,
  listPairs,
  type SdrsPair,
  showPair,
} from '#client/sdrs.ts'
import { rebuildPair } from '#client/protection.ts'
import type { CommandContext } from '../context.ts'
import { followJob, type JobFlags, positiveInteger } from '../jobs.ts'
import { followOperation } from '../operations.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { jobOptions } from './group.ts'

/* `holdfast pair`: a production volume and its DR volume, over the SDRS interface. */

export function pairCommand(command: Command, context: CommandContext): void {
  command.description('replication pairs: a production volume and its DR volume')
  const leaf = (name: string) => apiLeaf(context, command, name)

  const create = jobOptions(
    leaf('create')
      .description('pair a volume; its DR volume is made')
      .argument('<name>')
      .requiredOption('--group <id>', 'protection group')
      .requiredOption('--volume <id>', 'production volume'),
  )
  apiAction<JobFlags & { group: string; volume: string }>(
    context,
    create,
    async (api, output, flags, name = '') => {
      const job = await createPair(api, { name, group: flags.group, volume: flags.volume })
      const ended = await followJob(api, output, job, flags, `creating pair ${name}`)
      const pair = ended?.entities['replication_pair_id']
      if (typeof pair === 'string') output.say(`pair ${pair}`)
    },
  )

  const list = leaf('list')
    .description('list the pairs')
    .option('--group <id>', 'only those of this group')
  apiAction<{ group?: string }>(context, list, async (api, output, flags) => {
    const pairs = await listPairs(api, flags.group)
    output.result({ pairs }, table(pairs))
  })

  const show = leaf('show').description('show a pair').argument('<pair>')
  apiAction(context, show, async (api, output, _, id = '') => {
    const pair = await showPair(api, id)
    const [source = '', target = ''] = pair.volume_ids.split(',')
    const volumes = columns(
      ['side', 'volume'],
      [
        ['source', source],
        ['target', target],
      ],
    )
    output.result(pair, [...table([pair]), '', ...volumes])
  })

  const expand = jobOptions(
    leaf('expand')
      .description('grow both volumes of a pair')
      .argument('<pair>')
      .requiredOption('--size <gib>', 'new size in GiB'),
  )
  apiAction<JobFlags & { size: string }>(context, expand, async (api, output, flags, id = '') => {
    const job = await expandPair(api, id, positiveInteger('--size', flags.size, 32_768))
    await followJob(api, output, job, flags, `expanding pair ${id}`)
  })

  const rebuild = jobOptions(
    leaf('rebuild')
      .description("replace a pair's failed copy at the DR site by an empty one, and copy it anew")
      .argument('<pair>')
      .option('--force', 'also a copy that is good: there is none until the new one is complete'),
  )
  apiAction<JobFlags & { force?: boolean }>(
    context,
    rebuild,
    async (api, output, flags, id = '') => {
      const operation = await rebuildPair(api, id, flags.force === true)
      const what = `rebuilding the copy of pair ${id}`
      const ended = await followOperation(api, context, output, operation, flags, what)
      if (ended !== undefined) output.result(ended, `${what}: done`)
    },
  )

  const remove = jobOptions(
    leaf('delete')
      .description('undo a pair; the production volume stays')
      .argument('<pair>')
      .option('--with-dr-volume', 'delete the DR volume too'),
  )
  apiAction<JobFlags & { withDrVolume?: boolean }>(
    context,
    remove,
    async (api, output, flags, id = '') => {
      const pair = await showPair(api, id)
      const job = await deletePair(api, pair, flags.withDrVolume === true)
      await followJob(api, output, job, flags, `deleting pair ${id}`)
    },
  )
}

/** As wide as terminals are: the ids of the volumes are told by `show`. */
const table = (pairs: readonly SdrsPair[]): string[] =>
  columns(
    ['id', 'name', 'status', 'sync', 'progress', 'production', 'fault'],
    pairs.map((one) => [
      one.id,
      one.name,
      one.status,
      one.replication_status,
      `${one.progress} %`,
      one.priority_station,
      one.fault_level,
    ]),
  )
