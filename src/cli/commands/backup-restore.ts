import type { Command } from 'commander'
import { systemClock } from '#base/system/clock.ts'
import type { ApiSession } from '#client/api.ts'
import { restoreInForm, type RestoreWish } from '#client/backup-forms.ts'
import {
  type Backup,
  restoreBackup,
  SERVER_TYPE,
  showBackup,
  waitForRestore,
} from '#client/backups.ts'
import type { CommandContext } from '../context.ts'
import { type JobFlags, limitOf } from '../jobs.ts'
import { createProgress } from '../progress.ts'
import { apiAction } from '../session.ts'
import { usageError } from '../usage.ts'
import { rateOf } from './backup-rate.ts'
import { jobOptions } from './group.ts'

/* `holdfast backup restore`: to the server, to single volumes, or to new ones. What the published API has a form for goes over it. */

interface RestoreFlags extends JobFlags {
  readonly server?: string
  readonly map?: string[]
  readonly volume?: string[]
  readonly newVolumes?: boolean
  readonly name?: string
  readonly type?: string
  readonly site?: string
  readonly rate?: string
  readonly powerOn: boolean
  readonly yes?: boolean
}

export function restoreLeaf(leaf: (name: string) => Command, context: CommandContext): void {
  const restore = jobOptions(
    leaf('restore')
      .description('write a backup back; servers that have the disks are off meanwhile')
      .argument('<backup>')
      .option('--server <id>', 'another server than the one that it is of; needs --map')
      .option(
        '--map <disk-backup=volume...>',
        'which disk backup goes to which volume of the server',
      )
      .option('--volume <disk...>', 'only these disks: DISK to where it came from, or DISK=VOLUME')
      .option('--new-volumes', 'to volumes that are made for it')
      .option('--name <name>', 'with --new-volumes: of the volume, or how their names begin')
      .option('--type <name>', 'with --new-volumes: volume type')
      .option('--site <name>', 'with --new-volumes: site that keeps them')
      .option('--rate <mib>', 'at most so many MiB per second')
      .option('--no-power-on', 'leave servers off')
      .option('--yes', 'you know that what is on these disks is lost'),
  )
  apiAction<RestoreFlags>(context, restore, async (api, output, flags, id = '') => {
    const backup = await showBackup(api, id)
    const { what, begun } = await begin(api, backup, flags)
    if (!flags.wait) {
      output.result(begun, `restoring ${backup.name}: restore ${begun.id}`)
      return
    }
    output.say(`restoring ${backup.name} to ${what}: restore ${begun.id}`)
    const progress = createProgress(context.streams, output, systemClock)
    try {
      const done = await waitForRestore(api, begun.id, {
        clock: systemClock,
        limitMs: limitOf(flags),
        onState: ({ status }) => progress.update(status, { restore_id: begun.id, status }),
      })
      const reasons = [...new Set(Object.values(done.resources_reason))]
      output.result({ ...done, volumes: begun.volumes }, [
        `restored ${backup.name}`,
        ...(flags.newVolumes === true ? begun.volumes.map((one) => `volume ${one}`) : []),
        ...reasons,
      ])
    } finally {
      progress.end()
    }
  })
}

interface Begun {
  readonly id: string
  readonly volumes: readonly string[]
}

async function begin(
  api: ApiSession,
  backup: Backup,
  flags: RestoreFlags,
): Promise<{ readonly what: string; readonly begun: Begun }> {
  const forNew = [flags.name, flags.type, flags.site].some((flag) => flag !== undefined)
  if (flags.newVolumes === true && (flags.server !== undefined || flags.map !== undefined)) {
    throw usageError('--new-volumes goes with neither --server nor --map')
  }
  if (flags.newVolumes !== true && forNew) {
    throw usageError('--name, --type and --site need --new-volumes')
  }
  if (flags.volume !== undefined && flags.map !== undefined) {
    throw usageError('either --volume or --map')
  }
  const rate = rateOf(flags.rate)
  const plain =
    backup.resource_type === SERVER_TYPE &&
    flags.volume === undefined &&
    flags.newVolumes !== true &&
    rate === undefined
  if (plain) return await beginPublished(api, backup, flags)
  const disks = (flags.volume ?? flags.map ?? []).map((text) => diskOf(backup, text))
  const server =
    flags.newVolumes === true || flags.volume !== undefined || backup.resource_type !== SERVER_TYPE
      ? flags.server
      : (flags.server ?? backup.resource_id)
  const what = flags.newVolumes === true ? 'new volumes' : shownTargets(backup, disks)
  if (flags.newVolumes !== true) sure(flags, what)
  const wish: RestoreWish = {
    ...(disks.length === 0 ? {} : { disks }),
    ...(server === undefined ? {} : { server }),
    ...(flags.newVolumes === true ? { new_volumes: true } : {}),
    ...(flags.name === undefined ? {} : { name: flags.name }),
    ...(flags.type === undefined ? {} : { volume_type: flags.type }),
    ...(flags.site === undefined ? {} : { site: flags.site }),
    ...(rate === undefined ? {} : { rate_bytes: rate }),
    power_on: flags.powerOn,
  }
  const { restore_id: id, volumes } = await restoreInForm(api, backup.id, wish)
  return { what, begun: { id, volumes } }
}

async function beginPublished(api: ApiSession, backup: Backup, flags: RestoreFlags) {
  const volumes = mappingOf(backup, flags)
  const server = flags.server ?? backup.resource_id
  sure(flags, volumes.map(({ volume_id: volume }) => volume).join(', '))
  const { id } = await restoreBackup(api, backup, { server, volumes, powerOn: flags.powerOn })
  const begun = { id, volumes: volumes.map(({ volume_id: volume }) => volume) }
  return { what: `server ${server}`, begun }
}

function sure({ yes }: RestoreFlags, what: string): void {
  if (yes !== true) throw usageError(`what is on ${what} would be lost; --yes is required`)
}

const shownTargets = (
  backup: Backup,
  disks: readonly { readonly disk: string; readonly volume?: string }[],
): string => {
  const all = backup.extend_info.volume_backups
  if (disks.length === 0) return all.map((one) => one.source_volume_id).join(', ')
  return disks
    .map(({ disk, volume }) => volume ?? all.find(({ id }) => id === disk)?.source_volume_id)
    .join(', ')
}

/** `DISK` or `DISK=VOLUME`; the disk by the id of its backup, or by its own. */
function diskOf(backup: Backup, text: string): { readonly disk: string; readonly volume?: string } {
  const [from = '', to, ...rest] = text.split('=')
  const disk = backup.extend_info.volume_backups.find(
    (one) => one.id === from || one.source_volume_id === from,
  )
  if (disk === undefined || to === '' || rest.length > 0) {
    throw usageError(`${text} is not accepted, accepted: DISK or DISK=VOLUME, a disk of the backup`)
  }
  return { disk: disk.id, ...(to === undefined ? {} : { volume: to }) }
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
    const { disk, volume } = diskOf(backup, text)
    if (volume === undefined) {
      throw usageError(`--map ${text} is not accepted, accepted: DISK-BACKUP=VOLUME`)
    }
    return { backup_id: disk, volume_id: volume }
  })
}
