import { Command, CommanderError } from 'commander'
import { addCommands } from './commands.ts'
import type { StateTools } from './commands/state.ts'
import type { CommandContext } from './context.ts'
import { createOutput, EXIT, reportError, type Streams } from './output.ts'
import type { PartStarter } from './part.ts'

/* The command line: one program of many commands, which turns whatever goes wrong into one message and one exit code. */

export interface CliSetup {
  readonly version: string
  readonly control: PartStarter
  readonly agent: PartStarter
  readonly state: StateTools
  /** Program and leading arguments that start this very program again. */
  readonly self: readonly string[]
  readonly streams: Streams
  readonly env: Readonly<Record<string, string | undefined>>
}

/** Runs one command line (without program and script); settles with the exit code. */
export async function runCli(args: readonly string[], setup: CliSetup): Promise<number> {
  const wantsJson = args.includes('--json')
  try {
    const program = await buildProgram(setup, args[0])
    await program.parseAsync([...args], { from: 'user' })
    return EXIT.OK
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.OK : EXIT.USAGE
    return reportError(error, wantsJson, setup.streams)
  }
}

/** The program with the command that is called `name`, or with all. */
async function buildProgram(setup: CliSetup, name: string | undefined): Promise<Command> {
  const { streams } = setup
  const program = new Command('holdfast')
    .description(
      'Synchronous replication of block volumes between two sites, and failovers that lose nothing',
    )
    .version(setup.version, '-V, --version', 'show the version')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void streams.out.write(text),
      writeErr: (text) => void streams.err.write(text),
      outputError: (text, write) => write(text.replace(/^error: /, 'holdfast: ')),
    })
    .showSuggestionAfterError()
    .enablePositionalOptions()
  const context: CommandContext = {
    streams,
    env: setup.env,
    control: setup.control,
    agent: setup.agent,
    self: setup.self,
    program: (kind, configFile) => [...setup.self, kind, '--supervised', '--config', configFile],
    leaf: (parent, name) => parent.command(name).option('--json', 'print one JSON object per line'),
    output: (command) => createOutput(command.opts()['json'] === true, streams),
  }
  await addCommands({ program, context, state: setup.state, version: setup.version }, name)
  return program
}
