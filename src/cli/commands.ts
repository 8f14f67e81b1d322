import type { Command } from 'commander'
import type { StateTools } from './commands/state.ts'
import type { CommandContext } from './context.ts'

/* The commands of the program, each a file of its own under commands/.
 *
 * Their code is loaded by name: that of all commands together takes several times as long to load as Node itself, and most of it
 * serves one command only. */

export interface CommandSetup {
  readonly program: Command
  readonly context: CommandContext
  readonly state: StateTools
  readonly version: string
}

/** In the order of the help. */
const COMMANDS: Readonly<Record<string, (setup: CommandSetup) => Promise<void>>> = {
  async up({ program, context }) {
    const { upCommand } = await import('./commands/up.ts')
    upCommand(context.leaf(program, 'up'), context)
  },
  async demo({ program, context }) {
    const { demoCommand } = await import('./commands/demo.ts')
    demoCommand(context.leaf(program, 'demo'), context)
  },
  async init({ program, context }) {
    const { initCommand } = await import('./commands/init.ts')
    initCommand(context.leaf(program, 'init'), context)
  },
  async site({ program, context }) {
    const { siteCommand } = await import('./commands/site.ts')
    siteCommand(program.command('site'), context)
  },
  async status({ program, context }) {
    const { statusCommand } = await import('./commands/status.ts')
    statusCommand(program, context)
  },
  async volume({ program, context }) {
    const { volumeCommand } = await import('./commands/volume.ts')
    volumeCommand(program.command('volume'), context)
  },
  async 'volume-type'({ program, context }) {
    const { volumeTypeCommand } = await import('./commands/volume-type.ts')
    volumeTypeCommand(program.command('volume-type'), context)
  },
  async server({ program, context }) {
    const { serverCommand } = await import('./commands/server.ts')
    serverCommand(program.command('server'), context)
  },
  async instance({ program, context }) {
    const { instanceCommand } = await import('./commands/instance.ts')
    instanceCommand(program.command('instance'), context)
  },
  async group({ program, context }) {
    const { groupCommand } = await import('./commands/group.ts')
    groupCommand(program.command('group'), context)
  },
  async pair({ program, context }) {
    const { pairCommand } = await import('./commands/pair.ts')
    pairCommand(program.command('pair'), context)
  },
  async snapshot({ program, context }) {
    const { snapshotCommand } = await import('./commands/snapshot.ts')
    snapshotCommand(program.command('snapshot'), context)
  },
  async backup({ program, context }) {
    const { backupCommand } = await import('./commands/backup.ts')
    backupCommand(program.command('backup'), context)
  },
  async policy({ program, context }) {
    const { policyCommand } = await import('./commands/backup-policy.ts')
    policyCommand(program.command('policy'), context)
  },
  async checkpoint({ program, context }) {
    const { checkpointCommand } = await import('./commands/backup-policy.ts')
    checkpointCommand(program.command('checkpoint'), context)
  },
  async drill({ program, context }) {
    const { drillCommand } = await import('./commands/drill.ts')
    drillCommand(program.command('drill'), context)
  },
  async divergence({ program, context }) {
    const { divergenceCommand } = await import('./commands/divergence.ts')
    divergenceCommand(program.command('divergence'), context)
  },
  async job({ program, context }) {
    const { jobCommand } = await import('./commands/job.ts')
    jobCommand(program.command('job'), context)
  },
  async user({ program, context }) {
    const { userCommand } = await import('./commands/user.ts')
    userCommand(program.command('user'), context)
  },
  async project({ program, context }) {
    const { projectCommand } = await import('./commands/project.ts')
    projectCommand(program.command('project'), context)
  },
  async role({ program, context }) {
    const { roleCommand } = await import('./commands/role.ts')
    roleCommand(program.command('role'), context)
  },
  async key({ program, context }) {
    const { keyCommand } = await import('./commands/key.ts')
    keyCommand(program.command('key'), context)
  },
  async token({ program, context }) {
    const { tokenCommand } = await import('./commands/token.ts')
    tokenCommand(program.command('token'), context)
  },
  async state({ program, context, state }) {
    const { stateCommand } = await import('./commands/state.ts')
    stateCommand(program.command('state'), context, state)
  },
  async vault({ program, context }) {
    const { vaultCommand } = await import('./commands/vault.ts')
    vaultCommand(program.command('vault'), context)
  },
  async control({ program, context }) {
    const { partCommand } = await import('./commands/parts.ts')
    partCommand(program.command('control'), context, 'control')
  },
  async agent({ program, context }) {
    const { agentCommand } = await import('./commands/agent.ts')
    agentCommand(program.command('agent'), context)
  },
  async version({ program, context, version }) {
    const { versionCommand } = await import('./commands/version.ts')
    versionCommand(context.leaf(program, 'version'), context, version)
  },
}

/** Adds the command that is called `name`, or, for help and for what is mistyped, all. */
export async function addCommands(setup: CommandSetup, name: string | undefined): Promise<void> {
  const one = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (one !== undefined) return await one(setup)
  for (const add of Object.values(COMMANDS)) await add(setup)
}
