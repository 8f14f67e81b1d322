import { type Command, Option } from 'commander'
import type { CommandContext } from '../context.ts'
import type { UpFlags } from '../up/run.ts'

/* `holdfast up`: the whole system on this machine, as separate processes. */

export function upCommand(command: Command, context: CommandContext): void {
  command
    .description('run the whole system on this machine: two sites, and a second region')
    .option('--data <dir>', 'directory of everything it keeps', './holdfast-data')
    .option(
      '--listen <host:port>',
      'address of the API; port 0 takes a free one (default: as last time, 127.0.0.1:7410 at first)',
    )
    .option('--no-restart', 'parts of a site that die stay down, to rehearse the loss of a site')
    .option('--tls', 'serve HTTPS with a certificate of its own authority (DIR/pki/ca.pem)')
    .option('--tls-cert <file>', 'serve HTTPS with this certificate (PEM)')
    .option('--tls-key <file>', 'private key of --tls-cert (PEM)')
    .option('--allow-plaintext', 'serve plain HTTP on an address other machines can reach')
    .option('--advertise <host>', 'name under which others reach this machine')
    .addOption(new Option('--supervised', 'stop when standard input ends').hideHelp())
    .action(async (flags: UpFlags) => {
      const { up } = await import('../up/run.ts')
      await up(flags, context, context.output(command))
    })
}
