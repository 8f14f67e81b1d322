import { join, resolve } from 'node:path'
import { type Command, Option } from 'commander'
import type { CommandContext } from '../context.ts'
import { readPartOptions, variablesOf } from '../part.ts'
import { CLIENT_VARIABLES } from './parts.ts'

/* `holdfast state backup|restore`: the control plane's database as a file. Runs on the control plane's own machine, with
 * the control plane's own configuration. */

/** What the entry point provides for it. */
export interface StateTools {
  backup(
    values: Readonly<Record<string, unknown>>,
    file: string,
  ): Promise<{ readonly rows: number; readonly bytes: number; readonly incarnation: string }>
  restore(
    values: Readonly<Record<string, unknown>>,
    file: string,
  ): Promise<{ readonly rows: number; readonly incarnation: string }>
}

interface StateFlags {
  readonly config?: string
  readonly data: string
  readonly part: string
}

export function stateCommand(command: Command, context: CommandContext, tools: StateTools): void {
  command.description("back up and restore the control plane's state")
  const leaf = (name: string) =>
    context
      .leaf(command, name)
      .addOption(new Option('--config <file>', 'configuration file of `holdfast control`'))
      .option(
        '--data <dir>',
        'directory of `holdfast up`, when there is no --config',
        './holdfast-data',
      )
      .option('--part <name>', 'its control plane: control or r2-control', 'control')
      .argument('<file>')

  const backup = leaf('backup').description('write the state to a file; the control plane may run')
  backup.action(async (file: string, flags: StateFlags) => {
    const done = await tools.backup(await configuration(context, flags), resolve(file))
    context
      .output(backup)
      .result(
        { event: 'state_backed_up', file: resolve(file), ...done },
        `${file}: ${done.rows} rows, ${done.bytes} bytes. It holds keys and password hashes.`,
      )
  })

  const restore = leaf('restore').description(
    'fill an empty database from a file; the control plane must not run',
  )
  restore.action(async (file: string, flags: StateFlags) => {
    const done = await tools.restore(await configuration(context, flags), resolve(file))
    context
      .output(restore)
      .result({ event: 'state_restored', file: resolve(file), ...done }, [
        `${file}: ${done.rows} rows restored, incarnation ${done.incarnation}.`,
        'The control plane grants nothing until the sites have told it what happened since the backup.',
      ])
  })
}

async function configuration(
  context: CommandContext,
  { config, data, part }: StateFlags,
): Promise<Readonly<Record<string, unknown>>> {
  const file = config ?? join(data, 'config', `${part}.json`)
  const foreign = [...variablesOf(context.agent.options), ...CLIENT_VARIABLES]
  return await readPartOptions(context.control, { config: file }, context.env, foreign)
}
