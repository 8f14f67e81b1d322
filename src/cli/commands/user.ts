import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import type { Command } from 'commander'
import {
  createUser,
  deleteUser,
  enableUser,
  listUsers,
  setPassword,
  type UserInfo,
} from '#client/identity.ts'
import type { CommandContext } from '../context.ts'
import { projectBy, userBy } from '../names.ts'
import { columns } from '../output.ts'
import { newPassword } from '../secrets.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { usageError } from '../usage.ts'

/* `holdfast user`: who may log in. Passwords come from a file or standard input, or are made and shown once. */

const PASSWORD_FILE = '--password-file <file>'
const PASSWORD_ABOUT =
  'file whose first line is the password, - for standard input (default: one is made and shown)'

export function userCommand(command: Command, context: CommandContext): void {
  command.description('users: who may log in')
  const leaf = (name: string) => apiLeaf(context, command, name)

  apiAction(context, leaf('list').description('list the users'), async (api, output) => {
    const users = await listUsers(api)
    output.result({ users }, table(users))
  })

  const create = leaf('create')
    .description('create a user; it may do nothing until it is given a role')
    .argument('<name>')
    .option('--default-project <project>', 'where a login goes that names no project')
    .option(PASSWORD_FILE, PASSWORD_ABOUT)
  apiAction<{ defaultProject?: string; passwordFile?: string }>(
    context,
    create,
    async (api, output, flags, name = '') => {
      const { password, made } = await choosePassword(flags.passwordFile)
      const project =
        flags.defaultProject === undefined
          ? {}
          : { project: (await projectBy(api, flags.defaultProject)).id }
      const user = await createUser(api, { name, password, ...project })
      output.result({ ...user, ...(made ? { password } : {}) }, [
        ...table([user]),
        ...(made ? ['', `password ${password}   (shown only now)`] : []),
      ])
    },
  )

  const password = leaf('password')
    .description("set a user's password; ends its tokens")
    .argument('<user>')
    .option(PASSWORD_FILE, PASSWORD_ABOUT)
  apiAction<{ passwordFile?: string }>(context, password, async (api, output, flags, name = '') => {
    const { id } = await userBy(api, name)
    const chosen = await choosePassword(flags.passwordFile)
    await setPassword(api, id, chosen.password)
    output.result({ id, ...(chosen.made ? { password: chosen.password } : {}) }, [
      `${name}: password changed`,
      ...(chosen.made ? [`password ${chosen.password}   (shown only now)`] : []),
    ])
  })

  for (const [verb, enabled, about] of [
    ['enable', true, 'let a user log in again'],
    ['disable', false, 'end the tokens of a user and refuse its logins and keys'],
  ] as const) {
    const change = leaf(verb).description(about).argument('<user>')
    apiAction(context, change, async (api, output, _, name = '') => {
      const user = await enableUser(api, (await userBy(api, name)).id, enabled)
      output.result(user, `${user.name}: ${verb}d`)
    })
  }

  const remove = leaf('delete')
    .description('delete a user with its roles, keys and tokens')
    .argument('<user>')
  apiAction(context, remove, async (api, output, _, name = '') => {
    const user = await userBy(api, name)
    await deleteUser(api, user.id)
    output.result({ deleted: user.id }, `${user.name}: deleted`)
  })
}

async function choosePassword(
  file: string | undefined,
): Promise<{ password: string; made: boolean }> {
  if (file === undefined) return { password: newPassword(), made: true }
  const content =
    file === '-' ? await text(process.stdin) : await readFile(file, 'utf8').catch(() => undefined)
  if (content === undefined) throw usageError(`--password-file ${file} cannot be read`)
  const password = content.split(/\r?\n/)[0] ?? ''
  if (password === '') throw usageError(`--password-file ${file} has an empty first line`)
  return { password, made: false }
}

const table = (users: readonly UserInfo[]): string[] =>
  columns(
    ['id', 'name', 'enabled', 'default project'],
    users.map((one) => [one.id, one.name, one.enabled ? 'yes' : 'no', one.default_project_id]),
  )
