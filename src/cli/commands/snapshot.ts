import type { Command } from 'commander'
import {
  createSnapshot,
  deleteSnapshot,
  listSnapshots,
  rollBackSnapshot,
  showSnapshot,
  type Snapshot,
} from '#client/protection.ts'
import type { CommandContext } from '../context.ts'
import type { JobFlags } from '../jobs.ts'
import { followOperation } from '../operations.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { usageError } from '../usage.ts'
import { jobOptions } from './group.ts'

/* `holdfast snapshot`: a group's disks, or volumes of one site, as they are at one moment. */

interface CreateFlags extends JobFlags {
  readonly group?: string
  readonly volume?: string[]
  readonly site?: string
}

export function snapshotCommand(command: Command, context: CommandContext): void {
  command.description('snapshots: take, list, delete, go back to one')
  const leaf = (name: string) => apiLeaf(context, command, name)

  const create = jobOptions(
    leaf('create')
      .description('take a snapshot of all disks of a group, or of volumes, at one moment')
      .argument('<name>')
      .option('--group <id>', "the group's disks, at the site that writes")
      .option('--volume <id...>', 'these volumes, all of one site')
      .option('--site <name>', 'with --group: at this site'),
  )
  apiAction<CreateFlags>(context, create, async (api, output, flags, name = '') => {
    const { group, volume: volumes, site } = flags
    if ((group === undefined) === (volumes === undefined)) {
      throw usageError('either --group or --volume is required')
    }
    const accepted = await createSnapshot(api, {
      name,
      ...(group === undefined ? {} : { group }),
      ...(volumes === undefined ? {} : { volumes }),
      ...(site === undefined ? {} : { site }),
    })
    const { id } = accepted.snapshot
    const what = `taking snapshot ${name}`
    const ended = await followOperation(api, context, output, accepted.operation_id, flags, what)
    if (ended === undefined) return
    const taken = await showSnapshot(api, id)
    output.result(taken, detail(taken))
  })

  const list = leaf('list')
    .description('list the snapshots')
    .option('--group <id>', 'only those of this group')
  apiAction<{ group?: string }>(context, list, async (api, output, { group }) => {
    const snapshots = await listSnapshots(api, group)
    output.result({ snapshots }, table(snapshots))
  })

  const show = leaf('show').description('show a snapshot').argument('<snapshot>')
  apiAction(context, show, async (api, output, _, id = '') => {
    const found = await showSnapshot(api, id)
    output.result(found, detail(found))
  })

  const remove = jobOptions(leaf('delete').description('delete a snapshot').argument('<snapshot>'))
  apiAction<JobFlags>(context, remove, async (api, output, flags, id = '') => {
    const { operation_id: operation } = await deleteSnapshot(api, id)
    const what = `deleting snapshot ${id}`
    const ended = await followOperation(api, context, output, operation, flags, what)
    if (ended !== undefined) output.result(ended, `${what}: done`)
  })

  const rollback = jobOptions(
    leaf('rollback')
      .description('set the volumes back to a snapshot; what was written since is gone')
      .argument('<snapshot>')
      .option('--yes', 'you know that newer data of these volumes is lost'),
  )
  apiAction<JobFlags & { yes?: boolean }>(
    context,
    rollback,
    async (api, output, flags, id = '') => {
      const found = await showSnapshot(api, id)
      if (flags.yes !== true) {
        const volumes = found.volumes.map((one) => one.id).join(', ')
        throw usageError(
          `everything written to ${volumes} since ${found.taken_at ?? 'the snapshot'} would be lost; --yes is required`,
        )
      }
      const { operation_id: operation } = await rollBackSnapshot(api, id)
      const what = `rolling back to ${found.name}`
      const ended = await followOperation(api, context, output, operation, flags, what)
      if (ended !== undefined) output.result(ended, `${what}: done`)
    },
  )
}

const table = (snapshots: readonly Snapshot[]): string[] =>
  columns(
    ['id', 'name', 'status', 'taken', 'group', 'site', 'volumes', 'reason'],
    snapshots.map((one) => [
      one.id,
      one.name,
      one.status,
      one.taken_at,
      one.group,
      one.site,
      one.volumes.length,
      one.reason,
    ]),
  )

function detail(one: Snapshot): string[] {
  const moment =
    one.sequence === null ? '' : `, after write ${one.sequence} of epoch ${one.epoch ?? '?'}`
  const stall = one.stall_ms === null ? '' : `, writes waited ${one.stall_ms.toFixed(1)} ms at most`
  return [
    `${one.id} ${one.name}: ${one.status}${one.reason === null ? '' : ` (${one.reason})`}`,
    `taken ${one.taken_at ?? 'not yet'} at ${one.site}${moment}${stall}`,
    ...columns(
      ['volume', 'kind', 'size'],
      one.volumes.map(({ id, kind, size_bytes }) => [id, kind, size_bytes]),
    ),
  ]
}
