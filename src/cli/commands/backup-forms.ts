import type { Command } from 'commander'
import { backUpGroup, setRates, showRates } from '#client/backup-forms.ts'
import { waitForBackup } from '#client/backups.ts'
import { systemClock } from '#base/system/clock.ts'
import type { CommandContext } from '../context.ts'
import { type JobFlags, limitOf } from '../jobs.ts'
import { createProgress } from '../progress.ts'
import { apiAction } from '../session.ts'
import { rateOf, shownRate } from './backup-rate.ts'
import { jobOptions } from './group.ts'

/* `holdfast backup group` and `holdfast backup rate`: all disks of a protection group at one moment, and how fast backups may be. */

interface GroupFlags extends JobFlags {
  readonly name?: string
  readonly description?: string
  readonly full?: boolean
  readonly rate?: string
}

export function groupLeaf(leaf: (name: string) => Command, context: CommandContext): void {
  const group = jobOptions(
    leaf('group')
      .description('back up all disks of a protection group, at one moment')
      .argument('<group>')
      .option('--name <name>', 'of the backup; by default one is made up')
      .option('--description <text>')
      .option('--full', 'read everything, and build on no earlier backup')
      .option('--rate <mib>', 'at most so many MiB per second'),
  )
  apiAction<GroupFlags>(context, group, async (api, output, flags, id = '') => {
    const { name, description } = flags
    const rate = rateOf(flags.rate)
    const { backup } = await backUpGroup(api, id, {
      incremental: flags.full !== true,
      ...(name === undefined ? {} : { name }),
      ...(description === undefined ? {} : { description }),
      ...(rate === undefined ? {} : { rate_bytes: rate }),
    })
    if (!flags.wait) {
      output.result(backup, `backing up group ${id}: backup ${backup.id}`)
      return
    }
    output.say(`backup ${backup.id}, waiting for its end`)
    const progress = createProgress(context.streams, output, systemClock)
    try {
      const made = await waitForBackup(api, backup.id, {
        clock: systemClock,
        limitMs: limitOf(flags),
        onState: ({ status, extend_info: { progress: percent } }) =>
          progress.update(`${percent} %  ${status}`, { backup: backup.id, status, percent }),
      })
      const disks = made.extend_info.volume_backups.length
      output.result(made, `${made.id} ${made.name}: ${disks} disks of group ${id}`)
    } finally {
      progress.end()
    }
  })
}

interface RateFlags {
  readonly backup?: string
  readonly restore?: string
  readonly copy?: string
}

export function rateLeaf(leaf: (name: string) => Command, context: CommandContext): void {
  const rate = leaf('rate')
    .description(
      'show or set how many MiB per second backups, restores and copies may move; 0: as fast as it goes',
    )
    .option('--backup <mib>', 'each backup that begins from now on')
    .option('--restore <mib>', 'each restore')
    .option('--copy <mib>', 'each copy to another region')
  apiAction<RateFlags>(context, rate, async (api, output, flags) => {
    const kinds = ['backup', 'restore', 'copy'] as const
    const wanted = Object.fromEntries(
      kinds.flatMap((kind) => {
        const bytes = rateOf(flags[kind], `--${kind}`)
        return bytes === undefined ? [] : [[kind, bytes]]
      }),
    )
    const rates =
      Object.keys(wanted).length === 0 ? await showRates(api) : await setRates(api, wanted)
    output.result(
      rates,
      kinds.map((kind) => `${kind}  ${shownRate(rates[kind])}`),
    )
  })
}
