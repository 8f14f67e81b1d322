import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, open as openFile, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { repeated } from '#agent/backup/backups.contract.ts'
import { systemClock } from '#base/system/clock.ts'
import { ApiSession } from '#client/api.ts'
import { type Credentials, parseCredentials } from '#client/credentials.ts'
import { createVolume, showVolume } from '#client/evs.ts'
import { connectNbd, type NbdClient } from '#client/nbd/client.ts'
import { showConnection } from '#client/native.ts'
import { showPair, waitFor } from '#client/sdrs.ts'
import { agentCommand } from '../support/agent-command.ts'

/* `holdfast up` with its real parts, and the commands of the command line against it. */

const BINARY = fileURLToPath(new URL('../../bin/holdfast', import.meta.url))
const PARTS = ['az1-agent', 'az2-agent', 'control', 'r2-az1-agent', 'r2-control']

async function holdfast(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const child = spawn(BINARY, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const [code] = (await once(child, 'close')) as [number]
  return { code, out, err }
}

/** Starts it and settles when it is ready. */
async function start(data: string, ...flags: string[]): Promise<ChildProcess> {
  const child = spawn(BINARY, ['up', '--data', data, ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let err = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const lines = createInterface({ input: child.stdout })
  const ready = once(lines, 'line') as Promise<[string]>
  const [line] = await Promise.race([
    ready,
    once(child, 'exit').then(([code]) => assert.fail(`up ended with ${code}: ${err}`)),
  ])
  assert.match(line, /^\{"event":"ready","url":"http:\/\/127\.0\.0\.1:\d+"\}$/)
  return child
}

async function stop(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode
  const exited = once(child, 'exit') as Promise<[number | null]>
  child.kill('SIGTERM')
  const [code] = await exited
  return code
}

const nodeFetch = (url: string, init: RequestInit): Promise<Response> => fetch(url, init)

describe('the embedded system with its real parts', () => {
  let data: string
  let up: ChildProcess
  let credentials: Credentials
  let api: ApiSession
  let volume: string
  let pair: string
  const block = randomBytes(4096)

  const open = async (id = volume): Promise<NbdClient> => {
    const { unix, export: exportName } = await showConnection(api, id)
    return await connectNbd({ unix }, { exportName })
  }
  const pidOf = async (part: string) =>
    Number(await readFile(join(data, 'run', `${part}.pid`), 'utf8'))

  before(async () => {
    data = await mkdtemp(join(tmpdir(), 'holdfast-real-'))
    up = await start(data, '--listen', '127.0.0.1:0')
    const text = await readFile(join(data, 'credentials.json'), 'utf8')
    const parsed = parseCredentials(JSON.parse(text))
    assert.ok(parsed)
    credentials = parsed
    const { url, domain, user, password, project_id: projectId } = credentials
    api = new ApiSession({ url, domain, user, password, projectId }, nodeFetch)
  })
  after(async () => {
    await stop(up)
    await rm(data, { recursive: true, force: true })
  })

  test('the administrator of each region can log in there as soon as the ready line is out', async () => {
    for (const one of [credentials, ...credentials.regions]) {
      const { url, domain, user, password, project_id: projectId } = one
      const session = new ApiSession({ url, domain, user, password, projectId }, nodeFetch)
      assert.equal(await session.projectId(), one.project_id)
    }
  })

  test('a volume can be created at once, and written through NBD where the API says', async () => {
    const created = await createVolume(api, { name: 'v', site: 'az1', sizeGib: 1 })
    volume = created.id
    await waitFor(
      'the volume',
      () => showVolume(api, volume),
      ({ status }) => status === 'available',
      { clock: systemClock, limitMs: 20_000 },
    )
    const client = await open()
    await client.write(8192, block)
    await client.flush()
    await client.disconnect()
  })

  test('after SIGKILL of every single part everything answers again and the data is there', async () => {
    for (const part of PARTS) process.kill(await pidOf(part), 'SIGKILL')
    const client = await waitFor(
      'the volume to open',
      () => open().catch(() => undefined),
      (opened) => opened !== undefined,
      { clock: systemClock, limitMs: 30_000 },
    )
    assert.ok(client)
    assert.deepEqual(await client.read(8192, 4096), block)
    await client.disconnect()
  })

  test('the commands show it, for people and for machines', async () => {
    const status = await holdfast('status', '--data', data, '--json')
    assert.equal(status.code, 0, status.err)
    const { parts, volumes } = JSON.parse(status.out) as { parts: unknown[]; volumes: number }
    assert.equal(parts.length, PARTS.length)
    assert.equal(volumes, 1)
    const list = await holdfast('volume', 'list', '--data', data)
    assert.match(list.out, new RegExp(`^id .*name.*\n${volume} +v +1 +az1 +available`))
    const connection = await holdfast('volume', 'connection', volume, '--data', data)
    assert.match(connection.out, /^export .*\nunix .*nbd\.sock/)
    const unknown = await holdfast('volume', 'show', 'nonsense', '--data', data, '--json')
    assert.equal(unknown.code, 1)
    assert.equal((JSON.parse(unknown.err) as { code: string }).code, 'API_REFUSED')
  })

  test('a group goes through its life by commands alone', async () => {
    const result = async (...args: string[]): Promise<Record<string, unknown>> => {
      const { code, out, err } = await holdfast(...args, '--data', data, '--json')
      assert.equal(code, 0, `${args.join(' ')}: ${err}`)
      return JSON.parse(out) as Record<string, unknown>
    }
    const entity = (job: Record<string, unknown>, name: string): string =>
      String((job['entities'] as Record<string, unknown>)[name])
    const created = await result('group', 'create', 'g', '--source', 'az1', '--target', 'az2')
    const group = entity(created, 'server_group_id')
    pair = entity(
      await result('pair', 'create', 'p', '--group', group, '--volume', volume),
      'replication_pair_id',
    )
    assert.equal((await result('group', 'start', group))['status'], 'SUCCESS')
    await waitFor(
      'the pair to be in sync',
      () => result('pair', 'show', pair),
      (one) => one['replication_status'] === 'active',
      { clock: systemClock, limitMs: 60_000 },
    )
    assert.equal((await result('group', 'reverse', group))['status'], 'SUCCESS')
    const moved = await result('group', 'show', group)
    assert.deepEqual([moved['status'], moved['priority_station']], ['protected', 'target'])
    const refused = await holdfast('group', 'delete', group, '--data', data)
    assert.equal(refused.code, 1)
    assert.match(refused.err, /SDRS\.1010/)
  })

  test('users, roles and keys are managed by commands, and secrets are shown once', async () => {
    const at = ['--data', data, '--json']
    const made = await holdfast('user', 'create', 'bob', ...at)
    assert.equal(made.code, 0, made.err)
    const { password } = JSON.parse(made.out) as { password: string }
    assert.ok(password.length >= 20)
    assert.equal(
      (await holdfast('role', 'grant', 'bob', 'reader', '--in', 'local-1', ...at)).code,
      0,
    )
    const { url, domain, project_id: projectId } = credentials
    const bob = new ApiSession({ url, domain, user: 'bob', password, projectId }, nodeFetch)
    assert.equal((await showVolume(bob, volume)).name, 'v')
    await assert.rejects(createVolume(bob, { name: 'x', site: 'az1', sizeGib: 1 }), /403/)
    const key = await holdfast('key', 'create', 'bob', '--for', 'local-1', ...at)
    assert.equal(key.code, 0, key.err)
    assert.match((JSON.parse(key.out) as { secret_key: string }).secret_key, /^[\w-]{40}$/)
    const list = await holdfast('key', 'list', 'bob', ...at)
    assert.ok(!list.out.includes('secret'))
    assert.equal((await holdfast('user', 'delete', 'bob', ...at)).code, 0)
    await assert.rejects(showVolume(bob, volume), /401/)
  })

  test('the state is backed up while the control plane runs, and is not restored under it', async () => {
    const file = join(data, 'state.backup')
    const backup = await holdfast('state', 'backup', file, '--data', data, '--json')
    assert.equal(backup.code, 0, backup.err)
    const { rows } = JSON.parse(backup.out) as { rows: number }
    assert.ok(rows > 10)
    const restore = await holdfast('state', 'restore', file, '--data', data)
    assert.equal(restore.code, 1)
    assert.match(restore.err, /not empty|in use|another/i)
  })

  test('SIGTERM ends it within seconds with exit code 0, its backups can be read, and a second start has everything', async () => {
    const request = {
      backup: randomUUID(),
      volumes: [volume],
      names: [volume],
      parent: null,
      labels: {},
      rate_bytes: 0,
    }
    const { checkpoint } = await repeated(() =>
      agentCommand(data, 'az1-agent', 'backup.start', request),
    )
    const beginMs = systemClock.bootMs()
    assert.equal(await stop(up), 0)
    assert.ok(systemClock.bootMs() - beginMs < 8_000)
    // With everything down: the vault, its key and the program are enough.
    const vault = [
      '--vault',
      join(data, 'vault-local-1'),
      '--key-file',
      join(data, 'pki', 'vault-local-1.key'),
    ]
    const list = await holdfast('vault', 'ls', ...vault)
    assert.ok(list.out.includes(checkpoint ?? 'none'), list.err)
    assert.equal((await holdfast('vault', 'verify', '--data', ...vault)).code, 0)
    const image = join(data, 'restored.raw')
    const restore = await holdfast('vault', 'restore', checkpoint ?? '', '--to', image, ...vault)
    assert.equal(restore.code, 0, restore.err)
    const file = await openFile(image, 'r')
    const { buffer } = await file.read(Buffer.alloc(4096), 0, 4096, 8192)
    await file.close()
    assert.deepEqual(buffer, block)
    up = await start(data)
    // The group had switched sides: its pair is to be written at the other site now, as it was before the stop.
    const client = await waitFor(
      'the pair to open',
      () => open(pair).catch(() => undefined),
      (opened) => opened !== undefined,
      { clock: systemClock, limitMs: 30_000 },
    )
    assert.ok(client)
    assert.deepEqual(await client.read(8192, 4096), block)
    await client.disconnect()
    await waitFor(
      'the pair to be in sync again',
      () => showPair(api, pair),
      (one) => one.replication_status === 'active',
      { clock: systemClock, limitMs: 60_000 },
    )
  })
})
