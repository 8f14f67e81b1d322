import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { type Command, Option } from 'commander'
import {
  envName,
  flagName,
  OPTION_REFUSED,
  type OptionTable,
  resolveOptions,
} from '#base/config.ts'
import { Fault } from '#base/fault.ts'
import { hasCode } from '#base/system/files.ts'

/* How `holdfast control` and `holdfast agent` run: read the configuration, start, say so in one JSON line on standard
 * output, and stop on SIGTERM or SIGINT, or, under a supervisor, when the supervisor is gone. */

/** One kind of part, as the entry point hands it over. */
export interface PartStarter {
  readonly about: string
  readonly options: OptionTable
  /** Settles when the part answers. The values are those of `options`. */
  start(values: Readonly<Record<string, unknown>>): Promise<RunningPart>
}

export interface RunningPart {
  close(): Promise<void>
}

/** A part that does not finish closing in this time leaves anyway; by design that loses nothing acknowledged. */
const CLOSE_GRACE_MS = 10_000

/** Adds `--config` and one flag per option. */
export function addPartFlags(command: Command, { options }: PartStarter): Command {
  command.option('--config <file>', 'configuration file (JSON)')
  for (const [key, option] of Object.entries(options)) {
    const unit = option.unit === undefined ? '' : ` [${option.unit}]`
    command.option(`${flagName(key)} <value>`, `${option.about}${unit}`)
  }
  return command.addOption(new Option('--supervised', 'stop when standard input ends').hideHelp())
}

/** Reads the values of a part's options from file, environment and flags. */
export async function readPartOptions(
  { options }: PartStarter,
  flags: Readonly<Record<string, unknown>>,
  env: Readonly<Record<string, string | undefined>>,
  foreignEnv: readonly string[],
): Promise<Readonly<Record<string, unknown>>> {
  const file = typeof flags['config'] === 'string' ? flags['config'] : undefined
  const given = Object.keys(options).map((key): [string, unknown] => [key, flags[flagMember(key)]])
  return resolveOptions(options, {
    ...(file === undefined ? {} : { file: await readConfigFile(file) }),
    env,
    flags: Object.fromEntries(given),
    foreignEnv,
  })
}

/** Variables of one table that are no mistake in the environment of a process with another one. */
export const variablesOf = (options: OptionTable): string[] => Object.keys(options).map(envName)

/** commander's name of a flag: `--pki-ca` is `pkiCa`. */
const flagMember = (key: string): string =>
  flagName(key)
    .slice(2)
    .replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())

async function readConfigFile(
  file: string,
): Promise<{ name: string; content: unknown; resolvePath(path: string): string }> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'EACCES') || hasCode(error, 'EISDIR')) {
      throw new Fault(OPTION_REFUSED, `config (flag --config): ${file} cannot be read`, {}, error)
    }
    throw error
  }
  try {
    const content = JSON.parse(text) as unknown
    return { name: file, content, resolvePath: (path) => resolve(dirname(file), path) }
  } catch (error) {
    throw new Fault(OPTION_REFUSED, `config (flag --config): ${file} is not JSON`, {}, error)
  }
}

/** Runs a part until it is told to stop, then ends this process. Rejects when the part does not start. */
export async function runPart(
  starter: PartStarter,
  values: Readonly<Record<string, unknown>>,
  kind: string,
  supervised: boolean,
): Promise<void> {
  const stop = stopSignal(supervised)
  const running = await Promise.race([starter.start(values), stop])
  // Told to stop while starting: leaving at once is like being killed, which any part survives at any point.
  if (running === undefined) process.exit(0)
  process.stdout.write(`${JSON.stringify({ event: 'ready', part: kind, pid: process.pid })}\n`)
  await stop
  const late = setTimeout(() => {
    process.stderr.write(`closing took longer than ${CLOSE_GRACE_MS} ms, leaving\n`)
    process.exit(1)
  }, CLOSE_GRACE_MS)
  await running.close()
  clearTimeout(late)
  // Standard input under a supervisor, or a handle that a part forgot, must not keep a closed part alive.
  process.exit(0)
}

function stopSignal(supervised: boolean): Promise<void> {
  return new Promise((resolve) => {
    process.once('SIGTERM', () => resolve())
    process.once('SIGINT', () => resolve())
    if (supervised) {
      process.stdin.once('close', () => resolve())
      process.stdin.once('error', () => resolve())
      process.stdin.resume()
    }
  })
}
