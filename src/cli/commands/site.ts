import { resolve } from 'node:path'
import type { Command } from 'commander'
import { knock } from '#base/system/door.ts'
import { Fault } from '#base/fault.ts'
import type { CommandContext } from '../context.ts'
import { pathsUnder } from '../up/layout.ts'
import { PART_FAILED, SITE_UNKNOWN } from '../up/supervisor.ts'

/* `holdfast site kill|stop|start SITE`: takes a site of the embedded system down, and brings it back. */

const ACTIONS = [
  {
    name: 'kill',
    about: 'SIGKILL every process of a site at once; they stay down',
    done: 'killed',
  },
  { name: 'stop', about: 'stop every process of a site properly; they stay down', done: 'stopped' },
  { name: 'start', about: 'start the processes of a site that are down', done: 'started' },
] as const

export function siteCommand(command: Command, context: CommandContext): void {
  command.description('take a site of `holdfast up` down and bring it back')
  for (const { name, about, done } of ACTIONS) {
    const action = context.leaf(command, name)
    action
      .description(about)
      .argument('<site>', 'az1, az2, or r2-az1 for the site of the second region')
      .option(
        '--data <dir>',
        'directory of `holdfast up` (default: HOLDFAST_DATA, or ./holdfast-data)',
      )
      .action(async (site: string, flags: { data?: string }) => {
        const reply = await knockUp(dataOfUp(flags, context.env), { command: name, site })
        const parts = (reply as { parts: string[] }).parts
        context
          .output(action)
          .result({ event: `site_${done}`, site, parts }, `${site}: ${done} ${parts.join(', ')}`)
      })
  }
}

/** The directory of `holdfast up` that a command works with. */
export const dataOfUp = (flags: { data?: string }, env: CommandContext['env']): string =>
  flags.data ?? env['HOLDFAST_DATA'] ?? './holdfast-data'

/** Asks the supervisor of a directory; its refusals are thrown. */
export async function knockUp(data: string, request: object): Promise<unknown> {
  const reply = await knock(pathsUnder(resolve(data)).door, request)
  if (typeof reply === 'object' && reply !== null && 'error' in reply) {
    const code = 'code' in reply ? reply.code : ''
    const kind = [PART_FAILED, SITE_UNKNOWN].find((known) => known.code === code)
    if (kind !== undefined) {
      throw new Fault(kind, String(reply.error).replace(`. ${kind.text} ${kind.hint}`, ''))
    }
    throw new Error(`the supervisor failed: ${String(reply.error)}`)
  }
  return reply
}
