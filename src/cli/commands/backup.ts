import type { Command } from 'commander'
import { systemClock } from '#base/system/clock.ts'
import type { ApiSession } from '#client/api.ts'
import {
  type Backup,
  copyBackup,
  createBackup,
  deleteBackup,
  listBackups,
  restoreBackup,
  showBackup,
  waitForBackup,
  waitForCopy,
  waitForRestore,
} from '#client/backups.ts'
import type { CommandContext } from '../context.ts'
import { type JobFlags, limitOf } from '../jobs.ts'
import { columns, type Output } from '../output.ts'
import { createProgress } from '../progress.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { usageError } from '../usage.ts'
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

interface RestoreFlags extends JobFlags {
  readonly server?: string
  readonly map?: string[]
  readonly powerOn: boolean
  readonly yes?: boolean
}

export function backupCommand(command: Command, context: CommandContext): void {
  command.description('backups of servers: make, list, restore, copy to another region, delete')
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

  const restore = jobOptions(
    leaf('restore')
      .description('write a backup back to the disks of a server, which is switched off for it')
      .argument('<backup>')
      .option('--server <id>', 'another server than the one that it is of; needs --map')
      .option(
        '--map <disk-backup=volume...>',
        'which disk backup goes to which volume of the server',
      )
      .option('--no-power-on', 'leave the server off')
      .option('--yes', 'you know that what is on these disks is lost'),
  )
  apiAction<RestoreFlags>(context, restore, async (api, output, flags, id = '') => {
    const backup = await showBackup(api, id)
    const volumes = mappingOf(backup, flags)
    const server = flags.server ?? backup.resource_id
    if (flags.yes !== true) {
      const shown = volumes.map(({ volume_id: volume }) => volume).join(', ')
      throw usageError(`what is on ${shown} would be lost; --yes is required`)
    }
    const begun = await restoreBackup(api, backup, { server, volumes, powerOn: flags.powerOn })
    if (!flags.wait) {
      output.result(begun, `restoring ${backup.name}: restore ${begun.id}`)
      return
    }
    output.say(`restoring ${backup.name} to server ${server}: restore ${begun.id}`)
    const progress = createProgress(context.streams, output, systemClock)
    try {
      const done = await waitForRestore(api, begun.id, {
        clock: systemClock,
        limitMs: limitOf(flags),
        onState: ({ status }) => progress.update(status, { restore_id: begun.id, status }),
      })
      output.result(done, [`restored ${backup.name}`, ...Object.values(done.resources_reason)])
    } finally {
      progress.end()
    }
  })

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

function mappingOf(backup: Backup, { map, server }: RestoreFlags) {
  const disks = backup.extend_info.volume_backups
  if (map === undefined) {
    if (server !== undefined && server !== backup.resource_id) {
      throw usageError('--map is required for another server')
    }
    return disks.map((disk) => ({ backup_id: disk.id, volume_id: disk.source_volume_id }))
  }
  return map.map((text) => {
    const [from = '', to = ''] = text.split('=')
    const disk = disks.find((one) => one.id === from || one.source_volume_id === from)
    if (disk === undefined || to === '') {
      throw usageError(`--map ${text} is not accepted, accepted: DISK-BACKUP=VOLUME`)
    }
    return { backup_id: disk.id, volume_id: to }
  })
}

const timeOf = (naive: string | null): string =>
  naive === null ? '' : `${naive.slice(0, 19).replace('T', ' ')} UTC`

export const table = (backups: readonly Backup[]): string[] =>
  columns(
    ['id', 'name', 'server', 'status', 'moment', 'made by', 'manner', 'copies'],
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

function detail(one: Backup): string[] {
  const { extend_info: info } = one
  const from = info.copy_from === '' ? '' : `, copied from ${info.copy_from}`
  return [
    `${one.id} ${one.name}: ${one.status}${info.fail_op === '' ? '' : ` (${info.fail_op} failed: ${info.fail_reason})`}`,
    `of server ${info.resource_name} (${one.resource_id}) at ${timeOf(one.protected_at)}${from}`,
    `${info.size} MB, ${info.incremental ? 'only changes were read' : 'full'}`,
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
