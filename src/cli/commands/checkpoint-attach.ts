import type { Command } from 'commander'
import {
  attachBackup,
  type BackupDetail,
  detachBackup,
  showBackupDetail,
} from '#client/backup-forms.ts'
import type { CommandContext } from '../context.ts'
import type { JobFlags } from '../jobs.ts'
import { followOperation } from '../operations.ts'
import { columns } from '../output.ts'
import { apiAction } from '../session.ts'
import { jobOptions } from './group.ts'

/* `holdfast checkpoint attach|detach`: the disks of a backup are read over NBD straight from the vault, without a restore. */

export function attachLeaves(leaf: (name: string) => Command, context: CommandContext): void {
  const attach = jobOptions(
    leaf('attach')
      .description('offer the disks of a backup over NBD, read-only, straight from the vault')
      .argument('<backup>', 'a backup, or a checkpoint that holds just one')
      .option('--site <name>', 'whose agent offers them'),
  )
  apiAction<JobFlags & { site?: string }>(context, attach, async (api, output, flags, id = '') => {
    const accepted = await attachBackup(api, id, flags.site)
    const { operation_id: operation } = accepted
    const what = `attaching backup ${id}`
    const ended = await followOperation(api, context, output, operation, flags, what)
    if (ended === undefined) return
    const shown = await showBackupDetail(api, accepted.backup.id)
    output.result(shown, attachedLines(shown))
  })

  const detach = jobOptions(
    leaf('detach').description('end what attach began').argument('<backup>'),
  )
  apiAction<JobFlags>(context, detach, async (api, output, flags, id = '') => {
    const { operation_id: operation } = await detachBackup(api, id)
    const what = `detaching backup ${id}`
    const ended = await followOperation(api, context, output, operation, flags, what)
    if (ended !== undefined) output.result(ended, `${what}: done`)
  })
}

function attachedLines({ attachment }: BackupDetail): string[] {
  if (attachment === null) return ['not attached']
  const { unix, tcp, exports } = attachment
  const address = tcp === null ? '' : `${tcp.tls ? 'nbds' : 'nbd'}://${tcp.host}:${tcp.port}/`
  return [
    `${attachment.status} at ${attachment.site}`,
    ...(unix === null ? [] : [`unix    ${unix}`]),
    ...(tcp === null ? [] : [`tcp     ${address}EXPORT`]),
    ...columns(
      ['volume', 'export', 'bytes'],
      exports.map((one) => [one.volume, one.export, one.size_bytes]),
    ),
  ]
}
