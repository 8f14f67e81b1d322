import type { Command } from 'commander'
import type { Output, Streams } from './output.ts'
import type { PartStarter } from './part.ts'
import type { PartProgram } from './up/prepare.ts'

/** What every command gets from the entry point. */
export interface CommandContext {
  readonly streams: Streams
  readonly env: Readonly<Record<string, string | undefined>>
  readonly control: PartStarter
  readonly agent: PartStarter
  /** How a part's own process is started from here. */
  readonly program: PartProgram
  /** Program and leading arguments that start this very program again. */
  readonly self: readonly string[]
  /** A subcommand that takes `--json`. */
  leaf(parent: Command, name: string): Command
  /** The output in the form that the command's own `--json` asks for. */
  output(command: Command): Output
}
