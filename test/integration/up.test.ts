import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { sleep } from '#base/clock.ts'
import { systemClock } from '#base/system/clock.ts'
import { knock } from '#base/system/door.ts'
import { readProcess } from '#base/system/process.ts'
import { parseCredentials } from '#client/credentials.ts'
import type { PartStatus } from '#cli/up/supervisor.ts'

/* The supervisor with real processes. Its parts are stand-ins that only listen (see stand-in/main.ts), so that these
 * tests take seconds; up-real.test.ts starts the real ones. */

const PROGRAM = fileURLToPath(new URL('stand-in/main.ts', import.meta.url))
const PARTS = ['az1-agent', 'az2-agent', 'control', 'r2-az1-agent', 'r2-control']

/** One running `holdfast up`. */
class Up {
  readonly child: ChildProcess
  readonly lines: string[] = []
  readonly exited: Promise<number | null>
  stderr = ''
  readonly #ready: Promise<{ url: string }>

  constructor(data: string, ...flags: string[]) {
    this.child = spawn(process.execPath, [PROGRAM, 'up', '--data', data, ...flags], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.exited = once(this.child, 'exit').then(([code]) => code as number | null)
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.stderr += text))
    const { stdout } = this.child
    assert.ok(stdout)
    this.#ready = new Promise((resolve, reject) => {
      createInterface({ input: stdout }).on('line', (line) => {
        this.lines.push(line)
        const message = JSON.parse(line) as { event: string; url: string }
        if (message.event === 'ready') resolve(message)
      })
      void this.exited.then((code) => reject(new Error(`up ended with ${code}: ${this.stderr}`)))
    })
    this.#ready.catch(() => {})
  }

  ready(): Promise<{ url: string }> {
    return this.#ready
  }

  async stop(): Promise<number | null> {
    this.child.kill('SIGTERM')
    return await this.exited
  }
}

/** A command that ends by itself. */
async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  return await runWith({}, ...args)
}

async function runWith(
  env: Record<string, string>,
  ...args: string[]
): Promise<{ code: number; out: string; err: string }> {
  const child = spawn(process.execPath, [PROGRAM, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const [code] = (await once(child, 'close')) as [number]
  return { code, out, err }
}

async function status(data: string): Promise<Map<string, PartStatus>> {
  const reply = (await knock(join(data, 'up.sock'), { command: 'status' })) as {
    parts: PartStatus[]
  }
  return new Map(reply.parts.map((part) => [part.part, part]))
}

/** Waits until `check` holds for the parts; the supervisor is asked, nothing is assumed about how long it takes. */
async function until(
  data: string,
  what: string,
  check: (parts: Map<string, PartStatus>) => boolean,
): Promise<Map<string, PartStatus>> {
  const endMs = systemClock.bootMs() + 20_000
  for (;;) {
    const parts = await status(data)
    if (check(parts)) return parts
    assert.ok(systemClock.bootMs() < endMs, `${what}: ${JSON.stringify([...parts.values()])}`)
    await sleep(systemClock, 25)
  }
}

const pidOf = async (data: string, part: string): Promise<number> =>
  Number(await readFile(join(data, 'run', `${part}.pid`), 'utf8'))

const isGone = async (pid: number): Promise<boolean> => {
  const facts = await readProcess(pid)
  return facts === undefined || facts.state === 'Z'
}

async function newDirectory(): Promise<string> {
  return join(await mkdtemp(join(tmpdir(), 'holdfast-up-')), 'data')
}

const remove = (data: string): Promise<void> =>
  rm(join(data, '..'), { recursive: true, force: true })

describe('one system through its life', () => {
  let data: string
  let up: Up
  let firstCredentials: string

  before(async () => {
    data = await newDirectory()
    up = new Up(data, '--listen', '127.0.0.1:0')
    await up.ready()
  })
  after(async () => {
    await up.stop() // not a kill: parts that are still leaving would write into what is removed
    await remove(data)
  })

  test('the ready line is the only line on standard output, and every part answers then', async () => {
    const { url } = await up.ready()
    assert.equal(up.lines.length, 1)
    assert.match(url, /^http:\/\/127\.0\.0\.1:\d+$/)
    assert.equal((await fetch(url)).status, 200)
    const parts = await status(data)
    assert.deepEqual([...parts.keys()].sort(), PARTS)
    for (const part of parts.values()) assert.equal(part.state, 'ready')
  })

  test('each part is a process of its own with a pid file, the supervisor is none of them', async () => {
    assert.deepEqual(
      (await readdir(join(data, 'run'))).sort(),
      PARTS.map((part) => `${part}.pid`),
    )
    const pids = await Promise.all(PARTS.map((part) => pidOf(data, part)))
    assert.equal(new Set(pids).size, PARTS.length)
    for (const [index, pid] of pids.entries()) {
      const facts = await readProcess(pid)
      assert.ok(facts?.commandLine.includes(join(data, 'config', `${PARTS[index]}.json`)))
    }
    assert.equal(Number(await readFile(join(data, 'up.pid'), 'utf8')), up.child.pid)
  })

  test('the credentials name an administrator of each region, and only their owner can read them', async () => {
    const path = join(data, 'credentials.json')
    assert.equal((await stat(path)).mode & 0o777, 0o600)
    firstCredentials = await readFile(path, 'utf8')
    const credentials = parseCredentials(JSON.parse(firstCredentials))
    assert.ok(credentials)
    assert.equal(credentials.url, (await up.ready()).url)
    assert.equal(credentials.region, 'local-1')
    assert.equal(credentials.project_name, 'local-1')
    assert.match(credentials.project_id, /^[0-9a-f]{32}$/)
    assert.deepEqual(
      credentials.regions.map((one) => [one.region, one.project_name]),
      [['local-2', 'local-2']],
    )
    assert.notEqual(credentials.regions[0]?.password, credentials.password)
  })

  test('no secret is in a command line or readable by others', async () => {
    const { password, secret_key } = JSON.parse(firstCredentials) as Record<string, string>
    for (const part of PARTS) {
      const line = (await readProcess(await pidOf(data, part)))?.commandLine.join(' ') ?? ''
      assert.ok(!line.includes(password ?? '?') && !line.includes(secret_key ?? '?'))
    }
    for (const name of await readdir(join(data, 'pki'))) {
      if (!name.endsWith('.key')) continue
      assert.equal((await stat(join(data, 'pki', name))).mode & 0o777, 0o600)
    }
    assert.equal(existsSync(join(data, 'control', 'bootstrap.json')), false)
  })

  test('a second `up` on the same directory is refused and disturbs nothing', async () => {
    const before = await status(data)
    const second = await run('up', '--data', data)
    assert.equal(second.code, 5)
    assert.match(second.err, new RegExp(`already runs on .* \\(pid ${up.child.pid}\\)`))
    assert.deepEqual(
      [...(await status(data)).values()].map((part) => part.pid),
      [...before.values()].map((part) => part.pid),
    )
    assert.equal(Number(await readFile(join(data, 'up.pid'), 'utf8')), up.child.pid)
  })

  for (const part of PARTS) {
    test(`${part} comes back after SIGKILL, with a new pid and the same address`, async () => {
      const pid = await pidOf(data, part)
      process.kill(pid, 'SIGKILL')
      await until(data, part, (parts) => {
        const now = parts.get(part)
        return now?.state === 'ready' && now.pid !== pid
      })
      assert.notEqual(await pidOf(data, part), pid)
      assert.equal((await fetch((await up.ready()).url)).status, 200)
    })
  }

  test('a killed site stays down until it is started, the other parts go on', async () => {
    const others = (await status(data)).get('az2-agent')?.pid
    const pid = await pidOf(data, 'az1-agent')
    const killed = await run('site', 'kill', 'az1', '--data', data, '--json')
    assert.equal(killed.code, 0)
    assert.deepEqual(JSON.parse(killed.out), {
      event: 'site_killed',
      site: 'az1',
      parts: ['az1-agent'],
    })
    assert.ok(await isGone(pid))
    assert.ok(!existsSync(join(data, 'run', 'az1-agent.pid')))
    assert.ok(!existsSync(join(data, 'az1-agent', 'closed')), 'it had no time to close')
    const again = await runWith({ HOLDFAST_DATA: data }, 'site', 'kill', 'az1')
    assert.equal(again.code, 0, 'killing a dead site is no mistake')
    assert.equal((await status(data)).get('az2-agent')?.pid, others)

    const started = await run('site', 'start', 'az1', '--data', data)
    assert.equal(started.code, 0)
    assert.equal((await status(data)).get('az1-agent')?.state, 'ready')
  })

  test('a stopped site had time to close', async () => {
    assert.equal((await run('site', 'stop', 'az2', '--data', data)).code, 0)
    assert.ok(existsSync(join(data, 'az2-agent', 'closed')))
    assert.equal((await status(data)).get('az2-agent')?.state, 'down')
    assert.equal((await run('site', 'start', 'az2', '--data', data)).code, 0)
  })

  test('a site that does not exist is refused with those that do', async () => {
    const { code, err } = await run('site', 'kill', 'az9', '--data', data)
    assert.equal(code, 2)
    assert.match(err, /site az9 \(there are az1, az2, r2-az1\)/)
  })

  test('SIGTERM stops everything within seconds, properly, and the exit code is 0', async () => {
    const pids = await Promise.all(PARTS.map((part) => pidOf(data, part)))
    const beginMs = systemClock.bootMs()
    assert.equal(await up.stop(), 0)
    assert.ok(systemClock.bootMs() - beginMs < 5_000)
    for (const pid of pids) assert.ok(await isGone(pid))
    for (const part of PARTS) assert.ok(existsSync(join(data, part, 'closed')), part)
    assert.deepEqual(await readdir(join(data, 'run')), [])
    assert.ok(!existsSync(join(data, 'up.pid')))
    const { code, err } = await run('site', 'kill', 'az1', '--data', data)
    assert.equal(code, 3)
    assert.match(err, /No process answers there/)
  })

  test('a second start goes on with the same addresses and leaves the credentials alone', async () => {
    const { url } = await up.ready()
    up = new Up(data)
    assert.equal((await up.ready()).url, url)
    assert.equal(await readFile(join(data, 'credentials.json'), 'utf8'), firstCredentials)
  })

  test('when the supervisor is killed its parts leave, and the next start takes over', async () => {
    const pids = await Promise.all(PARTS.map((part) => pidOf(data, part)))
    up.child.kill('SIGKILL')
    await up.exited
    up = new Up(data)
    await up.ready()
    for (const pid of pids) assert.ok(await isGone(pid))
    const parts = await status(data)
    for (const part of parts.values()) assert.equal(part.state, 'ready')
  })

  test('after another address was asked for, the credentials name it and keep their secrets', async () => {
    await up.stop()
    up = new Up(data, '--listen', 'localhost:0')
    const { url } = await up.ready()
    assert.match(url, /^http:\/\/localhost:\d+$/)
    const before = JSON.parse(firstCredentials) as Record<string, unknown>
    const now = JSON.parse(await readFile(join(data, 'credentials.json'), 'utf8')) as typeof before
    assert.equal(now['url'], url)
    assert.equal(now['password'], before['password'])
  })
})

test('with --no-restart a killed site stays down, and control planes still come back', async (t) => {
  const data = await newDirectory()
  const up = new Up(data, '--listen', '127.0.0.1:0', '--no-restart')
  t.after(async () => {
    await up.stop()
    await remove(data)
  })
  await up.ready()
  const pids = new Map(
    await Promise.all(PARTS.map(async (part) => [part, await pidOf(data, part)] as const)),
  )
  for (const part of ['az1-agent', 'control', 'r2-control']) {
    process.kill(pids.get(part) ?? 0, 'SIGKILL')
  }
  const parts = await until(data, 'the control planes are back', (now) =>
    ['control', 'r2-control'].every(
      (part) => now.get(part)?.state === 'ready' && now.get(part)?.pid !== pids.get(part),
    ),
  )
  assert.equal(parts.get('az1-agent')?.state, 'down')
  assert.equal(parts.get('az2-agent')?.pid, pids.get('az2-agent'))
  assert.equal((await run('site', 'start', 'az1', '--data', data)).code, 0)
  assert.equal((await status(data)).get('az1-agent')?.state, 'ready')
})

test('a part that cannot start is tried a few times, then `up` says why and leaves nothing behind', async (t) => {
  const data = await newDirectory()
  t.after(() => remove(data))
  await mkdir(join(data, 'az2-agent'), { recursive: true })
  await writeFile(join(data, 'az2-agent', 'fail'), '')
  const up = new Up(data, '--listen', '127.0.0.1:0')
  assert.equal(await up.exited, 1)
  assert.match(up.stderr, /starting az2-agent, whose log .*az2-agent\.log ends with:/)
  assert.match(up.stderr, /stand-in: told to fail/)
  assert.deepEqual(up.lines, [])
  assert.deepEqual(await readdir(join(data, 'run')), [])
  const starts = (await readFile(join(data, 'az2-agent', 'starts'), 'utf8')).trim().split('\n')
  assert.equal(starts.length, 3)

  // The interrupted first run is finished by the next one, with the secrets it had made.
  const secrets = await readFile(join(data, 'credentials.json'), 'utf8')
  await rm(join(data, 'az2-agent', 'fail'))
  const next = new Up(data)
  await next.ready()
  assert.equal(await readFile(join(data, 'credentials.json'), 'utf8'), secrets)
  assert.equal(await next.stop(), 0)
})

test('SIGTERM during the start ends it, hanging parts included', async (t) => {
  const data = await newDirectory()
  t.after(() => remove(data))
  await mkdir(join(data, 'az1-agent'), { recursive: true })
  await writeFile(join(data, 'az1-agent', 'hang'), '')
  const up = new Up(data, '--listen', '127.0.0.1:0', '--json')
  for await (const _ of systemTicks(50)) {
    if (up.lines.filter((line) => line.includes('part_ready')).length === PARTS.length - 1) break
  }
  const pid = await pidOf(data, 'az1-agent')
  assert.equal(await up.stop(), 0)
  assert.ok(await isGone(pid))
  assert.ok(!up.lines.some((line) => line.includes('"ready"') && line.includes('"url"')))
})

async function* systemTicks(everyMs: number): AsyncGenerator<void> {
  for (let tick = 0; tick < 20_000 / everyMs; tick++) {
    await sleep(systemClock, everyMs)
    yield
  }
}

test('addresses and paths that cannot work are refused before anything is made', async (t) => {
  const data = await newDirectory()
  t.after(() => remove(data))
  const open = await run('up', '--data', data, '--listen', '0.0.0.0:0')
  assert.equal(open.code, 2)
  assert.match(open.err, /without encryption, accepted: .*--tls.*--allow-plaintext/)
  const nameless = await run('up', '--data', data, '--listen', '0.0.0.0:0', '--tls')
  assert.equal(nameless.code, 2)
  assert.match(nameless.err, /advertise: required/)
  const wrong = await run('up', '--data', data, '--listen', 'nonsense')
  assert.equal(wrong.code, 2)
  assert.match(wrong.err, /--listen "nonsense" is not accepted, accepted: HOST:PORT/)
  const long = await run('up', '--data', join(data, 'x'.repeat(100)))
  assert.equal(long.code, 2)
  assert.match(long.err, /has \d+ bytes.*at most 107 bytes.*shorter path/s)
  assert.ok(!existsSync(join(data, 'credentials.json')))
  const unknown = await run('up', '--dat', data)
  assert.equal(unknown.code, 2)
  assert.match(unknown.err, /unknown option '--dat'.*--data/s)
})

test('a part refuses a wrong option by name, wherever it stands', async (t) => {
  const data = await newDirectory()
  t.after(() => remove(data))
  await mkdir(data, { recursive: true })
  const file = join(data, 'agent.json')
  await writeFile(file, JSON.stringify({ site: 'az1', leaseMs: 'soon', pki: { ca: 'ca.pem' } }))
  const { code, err } = await run('agent', '--config', file, '--renew-ms', '1')
  assert.equal(code, 2)
  assert.match(
    err,
    /leaseMs \(file .*agent\.json\): "soon" is not accepted, accepted: a whole number/,
  )
  assert.match(err, /renewMs \(flag --renew-ms\): "1" is not accepted/)
  assert.match(err, /region: required and not given/)
  const missing = await run('agent', '--config', join(data, 'none.json'))
  assert.equal(missing.code, 2)
  assert.match(missing.err, /none\.json cannot be read/)
})
