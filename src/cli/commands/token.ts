import type { Command } from 'commander'
import type { CommandContext } from '../context.ts'
import { apiAction, apiLeaf } from '../session.ts'

/* `holdfast token`: log in and print a token for other programs. */

export function tokenCommand(command: Command, context: CommandContext): void {
  command.description('issue a token for other programs')
  const issue = apiLeaf(context, command, 'issue').description('log in and print a token')
  apiAction(context, issue, async (api, output) => {
    const [token, project_id] = [await api.token(), await api.projectId()]
    output.result({ token, project_id, url: api.url }, token)
  })
}
