import { execFile, spawn } from 'node:child_process'
import { chownSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'

/* A throwaway PostgreSQL of this machine's own binaries, listening on loopback only. */

const run = promisify(execFile)
const BIN_DIRS = [
  ...['17', '16', '15', '14', '13'].map((version) => `/usr/lib/postgresql/${version}/bin`),
  '/usr/local/bin',
  '/usr/bin',
]

export interface Postgres {
  readonly port: number
  /** Makes a database and returns its URL. */
  database(name: string): Promise<string>
  /** Ends it as a power cut ends a process: SIGKILL to the server and its children. */
  kill(): Promise<void>
  start(): Promise<void>
  /** Changes a setting of the running server. */
  set(name: string, value: string): Promise<void>
  /** A streaming standby. `takeOver` promotes it and lets it answer at the port of the primary, which must be dead. */
  standby(): Promise<{ takeOver(): Promise<void> }>
  stop(): Promise<void>
}

/** Starts one, or says why that is not possible here. */
export async function startPostgres(): Promise<Postgres | { readonly missing: string }> {
  const bin = BIN_DIRS.find(
    (dir) => existsSync(join(dir, 'initdb')) && existsSync(join(dir, 'postgres')),
  )
  if (bin === undefined) return { missing: 'PostgreSQL is not installed (initdb was not found)' }
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-postgres-'))
  // initdb refuses to work for root.
  const asRoot = userInfo().uid === 0
  const prefix = asRoot
    ? ['setpriv', '--reuid=postgres', '--regid=postgres', '--init-groups', '--']
    : []
  if (asRoot) {
    const { stdout } = await run('id', ['-u', 'postgres'])
    chownSync(dir, Number(stdout), -1)
  }
  const call = ([program = '', ...args]: string[]) => run(program, args, { cwd: dir })
  const initdb = ['-D', `${dir}/data`, '-U', 'postgres', '--auth=trust', '--no-sync', '-E', 'UTF8']
  await call([...prefix, join(bin, 'initdb'), ...initdb])
  const port = await freePort()
  let server: ReturnType<typeof spawn> | undefined
  let ended: Promise<unknown> = Promise.resolve()

  const admin = async (text: string, at = port) => {
    const client = new pg.Client(`postgres://postgres@127.0.0.1:${at}/postgres`)
    await client.connect()
    try {
      await client.query(text)
    } finally {
      await client.end()
    }
  }

  const launch = (data: string, at: number) => {
    const settings = [
      'listen_addresses=127.0.0.1',
      `unix_socket_directories=${dir}`,
      'shared_buffers=16MB',
      'max_connections=100',
    ]
    const [program = '', ...args] = [
      ...prefix,
      join(bin, 'postgres'),
      '-D',
      `${dir}/${data}`,
      '-p',
      String(at),
      ...settings.flatMap((setting) => ['-c', setting]),
    ]
    return { child: spawn(program, args, { cwd: dir, stdio: 'ignore' }) }
  }

  const reachable = async (child: ReturnType<typeof spawn>, at: number) => {
    for (;;) {
      try {
        return await admin('select 1', at)
      } catch (error) {
        if (child.exitCode !== null) throw new Error('PostgreSQL did not start', { cause: error })
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }
  }

  const serve = async (data: string) => {
    const { child } = launch(data, port)
    server = child
    ended = new Promise((resolve) => child.once('exit', resolve))
    await reachable(child, port)
  }

  const postgres: Postgres = {
    port,
    async database(name) {
      await admin(`create database ${name}`)
      return `postgres://postgres@127.0.0.1:${port}/${name}`
    },
    start: () => serve('data'),
    async set(name, value) {
      await admin(`alter system set ${name} = '${value}'`)
      await admin('select pg_reload_conf()')
    },
    async standby() {
      const from = ['-h', '127.0.0.1', '-p', String(port), '-U', 'postgres']
      const how = ['-D', `${dir}/standby`, '-R', '-X', 'stream', '--checkpoint=fast', '--no-sync']
      await call([...prefix, join(bin, 'pg_basebackup'), ...from, ...how])
      const standbyPort = await freePort()
      const { child } = launch('standby', standbyPort)
      const gone = new Promise((resolve) => child.once('exit', resolve))
      await reachable(child, standbyPort)
      return {
        async takeOver() {
          await admin('select pg_promote()', standbyPort)
          child.kill('SIGINT')
          await gone
          await serve('standby')
        },
      }
    },
    async kill() {
      const children = server?.pid === undefined ? [] : childrenOf(server.pid)
      server?.kill('SIGKILL')
      await ended
      // Left to themselves they follow when they next wait for a client, and until then answer one.
      for (const pid of children) killIfThere(pid)
      while (children.some((pid) => existsSync(`/proc/${pid}`))) {
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
    },
    async stop() {
      server?.kill('SIGINT')
      await ended
      rmSync(dir, { recursive: true, force: true })
    },
  }
  await postgres.start()
  return postgres
}

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter((one) => one !== '')
    .map(Number)

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has followed the server already.
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', reject)
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}
