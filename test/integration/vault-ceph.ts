import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { until } from '../support/until.ts'

/* A real S3 server for tests: Ceph's gateway over one monitor and one OSD that keeps everything in memory. */

const PROGRAMS = [
  'ceph',
  'ceph-mon',
  'ceph-osd',
  'ceph-authtool',
  'monmaptool',
  'radosgw',
  'radosgw-admin',
]
export const ACCESS_KEY = 'HOLDFASTTESTACCESS00'
export const SECRET_KEY = 'holdfasttestsecretholdfasttestsecret0000'

/** Each of its parts is given so long to start. */
const START_MS = 60_000

/** Why it cannot run here, or undefined. */
export function missingPrograms(): string | undefined {
  const directories = (process.env['PATH'] ?? '').split(':')
  const missing = PROGRAMS.filter(
    (name) => !directories.some((path) => existsSync(join(path, name))),
  )
  if (missing.length === 0) return undefined
  return `not installed: ${missing.join(', ')} (Debian: ceph-mon ceph-osd ceph-common radosgw)`
}

export interface S3Server {
  readonly endpoint: string
  stop(): Promise<void>
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

export async function startGateway(directory: string): Promise<S3Server> {
  const [monitorPort, port] = [await freePort(), await freePort()]
  for (const name of ['mon', 'osd', 'run']) mkdirSync(join(directory, name))
  const conf = join(directory, 'ceph.conf')
  const keyring = join(directory, 'keyring')
  const fsid = randomUUID()
  const monitor = `[v2:127.0.0.1:${monitorPort}]`
  writeFileSync(conf, configuration(directory, fsid, monitor, port))
  const run = (program: string, ...args: string[]) =>
    execFileSync(program, args, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' })
  const key = (name: string, ...caps: string[]) =>
    run(
      'ceph-authtool',
      keyring,
      ...(existsSync(keyring) ? [] : ['--create-keyring']),
      '--gen-key',
      '-n',
      name,
      ...caps,
    )
  const all = ['--cap', 'mon', 'allow *', '--cap', 'osd', 'allow *']
  key('mon.', '--cap', 'mon', 'allow *')
  key('client.admin', ...all, '--cap', 'mgr', 'allow *')
  key('osd.0', '--cap', 'mon', 'allow profile osd', '--cap', 'osd', 'allow *')
  key('client.rgw.a', '--cap', 'mon', 'allow rw', '--cap', 'osd', 'allow rwx')
  const map = join(directory, 'monmap')
  run('monmaptool', '--create', '--fsid', fsid, '--addv', 'a', monitor, map)
  run('ceph-mon', '-c', conf, '-i', 'a', '--mkfs', '--monmap', map, '--keyring', keyring)

  const children: ChildProcess[] = []
  const start = (program: string, ...args: string[]) =>
    children.push(spawn(program, ['-c', conf, '-f', ...args], { stdio: 'ignore' }))
  const stop = async () => {
    for (const child of children.toReversed()) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      // Nothing of it is needed again, and a clean stop takes five seconds.
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
  }
  try {
    start('ceph-mon', '-i', 'a')
    const osd = randomUUID()
    // Waits for the monitor, as the gateway does for the OSD.
    run('ceph', '-c', conf, 'osd', 'new', osd, '0')
    run('ceph-osd', '-c', conf, '-i', '0', '--mkfs', '--osd-uuid', osd, '--no-mon-config')
    start('ceph-osd', '-i', '0')
    start('radosgw', '-n', 'client.rgw.a')
    const endpoint = `http://127.0.0.1:${port}`
    await until(
      'the gateway',
      async () => {
        try {
          return (await fetch(endpoint)).ok
        } catch {
          return false // not listening yet
        }
      },
      START_MS,
    )
    run(
      'radosgw-admin',
      '-c',
      conf,
      'user',
      'create',
      '--uid=test',
      '--display-name=test',
      `--access-key=${ACCESS_KEY}`,
      `--secret=${SECRET_KEY}`,
    )
    return { endpoint, stop }
  } catch (error) {
    await stop()
    const log = join(directory, 'rgw.log')
    const said = existsSync(log) ? readFileSync(log, 'utf8').slice(-2000) : ''
    throw new Error(`the S3 server did not start: ${String(error)} ${said}`, { cause: error })
  }
}

const configuration = (
  directory: string,
  fsid: string,
  monitor: string,
  port: number,
): string => `[global]
fsid = ${fsid}
mon host = ${monitor}
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
keyring = ${directory}/keyring
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon warn on pool no redundancy = false
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 1073741824
mon data avail warn = 2
mon data avail crit = 1
run dir = ${directory}/run
admin socket = ${directory}/run/$name.$pid.asok
log file = ${directory}/$name.log
pid file = ${directory}/run/$name.pid
mon data = ${directory}/mon
osd data = ${directory}/osd
crash dir = ${directory}/crash
paxos propose interval = 0.05
paxos min wait = 0.01
mgr initial modules =
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:${port}
rgw thread pool size = 32
log file = ${directory}/rgw.log
`
