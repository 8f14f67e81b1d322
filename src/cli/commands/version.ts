import type { Command } from 'commander'
import type { CommandContext } from '../context.ts'

/* `holdfast version` */

export function versionCommand(command: Command, context: CommandContext, version: string): void {
  command.description('show the version').action(() => {
    const node = process.version
    context.output(command).result({ version, node }, `holdfast ${version} (Node.js ${node})`)
  })
}
