import { Fault } from '#base/fault.ts'
import type { CommandAnswer, CommandName, CommandRequest } from '#wire/site/commands.ts'
import { NO_VAULT } from './faults.ts'

/** The commands of this module, by their names. */
export type BackupCommandName = Extract<
  CommandName,
  `backup.${string}` | `restore.${string}` | `replica.${string}` | `vault.${string}`
>

export interface BackupCommands {
  command<N extends BackupCommandName>(
    name: N,
    request: CommandRequest<N>,
  ): Promise<CommandAnswer<N>>
}

/** Of an agent without a vault. */
export const withoutVault: BackupCommands = {
  async command(name) {
    throw new Fault(NO_VAULT, `taking ${name}`)
  },
}
