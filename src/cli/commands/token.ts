import { text } from 'node:stream/consumers'
import type { Command } from 'commander'
import type { CommandContext } from '../context.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { usageError } from '../usage.ts'

/* `holdfast token`: tokens for other programs. */

export function tokenCommand(command: Command, context: CommandContext): void {
  command.description('issue and revoke tokens for other programs')
  const issue = apiLeaf(context, command, 'issue').description('log in and print a token')
  apiAction(context, issue, async (api, output) => {
    const [token, project_id] = [await api.token(), await api.projectId()]
    output.result({ token, project_id, url: api.url }, token)
  })

  const revoke = apiLeaf(context, command, 'revoke').description(
    'end a token, read from standard input (command lines are visible to others)',
  )
  apiAction(context, revoke, async (api, output) => {
    const token = (await text(process.stdin)).trim()
    if (token === '') throw usageError('no token came on standard input')
    await api.revoke(token)
    output.result({ revoked: true }, 'revoked')
  })
}
