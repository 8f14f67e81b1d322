import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { CommandContext } from '../context.ts'
import type { InitAnswers } from '../init/initialize.ts'
import { usageError } from '../usage.ts'

/* `holdfast init`: everything that control plane and agents on separate machines need to trust and find each other. */

interface InitFlags {
  out: string
  region?: string
  control?: string
  site: string[]
  vault?: string
  renew?: boolean
}

const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$/
const HOST = /^[A-Za-z0-9.:-]{1,253}$/

export function initCommand(command: Command, context: CommandContext): void {
  command
    .description('make authority, certificates and configuration for separate machines')
    .option('--out <dir>', 'directory to write to', './holdfast-init')
    .option('--region <name>', 'region (default: region-1)')
    .option('--control <host>', 'name or address of the machine with the control plane')
    .option(
      '--site <name=host>',
      'a site and the machine of its agent; repeat for each',
      (value: string, before: string[]) => [...before, value],
      [],
    )
    .option(
      '--vault <place>',
      "vault of the region's backups: s3://bucket/prefix, or a directory that all agents see",
    )
    .option('--renew', 'issue every certificate anew, due or not')
    .addHelpText(
      'after',
      `
Run again on the same directory, it makes what is missing and renews certificates that are due;
it never overwrites a configuration or a key of the authority.

  holdfast init --out pki --region north --control ctl.example --site az1=a.example --site az2=b.example`,
    )
    .action(async (flags: InitFlags) => {
      const { initialize } = await import('../init/initialize.ts')
      const { systemClock } = await import('#base/system/clock.ts')
      const made = await initialize(resolve(flags.out), {
        answers: readAnswers(flags),
        renewAll: flags.renew === true,
        clock: systemClock,
      })
      context
        .output(command)
        .result({ event: 'initialized', directory: made.directory, files: made.written }, [
          ...(made.written.length === 0
            ? [`${made.directory}: nothing was missing or due`]
            : made.written.map((file) => `wrote ${file}`)),
          '',
          `control plane  copy ${made.directory}/control to ${made.control}, there: holdfast control --config control/config.json`,
          ...made.agents.map(
            ({ name, host }) =>
              `${name}  copy ${made.directory}/${name} to ${host}, there: holdfast agent --config ${name}/config.json`,
          ),
          `keep ${made.directory}/authority and credentials.json safe: they are the keys to everything`,
        ])
    })
}

/** Undefined: as recorded by the first run in that directory. */
function readAnswers(flags: InitFlags): InitAnswers | undefined {
  if (flags.region === undefined && flags.control === undefined && flags.site.length === 0) {
    return undefined
  }
  if (flags.control === undefined || !HOST.test(flags.control)) {
    throw usageError('--control is required, accepted: a host name or address')
  }
  const region = flags.region ?? 'region-1'
  if (!NAME.test(region)) {
    throw usageError(
      `--region ${JSON.stringify(region)} is not accepted, accepted: 1 to 64 letters, digits, dots, underscores and hyphens`,
    )
  }
  const sites = flags.site.map((text) => {
    const [name = '', host = '', ...more] = text.split('=')
    if (!NAME.test(name) || !HOST.test(host) || more.length > 0) {
      throw usageError(`--site ${JSON.stringify(text)} is not accepted, accepted: NAME=HOST`)
    }
    return { name, host }
  })
  if (sites.length < 1) throw usageError('--site is required, accepted: NAME=HOST, once per site')
  if (new Set(sites.map(({ name }) => name)).size !== sites.length) {
    throw usageError('--site: a site is named twice, accepted: each once')
  }
  const vault = flags.vault === undefined ? {} : { vault: flags.vault }
  return { region, control: flags.control, sites, ...vault }
}
