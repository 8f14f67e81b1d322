import { Command, CommanderError } from 'commander'
import { agentCommand } from './commands/agent.ts'
import { demoCommand } from './commands/demo.ts'
import { divergenceCommand } from './commands/divergence.ts'
import { drillCommand } from './commands/drill.ts'
import { groupCommand } from './commands/group.ts'
import { initCommand } from './commands/init.ts'
import { instanceCommand } from './commands/instance.ts'
import { jobCommand } from './commands/job.ts'
import { keyCommand } from './commands/key.ts'
import { pairCommand } from './commands/pair.ts'
import { partCommand } from './commands/parts.ts'
import { projectCommand } from './commands/project.ts'
import { roleCommand } from './commands/role.ts'
import { serverCommand } from './commands/server.ts'
import { siteCommand } from './commands/site.ts'
import { backupCommand } from './commands/backup.ts'
import { checkpointCommand, policyCommand } from './commands/backup-policy.ts'
import { snapshotCommand } from './commands/snapshot.ts'
import { type StateTools, stateCommand } from './commands/state.ts'
import { statusCommand } from './commands/status.ts'
import { tokenCommand } from './commands/token.ts'
import { upCommand } from './commands/up.ts'
import { userCommand } from './commands/user.ts'
import { vaultCommand } from './commands/vault.ts'
import { versionCommand } from './commands/version.ts'
import { volumeCommand } from './commands/volume.ts'
import { volumeTypeCommand } from './commands/volume-type.ts'
import type { CommandContext } from './context.ts'
import { createOutput, EXIT, reportError, type Streams } from './output.ts'
import type { PartStarter } from './part.ts'

/* The command line. Each command is a file of its own under commands/; this one names them all, and turns whatever
 * goes wrong into one message and one exit code. */

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
    await buildProgram(setup).parseAsync([...args], { from: 'user' })
    return EXIT.OK
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.OK : EXIT.USAGE
    return reportError(error, wantsJson, setup.streams)
  }
}

/** The whole command tree, for running and for documentation. */
export function buildProgram(setup: CliSetup): Command {
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
  upCommand(context.leaf(program, 'up'), context)
  demoCommand(context.leaf(program, 'demo'), context)
  initCommand(context.leaf(program, 'init'), context)
  siteCommand(program.command('site'), context)
  statusCommand(program, context)
  volumeCommand(program.command('volume'), context)
  volumeTypeCommand(program.command('volume-type'), context)
  serverCommand(program.command('server'), context)
  instanceCommand(program.command('instance'), context)
  groupCommand(program.command('group'), context)
  pairCommand(program.command('pair'), context)
  snapshotCommand(program.command('snapshot'), context)
  backupCommand(program.command('backup'), context)
  policyCommand(program.command('policy'), context)
  checkpointCommand(program.command('checkpoint'), context)
  drillCommand(program.command('drill'), context)
  divergenceCommand(program.command('divergence'), context)
  jobCommand(program.command('job'), context)
  userCommand(program.command('user'), context)
  projectCommand(program.command('project'), context)
  roleCommand(program.command('role'), context)
  keyCommand(program.command('key'), context)
  tokenCommand(program.command('token'), context)
  stateCommand(program.command('state'), context, setup.state)
  vaultCommand(program.command('vault'), context)
  partCommand(program.command('control'), context, 'control')
  agentCommand(program.command('agent'), context)
  versionCommand(context.leaf(program, 'version'), context, setup.version)
  return program
}
