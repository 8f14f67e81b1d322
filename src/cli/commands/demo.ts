import type { Command } from 'commander'
import type { CommandContext } from '../context.ts'
import type { DemoFlags } from '../demo/run.ts'

/* `holdfast demo`: a site is lost in the middle of real work, and every byte is accounted for. What it needs is loaded
 * when it runs, so that other commands start quickly. */

export function demoCommand(command: Command, context: CommandContext): void {
  command
    .description('lose a site in the middle of a load, fail over, and check every byte')
    .option('--data <dir>', 'empty directory to work in (default: a temporary one)')
    .option('--seconds <n>', 'how long the load runs in sync, 1 to 3600', '8')
    .option('--no-server', 'leave out the part with a server, which needs QEMU and Debian packages')
    .option('--keep', 'keep the directory with data and logs')
    .action(async (flags: DemoFlags) => {
      const { demo } = await import('../demo/run.ts')
      await demo(flags, context, context.output(command))
    })
}
