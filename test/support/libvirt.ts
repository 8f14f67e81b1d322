import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sleep } from '#base/clock.ts'
import { systemClock } from '#base/system/clock.ts'

/* A libvirtd of one test: in a mount namespace of its own with empty directories in the places that libvirt has compiled in, so that it meets
 * neither the machine's configuration nor another libvirtd. Its guests run as root. */

const PLACES = [
  '/etc/libvirt',
  '/var/lib/libvirt',
  '/var/cache/libvirt',
  '/run/libvirt',
  '/var/log/libvirt',
]
const START_LIMIT_MS = 60_000

export interface Libvirt {
  readonly uri: string
  close(): Promise<void>
}

/** Or why there can be none here. Its files go to `directory`. */
export async function startLibvirt(directory: string): Promise<Libvirt | { skip: string }> {
  if (process.getuid?.() !== 0) return { skip: 'libvirtd is tested as root only' }
  const missing = ['libvirtd', 'virsh', 'unshare'].find(
    (program) => spawnSync(program, ['--version']).error !== undefined,
  )
  if (missing !== undefined) return { skip: `${missing} is not installed` }
  await mkdir(directory, { recursive: true })
  await writeFile(
    join(directory, 'qemu.conf'),
    [
      'user = "root"',
      'group = "root"',
      'dynamic_ownership = 0',
      'remember_owner = 0',
      'security_driver = "none"',
      'stdio_handler = "file"',
      'cgroup_controllers = []',
      'namespaces = []',
      '',
    ].join('\n'),
  )
  await writeFile(
    join(directory, 'libvirtd.conf'),
    `unix_sock_dir = "${directory}"\nunix_sock_rw_perms = "0700"\nauth_unix_rw = "none"\n`,
  )
  for (const file of ['passwd', 'group']) {
    // libvirt wants this user to exist even when it is told to use another one.
    const mine = file === 'passwd' ? '64055:64055::/nonexistent:/bin/false' : '64055:'
    const text = await readFile(`/etc/${file}`, 'utf8')
    await writeFile(join(directory, file), `${text.trimEnd()}\nlibvirt-qemu:x:${mine}\n`)
  }
  const script = [
    'set -e',
    `for place in ${PLACES.join(' ')}; do mkdir -p $place; mount -t tmpfs none $place; done`,
    `mount --bind ${directory}/passwd /etc/passwd; mount --bind ${directory}/group /etc/group`,
    `cp ${directory}/qemu.conf /etc/libvirt/qemu.conf`,
    `exec libvirtd --config ${directory}/libvirtd.conf --pid-file ${directory}/libvirtd.pid`,
  ].join('\n')
  const child = spawn('unshare', ['-m', '--propagation', 'private', 'sh', '-c', script], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-1_000)
  })
  const uri = `qemu:///system?socket=${join(directory, 'libvirt-sock')}`
  const problem = await answered(child, directory, uri)
  if (problem === undefined) return { uri, close: () => end(child) }
  await end(child)
  return { skip: `libvirtd cannot be started: ${problem} ${said}` }
}

async function answered(
  child: ChildProcess,
  directory: string,
  uri: string,
): Promise<string | undefined> {
  const limit = systemClock.bootMs() + START_LIMIT_MS
  while (!existsSync(join(directory, 'libvirt-sock'))) {
    if (child.exitCode !== null) return `it ended with ${child.exitCode}.`
    if (systemClock.bootMs() > limit) return 'it does not listen.'
    await sleep(systemClock, 50)
  }
  const { status, stderr } = spawnSync('virsh', ['-c', uri, 'version'], { timeout: START_LIMIT_MS })
  return status === 0 ? undefined : `virsh says ${stderr.toString()}`
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}
