import { type Command, Option } from 'commander'
import { createKey, deleteKey, listKeys } from '#client/identity.ts'
import type { CommandContext } from '../context.ts'
import { projectBy, userBy } from '../names.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'

/* `holdfast key`: access keys, with which clients sign requests. */

export function keyCommand(command: Command, context: CommandContext): void {
  command.description('access keys: for clients that sign their requests')
  const leaf = (name: string) => apiLeaf(context, command, name)

  const create = leaf('create')
    .description('create an access key; its secret is shown this once')
    .argument('<user>')
    .addOption(new Option('--for <project>', 'the key is good for this project only'))
    .option('--description <text>')
  apiAction<{ for?: string; description?: string }>(
    context,
    create,
    async (api, output, flags, user = '') => {
      const made = await createKey(api, (await userBy(api, user)).id, {
        ...(flags.for === undefined ? {} : { project_id: (await projectBy(api, flags.for)).id }),
        ...(flags.description === undefined ? {} : { description: flags.description }),
      })
      output.result({ ...made.access_key, secret_key: made.secret_key }, [
        `access key ${made.access_key.access_key}`,
        `secret key ${made.secret_key}   (shown only now)`,
      ])
    },
  )

  const list = leaf('list').description('list the access keys of a user').argument('<user>')
  apiAction(context, list, async (api, output, _, user = '') => {
    const keys = await listKeys(api, (await userBy(api, user)).id)
    const rows = keys.map((one) => [
      one.access_key,
      one.project_id,
      one.created_at,
      one.description,
    ])
    output.result({ keys }, columns(['access key', 'project', 'created', 'description'], rows))
  })

  const remove = leaf('delete')
    .description('delete an access key')
    .argument('<user>')
    .argument('<access-key>')
  apiAction(context, remove, async (api, output, _, user = '', key = '') => {
    await deleteKey(api, (await userBy(api, user)).id, key)
    output.result({ deleted: key }, `${key}: deleted`)
  })
}
