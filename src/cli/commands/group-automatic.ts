import type { Command } from 'commander'
import {
  type AutomaticFailover,
  changeAutomaticFailover,
  rearmAutomaticFailover,
  showAutomaticFailover,
} from '#client/recovery.ts'
import type { CommandContext } from '../context.ts'
import { positiveInteger } from '../jobs.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { usageError } from '../usage.ts'

/* `holdfast group auto-failover`: whether a group may fail over by itself, and why it did or did not. */

export function groupAutomaticCommands(group: Command, context: CommandContext): void {
  const command = group
    .command('auto-failover')
    .description('failover without an operator: opt in, hold, and why it did or did not act')
  const leaf = (name: string, about: string) =>
    apiLeaf(context, command, name).description(about).argument('<group>')

  const show = leaf('show', 'show the verdict of the last look, and its changes').option(
    '--limit <number>',
    'so many changes, newest first',
    '10',
  )
  apiAction<{ limit: string }>(context, show, async (api, output, flags, id = '') => {
    const limit = positiveInteger('--limit', flags.limit, 500)
    const found = await showAutomaticFailover(api, id, limit)
    output.result(found, automaticLines(found))
  })

  const enable = leaf(
    'enable',
    'let the group fail over by itself when its production site is lost',
  )
    .option('--silence <seconds>', 'shortest silence of the production site (default 30)')
    .option(
      '--cool-down <seconds>',
      'before it can be armed again after it has acted (default 900)',
    )
  apiAction<{ silence?: string; coolDown?: string }>(
    context,
    enable,
    async (api, output, { silence, coolDown }, id = '') => {
      const found = await changeAutomaticFailover(api, id, {
        enabled: true,
        ...(silence === undefined
          ? {}
          : { silence_s: positiveInteger('--silence', silence, 3_600) }),
        ...(coolDown === undefined
          ? {}
          : { cool_down_s: positiveInteger('--cool-down', coolDown, 7 * 86_400) }),
      })
      output.result(found, automaticLines(found))
    },
  )
  const change = (
    name: string,
    about: string,
    act: (
      api: Parameters<typeof rearmAutomaticFailover>[0],
      id: string,
    ) => Promise<AutomaticFailover>,
  ) => {
    apiAction(context, leaf(name, about), async (api, output, _, id = '') => {
      const found = await act(api, id)
      output.result(found, automaticLines(found))
    })
  }
  change('disable', 'no failover without an operator', (api, id) =>
    changeAutomaticFailover(api, id, { enabled: false }),
  )
  change('rearm', 'it has acted: let it do so once more', rearmAutomaticFailover)
  change('release', 'end a hold', (api, id) => changeAutomaticFailover(api, id, { hold: null }))
  const hold = leaf('hold', 'hold it back for the time being, as for maintenance').requiredOption(
    '--reason <text>',
    'for whoever looks why it did not act',
  )
  apiAction<{ reason: string }>(context, hold, async (api, output, { reason }, id = '') => {
    if (reason === '') throw usageError('--reason must not be empty')
    const found = await changeAutomaticFailover(api, id, { hold: reason })
    output.result(found, automaticLines(found))
  })
}

function automaticLines(found: AutomaticFailover): string[] {
  const { enabled, armed, hold, silence_s, cool_down_s, verdict, reasons, history } = found
  const lines = [
    enabled
      ? `automatic failover: on, ${armed ? 'armed' : 'NOT ARMED since it acted'}, after ${silence_s} s of silence; cools down for ${cool_down_s} s`
      : 'automatic failover: off',
  ]
  if (hold !== null) lines.push(`held back: ${hold}`)
  if (verdict !== null) {
    lines.push(`verdict: ${verdict.replace('_', ' ')}`, ...reasons.map((one) => `  ${one.message}`))
  }
  if (history.length === 0) return lines
  return [
    ...lines,
    '',
    ...columns(
      ['time', 'verdict', 'because', 'operation'],
      history.map((one) => [
        one.at,
        one.verdict.replace('_', ' '),
        one.reasons.map(({ code }) => code).join(' '),
        one.operation,
      ]),
    ),
  ]
}
