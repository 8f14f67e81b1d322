import type { Command } from 'commander'
import { systemClock } from '#base/system/clock.ts'
import type { ApiSession } from '#client/api.ts'
import {
  type Backup,
  copyBackup,
  createBackup,
  deleteBackup,
  listBackups,
  SERVER_TYPE,
  showBackup,
  waitForBackup,
  waitForCopy,
} from '#client/backups.ts'
import type { CommandContext } from '../context.ts'
import { type JobFlags, limitOf } from '../jobs.ts'
import { columns, type Output } from '../output.ts'
import { createProgress } from '../progress.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { groupLeaf, rateLeaf } from './backup-forms.ts'
import { restoreLeaf } from './backup-restore.ts'
import { jobOptions } from './group.ts'

/* `holdfast backup`: servers are backed up, and backups restored, copied to another region, and deleted. */

export interface CopyFlags extends JobFlags {
  readonly toRegion: string
  readonly toProject: string
  readonly accelerate?: boolean
}

/** Where a copy goes. */
export const copyOptions = (command: Command): Command =>
  command
    .requiredOption('--to-region <name>', 'the other region')
    .requiredOption('--to-project <id>', 'the project there that the copy will belong to')
    .option('--accelerate', 'several streams at once, and stronger compression')

export const copyTarget = (flags: CopyFlags) => ({
  region: flags.toRegion,
  project: flags.toProject,
  accelerate: flags.accelerate === true,
})

interface CreateFlags extends JobFlags {
  readonly name?: string
  readonly description?: string
  readonly full?: boolean
}

export function backupCommand(command: Command, context: CommandContext): void {
  command.description(
    'backups of servers and groups: make, list, restore, copy to another region, delete',
  )
  const leaf = (name: string) => apiLeaf(context, command, name)

  const create = jobOptions(
    leaf('create')
      .description('back up all disks of a server, at one moment')
      .argument('<server>')
      .option('--name <name>', 'of the backup; by default one is made up')
      .option('--description <text>')
      .option('--full', 'read everything, and build on no earlier backup'),
  )
  apiAction<CreateFlags>(context, create, async (api, output, flags, server = '') => {
    const { name, description } = flags
    const begun = await createBackup(api, {
      server,
      incremental: flags.full !== true,
      ...(name === undefined ? {} : { name }),
      ...(description === undefined ? {} : { description }),
    })
    if (!flags.wait) {
      output.result(begun, `backing up ${server}: backup ${begun.id}`)
      return
    }
    const made = await followBackup(api, context, output, begun.id, flags)
    output.result(made, detail(made))
  })

  const list = leaf('list')
    .description('list the backups, newest first')
    .option('--server <id>', 'only those of this server')
    .option('--policy <id>', 'only those that this policy made')
    .option('--status <status>', 'only those that are available, error, ...')
  apiAction<{ server?: string; policy?: string; status?: string }>(
    context,
    list,
    async (api, output, flags) => {
      const backups = await listBackups(api, flags)
      output.result({ backups }, table(backups))
    },
  )

  const show = leaf('show').description('show a backup').argument('<backup>')
  apiAction(context, show, async (api, output, _, id = '') => {
    const found = await showBackup(api, id)
    output.result(found, detail(found))
  })

  restoreLeaf(leaf, context)
  groupLeaf(leaf, context)
  rateLeaf(leaf, context)

  const replicate = jobOptions(
    copyOptions(
      leaf('replicate').description('copy a backup to another region').argument('<backup>'),
    ),
  )
  apiAction<CopyFlags>(context, replicate, async (api, output, flags, id = '') => {
    const record = await copyBackup(api, id, copyTarget(flags))
    if (!flags.wait) {
      output.result({ replication_record_id: record }, `copying ${id}: record ${record}`)
      return
    }
    await followCopy(api, context, output, { backup: id, record }, flags)
  })

  const remove = leaf('delete').description('delete a backup').argument('<backup>')
  apiAction(context, remove, async (api, output, _, id = '') => {
    const backup = await showBackup(api, id)
    await deleteBackup(api, backup)
    output.result({ backup: backup.id }, `backup ${backup.name} is being deleted`)
  })
}

/** Shows how far it is until it is made. */
export async function followBackup(
  api: ApiSession,
  context: CommandContext,
  output: Output,
  backup: string,
  flags: JobFlags,
): Promise<Backup> {
  output.say(`backup ${backup}, waiting for its end`)
  const progress = createProgress(context.streams, output, systemClock)
  try {
    return await waitForBackup(api, backup, {
      clock: systemClock,
      limitMs: limitOf(flags),
      onState: ({ status, extend_info: { progress: percent } }) =>
        progress.update(`${percent} %  ${status}`, { backup, status, percent }),
    })
  } finally {
    progress.end()
  }
}

/** Shows how far it is until it has arrived, and prints it. */
export async function followCopy(
  api: ApiSession,
  context: CommandContext,
  output: Output,
  { backup, record }: { readonly backup: string; readonly record: string },
  flags: JobFlags,
): Promise<void> {
  const progress = createProgress(context.streams, output, systemClock)
  try {
    const done = await waitForCopy(api, backup, record, {
      clock: systemClock,
      limitMs: limitOf(flags),
      onState: ({ status, extra_info: { progress: percent } }) =>
        progress.update(`${percent} %  ${status}`, { backup, record, status, percent }),
    })
    const there = done.destination_checkpoint_item_id ?? ''
    output.result(done, `backup ${backup} is backup ${there} in ${done.destination_region}`)
  } finally {
    progress.end()
  }
}

const timeOf = (naive: string | null): string =>
  naive === null ? '' : `${naive.slice(0, 19).replace('T', ' ')} UTC`

export const table = (backups: readonly Backup[]): string[] =>
  columns(
    ['id', 'name', 'of', 'status', 'moment', 'made by', 'manner', 'copies'],
    backups.map((one) => [
      one.id,
      one.name,
      one.extend_info.resource_name,
      one.status,
      timeOf(one.protected_at ?? one.created_at),
      one.extend_info.auto_trigger ? 'schedule' : 'hand',
      one.extend_info.incremental ? 'changes' : 'full',
      one.replication_records
        .filter(({ status }) => status === 'success')
        .map(({ destination_region: region }) => region)
        .join(' '),
    ]),
  )

const stallOf = (ms: number | null | undefined): string =>
  typeof ms === 'number' ? `, writes waited ${ms.toFixed(1)} ms at most` : ''

function detail(one: Backup): string[] {
  const { extend_info: info } = one
  const from = info.copy_from === '' ? '' : `, copied from ${info.copy_from}`
  return [
    `${one.id} ${one.name}: ${one.status}${info.fail_op === '' ? '' : ` (${info.fail_op} failed: ${info.fail_reason})`}`,
    `of ${one.resource_type === SERVER_TYPE ? 'server' : 'group'} ${info.resource_name} (${one.resource_id}) at ${timeOf(one.protected_at)}${from}`,
    `${info.size} MB, ${info.incremental ? 'only changes were read' : 'full'}${stallOf(info.stall_ms)}`,
    ...(one.expired_at === null ? [] : [`kept until ${timeOf(one.expired_at)}`]),
    ...(one.periodic_type === null ? [] : [`kept as the last of its ${one.periodic_type}`]),
    ...columns(
      ['disk backup', 'volume', 'GB', 'system'],
      info.volume_backups.map((disk) => [
        disk.id,
        disk.source_volume_id,
        disk.source_volume_size,
        disk.bootable ? 'yes' : 'no',
      ]),
    ),
    ...(one.replication_records.length === 0
      ? []
      : columns(
          ['copy', 'region', 'status', 'backup there', 'reason'],
          one.replication_records.map((copy) => [
            copy.id,
            copy.destination_region,
            copy.status,
            copy.destination_checkpoint_item_id ?? '',
            copy.extra_info.fail_reason ?? '',
          ]),
        )),
  ]
}
