import type { Command } from 'commander'
import type { CommandContext } from '../context.ts'
import { addPartFlags, readPartOptions, runPart, variablesOf } from '../part.ts'

/* `holdfast control` and `holdfast agent`: one part, on a machine of its own or under `holdfast up`. */

export function partCommand(
  command: Command,
  context: CommandContext,
  kind: 'control' | 'agent',
): void {
  const starter = context[kind]
  command.description(starter.about)
  addPartFlags(command, starter).action(async (flags: Record<string, unknown>) => {
    const foreign = [
      ...variablesOf(context.control.options),
      ...variablesOf(context.agent.options),
      ...CLIENT_VARIABLES,
    ]
    const values = await readPartOptions(starter, flags, context.env, foreign)
    await runPart(starter, values, kind, flags['supervised'] === true)
  })
}

/** Variables of the commands that talk to a control plane. */
export const CLIENT_VARIABLES = ['HOLDFAST_CREDENTIALS', 'HOLDFAST_DATA']
