import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { agentConfig, agentOptions } from '#agent/config.ts'
import { runCli } from '#cli/cli.ts'
import { controlConfig, controlOptions } from '#control/config.ts'
import type { OptionValues } from '#base/config.ts'
import { sizeThreadPool } from '#base/system/thread-pool.ts'

/* The one binary. Only this file knows the control plane, the agent and the command line at once; the parts' code is
 * loaded when a part is started, so that other commands stay quick. */

sizeThreadPool()
const script = fileURLToPath(import.meta.url)
const { version } = JSON.parse(
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
) as { version: string }

// For the processes that this one starts, when it was not started by bin/holdfast itself.
process.env['NODE_COMPILE_CACHE'] ??= fileURLToPath(
  new URL('../node_modules/.cache/holdfast', import.meta.url),
)

const exitCode = await runCli(process.argv.slice(2), {
  version,
  streams: { out: process.stdout, err: process.stderr },
  env: process.env,
  control: {
    about: 'run the control plane of one region',
    options: controlOptions,
    async start(values) {
      const config = controlConfig(values as OptionValues<typeof controlOptions>)
      const { startControl } = await import('#control/control.ts')
      return await startControl(config, version)
    },
  },
  agent: {
    about: 'run the agent of one site',
    options: agentOptions,
    async start(values) {
      const config = agentConfig(values as OptionValues<typeof agentOptions>)
      const { startAgent } = await import('#agent/agent.ts')
      return await startAgent(config, version)
    },
  },
  state: {
    async backup(values, file) {
      const { backupTo } = await import('#control/state.ts')
      return await backupTo(controlConfig(values as OptionValues<typeof controlOptions>), file)
    },
    async restore(values, file) {
      const { restoreFrom } = await import('#control/state.ts')
      return await restoreFrom(controlConfig(values as OptionValues<typeof controlOptions>), file)
    },
  },
  self: [process.execPath, '--disable-warning=ExperimentalWarning', script],
})
// Output to pipes, files and terminals is synchronous on Linux, so nothing is cut off; open handles must not delay this.
process.exit(exitCode)
