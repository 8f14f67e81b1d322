import { createServer } from 'node:http'
import { appendFileSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { agentConfig, agentOptions } from '#agent/config.ts'
import type { Address, OptionValues } from '#base/config.ts'
import { runCli } from '#cli/cli.ts'
import type { RunningPart } from '#cli/part.ts'
import { controlConfig, controlOptions } from '#control/config.ts'

/* The real command line over parts that do nothing but listen, for tests of the supervisor: they start quickly and fail
 * on request. A file `fail` in a part's directory makes it exit at once, `hang` makes it never answer. */

async function standIn(dataDir: string, listen: Address): Promise<RunningPart> {
  appendFileSync(join(dataDir, 'starts'), `${process.pid}\n`)
  if (existsSync(join(dataDir, 'fail'))) {
    process.stderr.write('stand-in: told to fail\n')
    process.exit(3)
  }
  if (existsSync(join(dataDir, 'hang'))) await new Promise(() => setInterval(() => {}, 60_000))
  const server = createServer((_, reply) => reply.end('{}'))
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(listen.port, listen.host, resolve)
  })
  return {
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      appendFileSync(join(dataDir, 'closed'), `${process.pid}\n`)
    },
  }
}

const script = fileURLToPath(import.meta.url)

const exitCode = await runCli(process.argv.slice(2), {
  version: '0.0.0-test',
  streams: { out: process.stdout, err: process.stderr },
  env: process.env,
  control: {
    about: 'control stand-in',
    options: controlOptions,
    start: async (values) => {
      const config = controlConfig(values as OptionValues<typeof controlOptions>)
      return await standIn(config.dataDir, config.listen)
    },
  },
  agent: {
    about: 'agent stand-in',
    options: agentOptions,
    start: async (values) => {
      const config = agentConfig(values as OptionValues<typeof agentOptions>)
      return await standIn(config.dataDir, config.commandListen)
    },
  },
  state: {
    backup: () => Promise.reject(new Error('no state here')),
    restore: () => Promise.reject(new Error('no state here')),
  },
  self: [process.execPath, '--disable-warning=ExperimentalWarning', script],
})
// Output to pipes, files and terminals is synchronous on Linux, so nothing is cut off; open handles must not delay this.
process.exit(exitCode)
