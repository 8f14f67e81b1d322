import { spawn } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Fault, fault } from '#base/fault.ts'
import { signalProcess } from '#base/system/process.ts'
import { ApiSession } from '#client/api.ts'
import { parseCredentials } from '#client/credentials.ts'
import { connectNbd, type NbdClient } from '#client/nbd/client.ts'
import { showConnection } from '#client/native.ts'
import { createFetch } from '../http.ts'

/* The system that the demo runs on: `holdfast up` as any user would start it, in a directory of its own. */

export const DEMO_FAILED = fault({
  code: 'DEMO_FAILED',
  retry: 'never',
  text: 'The demo did not get to its end.',
  hint: 'Run it again with --keep, and look at the logs in its directory.',
})

export interface DemoSystem {
  readonly directory: string
  readonly api: ApiSession
  /** Every process whose pid file begins with `site`. */
  processesOf(site: string): Promise<readonly DemoProcess[]>
}

export interface DemoProcess {
  readonly name: string
  /** SIGKILL, at once. */
  kill(): void
}

/** A system on its way up: it can be stopped before it is ready. */
export interface LaunchedSystem {
  readonly ready: Promise<DemoSystem>
  stop(): Promise<void>
}

/** Starts it with --no-restart, so that what is killed stays dead. `say` gets what `holdfast up` tells. */
export function launchSystem(
  self: readonly string[],
  directory: string,
  say: (line: string) => void,
): LaunchedSystem {
  const [program = '', ...args] = self
  const flags = [
    'up',
    '--data',
    directory,
    '--listen',
    '127.0.0.1:0',
    '--no-restart',
    '--supervised',
  ]
  const child = spawn(program, [...args, ...flags], {
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
  })
  child.stdin.on('error', () => child.stdin.destroy())
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
  let told = ''
  createInterface({ input: child.stderr }).on('line', (line) => {
    told = `${told}${line}\n`.slice(-4_000)
    say(line)
  })
  const readyLine = new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line.includes('"event":"ready"')) resolve()
    })
    void ended.then((code) =>
      reject(new Fault(DEMO_FAILED, `\`holdfast up\` ended with ${code} and said:\n${told}`)),
    )
  })
  return {
    ready: readyLine.then(() => connectTo(directory)),
    async stop() {
      child.kill('SIGTERM')
      await ended
    },
  }
}

async function connectTo(directory: string): Promise<DemoSystem> {
  const path = join(directory, 'credentials.json')
  const credentials = parseCredentials(JSON.parse(await readFile(path, 'utf8')))
  if (credentials === undefined) throw new Fault(DEMO_FAILED, `reading ${path}`)
  const { url, domain, user, password, project_id: projectId } = credentials
  const api = new ApiSession({ url, domain, user, password, projectId }, createFetch(undefined))
  return { directory, api, processesOf: (site) => processesOf(directory, site) }
}

async function processesOf(directory: string, site: string): Promise<DemoProcess[]> {
  const run = join(directory, 'run')
  const files = (await readdir(run)).filter(
    (name) => name.startsWith(site) && name.endsWith('.pid'),
  )
  return await Promise.all(
    files.map(async (file) => {
      const pid = Number(await readFile(join(run, file), 'utf8'))
      return {
        name: file.slice(0, -'.pid'.length),
        kill: () => void signalProcess(pid, 'SIGKILL'),
      }
    }),
  )
}

/** Opens a volume where it may be written now, over the unix socket. */
export async function openVolume(api: ApiSession, volume: string): Promise<NbdClient> {
  const connection = await showConnection(api, volume)
  return await connectNbd({ unix: connection.unix }, { exportName: connection.export })
}
