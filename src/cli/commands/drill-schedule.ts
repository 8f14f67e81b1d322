import type { Command } from 'commander'
import {
  changeSchedule,
  createSchedule,
  type DrillSchedule,
  deleteSchedule,
  listSchedules,
  showSchedule,
} from '#client/drills.ts'
import type { CommandContext } from '../context.ts'
import { columns } from '../output.ts'
import { probeText } from '../probe-text.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { usageError } from '../usage.ts'
import { type WishFlags, wishOf, wishOptions } from '../drill-wish.ts'

/* `holdfast drill schedule`: drills that begin and end by themselves. */

interface Flags extends WishFlags {
  readonly rule?: string
  readonly zone?: string
  readonly name?: string
  readonly skipMissed?: boolean
  readonly runMissed?: boolean
  readonly enable?: boolean
  readonly disable?: boolean
}

const RULE = 'RFC 5545 rule, for example "FREQ=WEEKLY;BYDAY=SU;BYHOUR=3"'
const ZONE = 'time zone that the rule is meant in, for example Europe/Berlin (default: UTC)'

export function drillScheduleCommand(command: Command, context: CommandContext): void {
  command.description('drills that begin, and are deleted, by themselves')
  const leaf = (name: string) => apiLeaf(context, command, name)

  const create = wishOptions(
    leaf('create')
      .description('have drills of a group made by themselves')
      .argument('<name>')
      .requiredOption('--group <id>', 'the group whose failover is tried')
      .requiredOption('--rule <rule>', RULE)
      .option('--zone <name>', ZONE),
  ).option('--skip-missed', 'do not make up for what is missed while the control plane is down')
  apiAction<Flags & { group: string; rule: string }>(
    context,
    create,
    async (api, output, flags, name = '') => {
      const made = await createSchedule(api, {
        group: flags.group,
        name,
        rule: flags.rule,
        ...(flags.zone === undefined ? {} : { zone: flags.zone }),
        ...wishOf(flags),
        run_missed: flags.skipMissed !== true,
      })
      output.result(made, detail(made))
    },
  )

  const list = leaf('list').description('list the schedules')
  apiAction(context, list, async (api, output) => {
    const schedules = await listSchedules(api)
    const rows = schedules.map((one) => [
      one.id,
      one.name,
      one.group,
      one.enabled ? one.next_at : 'off',
      one.last_at,
      one.last_result ?? one.last_outcome,
      one.rule,
    ])
    const heads = ['id', 'name', 'group', 'next', 'last', 'outcome', 'rule']
    output.result({ schedules }, columns(heads, rows))
  })

  const show = leaf('show').description('show a schedule').argument('<schedule>')
  apiAction(context, show, async (api, output, _, id = '') => {
    const found = await showSchedule(api, id)
    output.result(found, detail(found))
  })

  const change = wishOptions(
    leaf('change')
      .description('change a schedule; what is not named stays')
      .argument('<schedule>')
      .option('--name <name>')
      .option('--rule <rule>', RULE)
      .option('--zone <name>', ZONE),
  )
    .option('--enable', 'go on')
    .option('--disable', 'begin no drills until it is enabled again')
    .option('--skip-missed', 'do not make up for what is missed')
    .option('--run-missed', 'make up for it, once')
  apiAction<Flags>(context, change, async (api, output, flags, id = '') => {
    const { name, rule, zone, enable, disable, skipMissed, runMissed } = flags
    if (enable === true && disable === true) throw usageError('either --enable or --disable')
    if (skipMissed === true && runMissed === true) {
      throw usageError('either --skip-missed or --run-missed')
    }
    const changed = await changeSchedule(api, id, {
      ...(name === undefined ? {} : { name }),
      ...(rule === undefined ? {} : { rule }),
      ...(zone === undefined ? {} : { zone }),
      ...wishOf(flags),
      ...(enable === true || disable === true ? { enabled: enable === true } : {}),
      ...(skipMissed === true || runMissed === true ? { run_missed: runMissed === true } : {}),
    })
    output.result(changed, detail(changed))
  })

  const remove = leaf('delete')
    .description('delete a schedule; drills that it began go on')
    .argument('<schedule>')
  apiAction(context, remove, async (api, output, _, id = '') => {
    await deleteSchedule(api, id)
    output.result({ deleted: id }, `schedule ${id} is deleted`)
  })
}

function detail(one: DrillSchedule): string[] {
  const probes = Object.entries(one.probes).map(
    ([instance, list]) => `  ${instance}: ${list.map(probeText).join(', ') || 'none'}`,
  )
  return [
    `${one.id} ${one.name}: ${one.enabled ? `next ${one.next_at ?? 'never'}` : 'disabled'}`,
    `group ${one.group}   ${one.rule} (${one.zone})   missed ones are ${one.run_missed ? 'made up for' : 'left out'}`,
    `last ${one.last_at ?? 'never'}${one.last_outcome === null ? '' : `: ${one.last_outcome}`}${one.last_drill === null ? '' : ` (drill ${one.last_drill})`}`,
    ...(one.last_result === null ? [] : [`  ${one.last_result}`]),
    ...(one.last_reason === null ? [] : [`  ${one.last_reason}`]),
    `recovery plan: ${one.plan === 'follow' ? 'followed, if there is one' : 'ignored'}`,
    `probes, ${one.timeout_ms / 1000} s for each server: ${probes.length === 0 ? 'boot' : ''}`,
    ...probes,
  ]
}
