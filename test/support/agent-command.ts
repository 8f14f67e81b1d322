import { readFile } from 'node:fs/promises'
import { request } from 'node:https'
import { join } from 'node:path'
import type { CommandAnswer, CommandName, CommandRequest } from '#wire/site/commands.ts'

/** Sends a command to an agent of `holdfast up --data DATA`, with the certificate of its control plane. */
export async function agentCommand<N extends CommandName>(
  data: string,
  agent: string,
  name: N,
  body: CommandRequest<N>,
): Promise<CommandAnswer<N>> {
  const config = JSON.parse(await readFile(join(data, 'config', `${agent}.json`), 'utf8')) as {
    readonly commandListen: string
  }
  const pem = (file: string) => readFile(join(data, 'pki', file))
  const [ca, cert, key] = await Promise.all([pem('ca.pem'), pem('control.pem'), pem('control.key')])
  return await new Promise((resolve, reject) => {
    const sent = request(
      `https://${config.commandListen}/internal/v1/commands/${name}`,
      { method: 'POST', ca, cert, key },
      (response) => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (part: string) => (text += part))
        response.on('error', reject)
        response.on('end', () => {
          if (response.statusCode === 200) resolve(JSON.parse(text) as CommandAnswer<N>)
          else reject(new Error(`${name}: ${response.statusCode} ${text}`))
        })
      },
    )
    sent.on('error', reject)
    sent.end(JSON.stringify(body))
  })
}
