import { join, resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { Fault } from '#base/fault.ts'
import { readTextIfPresent } from '#base/system/files.ts'
import { ApiSession, type Login } from '#client/api.ts'
import { parseCredentials } from '#client/credentials.ts'
import type { CommandContext } from './context.ts'
import { createFetch } from './http.ts'
import type { Output } from './output.ts'
import { NO_CREDENTIALS } from './usage.ts'

/* Who a command acts as, and where. The first of these that is there:
 *
 *   --credentials FILE, --data DIR, HOLDFAST_CREDENTIALS, HOLDFAST_DATA, the OS_ variables that OpenStack clients use,
 *   ./holdfast-data/credentials.json
 *
 * There is no flag for a password or a token: command lines are visible to every user of a machine.
 */

export interface SessionFlags {
  readonly credentials?: string
  readonly data?: string
  readonly region?: string
  readonly project?: string
}

/** A command that talks to a control plane: `--json`, and how to log in. */
export function apiLeaf(context: CommandContext, parent: Command, name: string): Command {
  return context
    .leaf(parent, name)
    .addOption(new Option('--data <dir>', 'directory of `holdfast up`, for its credentials'))
    .addOption(new Option('--credentials <file>', 'credentials file'))
    .addOption(new Option('--region <name>', 'region, when the credentials name several'))
    .addOption(new Option('--project <id>', 'another project than that of the credentials'))
}

/** What runs inside such a command. */
export type ApiAction<Flags, Args extends unknown[]> = (
  api: ApiSession,
  output: Output,
  flags: Flags,
  ...args: Args
) => Promise<void>

/** Sets the action of an `apiLeaf` command with `args` arguments; its last two parameters are commander's own. */
export function apiAction<Flags>(
  context: CommandContext,
  command: Command,
  act: ApiAction<Flags, string[]>,
): void {
  command.action(async (...given: unknown[]) => {
    const args = given.slice(0, -2).map((arg) => (typeof arg === 'string' ? arg : ''))
    const flags = command.opts()
    const api = await openSession(context.env, flags)
    await act(api, context.output(command), flags as Flags, ...args)
  })
}

export async function openSession(
  env: Readonly<Record<string, string | undefined>>,
  flags: SessionFlags,
): Promise<ApiSession> {
  const { login, ca } = await findLogin(env, flags)
  return new ApiSession(
    flags.project === undefined ? login : { ...login, projectId: flags.project },
    createFetch(ca),
  )
}

interface Found {
  readonly login: Login
  readonly ca: string | undefined
}

async function findLogin(
  env: Readonly<Record<string, string | undefined>>,
  flags: SessionFlags,
): Promise<Found> {
  const inData = (directory: string) => join(directory, 'credentials.json')
  if (flags.credentials !== undefined) return await fromFile(flags.credentials, flags.region)
  if (flags.data !== undefined) return await fromFile(inData(flags.data), flags.region)
  const file = env['HOLDFAST_CREDENTIALS']
  if (file !== undefined) return await fromFile(file, flags.region)
  const data = env['HOLDFAST_DATA']
  if (data !== undefined) return await fromFile(inData(data), flags.region)
  const fromVariables = readOsVariables(env)
  if (fromVariables !== undefined) return fromVariables
  const usual = inData('./holdfast-data')
  if ((await readTextIfPresent(usual)) !== undefined) return await fromFile(usual, flags.region)
  throw new Fault(NO_CREDENTIALS, 'looking for credentials')
}

async function fromFile(file: string, region: string | undefined): Promise<Found> {
  const path = resolve(file)
  const text = await readTextIfPresent(path)
  if (text === undefined) throw new Fault(NO_CREDENTIALS, `${path} does not exist`)
  let content: unknown
  try {
    content = JSON.parse(text)
  } catch (error) {
    throw new Fault(NO_CREDENTIALS, `${path} is not JSON`, {}, error)
  }
  const credentials = parseCredentials(content)
  if (credentials === undefined) {
    throw new Fault(NO_CREDENTIALS, `${path} is not a credentials file`)
  }
  const all = [credentials, ...credentials.regions]
  const chosen = region === undefined ? credentials : all.find((one) => one.region === region)
  if (chosen === undefined) {
    const known = all.map((one) => one.region).join(', ')
    throw new Fault(NO_CREDENTIALS, `${path} has no region ${region}, it has ${known}`)
  }
  const { url, domain, user, password, project_id: projectId, ca } = chosen
  return { login: { url, domain, user, password, projectId }, ca }
}

/** The variables of the OpenStack clients. Undefined when OS_AUTH_URL is not set. */
function readOsVariables(env: Readonly<Record<string, string | undefined>>): Found | undefined {
  const authUrl = env['OS_AUTH_URL']
  if (authUrl === undefined) return undefined
  const domain = env['OS_USER_DOMAIN_NAME'] ?? env['OS_PROJECT_DOMAIN_NAME'] ?? 'holdfast'
  const pairs: [keyof Login, string | undefined][] = [
    ['token', env['OS_TOKEN']],
    ['user', env['OS_USERNAME']],
    ['password', env['OS_PASSWORD']],
    ['projectId', env['OS_PROJECT_ID']],
    ['projectName', env['OS_PROJECT_NAME']],
  ]
  const given = Object.fromEntries(pairs.filter(([, value]) => value !== undefined))
  return {
    login: { url: authUrl.replace(/\/(v3\/?)?$/, ''), domain, ...given },
    ca: env['OS_CACERT'],
  }
}
