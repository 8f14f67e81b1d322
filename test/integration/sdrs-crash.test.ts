import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { RunningAgent } from '#agent/agent.ts'
import { sleep } from '#base/clock.ts'
import { systemClock } from '#base/system/clock.ts'
import { pickPorts } from '#base/system/ports.ts'
import { connectNbd } from '#client/nbd/client.ts'
import { operationKinds } from '#control/operations/definitions/list.ts'
import { defaultVpcId } from '#control/resources/surroundings.ts'
import { makeCertificates, PROJECT, startRegionAgent } from '../support/region-parts.ts'

/**
 * The control plane dies by SIGKILL at every boundary of every step of every operation, once each, in the middle of one long story over
 * two real agents. It is started again each time, and every operation still ends where it should, with the data in place.
 */
/** Kinds that are asked for over our own API, which the control plane of this story does not serve. */
const NOT_HERE = new Set([
  'pair.rebuild',
  'group.verify',
  'snapshot.create',
  'snapshot.delete',
  'snapshot.rollback',
])
const CONTROL = join(import.meta.dirname, 'crash', 'control.ts')

let directory: string
let visited: string
let ports: { readonly internal: number; readonly api: number }
let child: ChildProcess | undefined
let spare: ChildProcess | undefined
let ended = false
let complaint = ''
let lives = 0
let keeper: Promise<void>
const agents: RunningAgent[] = []

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hf-'))
  visited = join(directory, 'visited')
  await writeFile(visited, '')
  await makeCertificates(directory)
  const [internal = 0, api = 0] = await pickPorts('127.0.0.1', 2)
  ports = { internal, api }
  keeper = keepAlive()
  for (const site of ['az1', 'az2']) agents.push(await startRegionAgent(directory, site, internal))
})

after(async () => {
  ended = true
  child?.kill('SIGKILL')
  spare?.kill('SIGKILL')
  await keeper
  for (const agent of agents) await agent.close()
  await rm(directory, { recursive: true, force: true })
})

/** Loads a control plane that waits to be told to begin. */
function load(): ChildProcess {
  const options = {
    directory,
    internalPort: ports.internal,
    apiPort: ports.api,
    visited,
  }
  return spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', CONTROL, JSON.stringify(options)],
    {
      stdio: ['pipe', 'ignore', 'inherit'],
      env: { ...process.env, NODE_COMPILE_CACHE: join(directory, 'compiled') },
    },
  )
}

/** Starts the control plane again whenever it is dead. */
async function keepAlive(): Promise<void> {
  while (!ended) {
    lives++
    child = spare ?? load()
    const exit = once(child, 'exit')
    child.stdin?.write('!')
    spare = load()
    const [code, signal] = (await exit) as [number | null, string | null]
    if (!ended && signal !== 'SIGKILL') {
      complaint = `the control plane ended by itself: ${code} ${signal}`
      ended = true
    }
  }
}

interface Answer {
  readonly status: number
  // oxlint-disable-next-line typescript/no-explicit-any -- bodies are held against the contract, not typed
  readonly body: any
}

/** One request; null when the control plane was dead or died over it. */
async function ask(method: string, path: string, body?: unknown): Promise<Answer | null> {
  try {
    const reply = await fetch(
      `http://127.0.0.1:${ports.api}${path.replace('{project}', PROJECT)}`,
      {
        method,
        headers: { 'x-auth-token': 'admin', connection: 'close' },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      },
    )
    const text = await reply.text()
    return { status: reply.status, body: text === '' ? undefined : JSON.parse(text) }
  } catch {
    return null
  }
}

async function until<T>(
  what: string,
  check: () => Promise<T | null>,
  // A failover passes fourteen lives, each a new process on a busy machine.
  limitMs = 300_000,
): Promise<T> {
  const endMs = systemClock.bootMs() + limitMs
  for (;;) {
    const found = await check()
    if (found !== null) return found
    assert.ok(!ended, complaint)
    assert.ok(systemClock.bootMs() < endMs, `${what}: not within ${limitMs} ms`)
    await sleep(systemClock, 20)
  }
}

async function get(path: string, member: string): Promise<Answer['body']> {
  const answer = await ask('GET', path)
  return answer?.status === 200 ? answer.body[member] : null
}

/** Sends a change until it is known to have been accepted: an answer lost with the process does not tell. */
async function change(
  method: string,
  path: string,
  body: unknown,
  accepted: () => Promise<boolean | null>,
): Promise<void> {
  await until(`${method} ${path}`, async () => {
    const answer = await ask(method, path, body)
    if (answer !== null && answer.status < 300) return true
    if (answer !== null && answer.status >= 500) return null
    // A control plane that has just started says so as long as it has heard nobody.
    if (answer?.body?.error?.code === 'SDRS.1823') return null
    const known = await accepted()
    if (known === true) return true
    assert.ok(answer === null || known === null, `${method} ${path}: ${JSON.stringify(answer)}`)
    return null
  })
}

const VOLUMES = '/v2/{project}/volumes'
const GROUPS = '/v1/{project}/server-groups'
const PAIRS = '/v1/{project}/replications'

/** The row of this name, in the list at `path`; null: not there, or nobody answers. */
async function named(path: string, member: string, name: string): Promise<Answer['body']> {
  const rows = await get(path, member)
  return rows?.find((row: { name: string }) => row.name === name) ?? null
}

async function create(
  path: string,
  list: string,
  member: string,
  name: string,
  body: object,
  status: string,
): Promise<string> {
  const find = async () => await named(list, member, name)
  await change('POST', path, body, async () => ((await find()) === null ? null : true))
  const row = await until(`${name} is ${status}`, async () => {
    const found = await find()
    assert.ok(!String(found?.status).startsWith('error'), JSON.stringify(found))
    return found?.status === status ? found : null
  })
  return row.id as string
}

const volume = async (name: string) =>
  await create(
    VOLUMES,
    `${VOLUMES}/detail`,
    'volumes',
    name,
    { volume: { name, size: 1, availability_zone: 'az1' } },
    'available',
  )

const pair = async (group: string, disk: string, name: string, status: string) =>
  await create(
    PAIRS,
    PAIRS,
    'replications',
    name,
    { replication: { server_group_id: group, volume_id: disk, name } },
    status,
  )

async function settled(group: string, status: string, station: string): Promise<void> {
  await until(`the group is ${status}`, async () => {
    const shown = await get(`${GROUPS}/${group}`, 'server_group')
    assert.ok(!String(shown?.status).startsWith('error'), JSON.stringify(shown))
    return shown?.status === status && shown.priority_station === station ? true : null
  })
}

async function act(
  group: string,
  body: object,
  via: string,
  status: string,
  station: string,
): Promise<void> {
  await change('POST', `${GROUPS}/${group}/action`, body, async () => {
    const shown = await get(`${GROUPS}/${group}`, 'server_group')
    if (shown === null) return null
    return shown.status === via || (shown.status === status && shown.priority_station === station)
  })
  await settled(group, status, station)
}

async function inSync(id: string): Promise<void> {
  await until(`${id} is in sync`, async () => {
    const shown = await get(`${PAIRS}/${id}`, 'replication')
    return shown?.replication_status === 'active' ? true : null
  })
}

async function remove(path: string, body?: unknown): Promise<void> {
  const gone = async () => {
    const answer = await ask('GET', path)
    return answer === null ? null : answer.status === 404
  }
  await change('DELETE', path, body, async () => {
    const answer = await ask('GET', path)
    if (answer === null) return null
    if (answer.status === 404) return true
    return JSON.stringify(answer.body).includes('"status":"deleting"')
  })
  await until(`${path} is gone`, async () => ((await gone()) === true ? true : null))
}

async function mark(site: string, name: string, text: string): Promise<void> {
  const client = await connectNbd({ unix: join(directory, site, 'nbd.sock') }, { exportName: name })
  await client.write(8192, Buffer.from(text.padEnd(512)), { fua: true })
  await client.disconnect()
}

async function marked(site: string, name: string): Promise<string> {
  const client = await connectNbd({ unix: join(directory, site, 'nbd.sock') }, { exportName: name })
  const data = await client.read(8192, 512)
  await client.disconnect()
  return data.toString().trimEnd()
}

test('every operation ends in its declared state, wherever the control plane is killed', async () => {
  const disk = await volume('first')
  await change('POST', `${VOLUMES}/${disk}/action`, { 'os-extend': { new_size: 2 } }, async () => {
    const shown = await get(`${VOLUMES}/${disk}`, 'volume')
    return shown === null ? null : shown.size === 2 || shown.status === 'extending'
  })
  await until('the volume has grown', async () => {
    const shown = await get(`${VOLUMES}/${disk}`, 'volume')
    return shown?.size === 2 && shown.status === 'available' ? true : null
  })
  await mark('az1', disk, 'story')

  const [domain] = await until('the domain', async () =>
    get('/v1/{project}/active-domains', 'domains'),
  )
  const group = await create(
    GROUPS,
    GROUPS,
    'server_groups',
    'group',
    {
      server_group: {
        name: 'group',
        source_availability_zone: 'az1',
        target_availability_zone: 'az2',
        domain_id: domain.id,
        source_vpc_id: defaultVpcId(PROJECT),
        // So that a failover freezes first: the preferred site could go on by itself.
        arbitration: { mode: 'static-priority', preferred_site: 'az1' },
      },
    },
    'available',
  )
  const first = await pair(group, disk, 'first', 'available')
  await act(group, { 'start-server-group': {} }, 'starting', 'protected', 'source')
  await inSync(first)
  const second = await pair(group, await volume('second'), 'second', 'protected')
  await inSync(second)
  await change(
    'POST',
    `${PAIRS}/${first}/action`,
    { 'extend-replication': { new_size: 3 } },
    async () => {
      const shown = await get(`${PAIRS}/${first}`, 'replication')
      if (shown === null) return null
      return shown.status === 'extending' || shown.record_metadata.volume_size === 3
    },
  )
  await until('the pair has grown', async () => {
    const shown = await get(`${PAIRS}/${first}`, 'replication')
    return shown?.status === 'protected' && shown.record_metadata.volume_size === 3 ? true : null
  })
  await inSync(first)
  await inSync(second)
  await mark('az1', first, 'in step')
  await act(group, { 'failover-server-group': {} }, 'failing-over', 'failed-over', 'target')
  assert.equal(await marked('az2', first), 'in step')
  await mark('az2', first, 'failed over')
  await act(group, { 'start-server-group': {} }, 'reprotecting', 'protected', 'target')
  await inSync(first)
  await inSync(second)
  const reverse = { 'reverse-server-group': { priority_station: 'source' } }
  await act(group, reverse, 'reversing', 'protected', 'source')
  assert.equal(await marked('az1', first), 'failed over')
  await mark('az1', first, 'reversed')
  await inSync(first)
  await inSync(second)
  await remove(`${PAIRS}/${second}`, { replication: { delete_target_volume: true } })
  await act(group, { 'stop-server-group': {} }, 'stopping', 'available', 'source')
  assert.equal(await marked('az1', disk), 'reversed')
  await remove(`${PAIRS}/${first}`, {})
  await remove(`${GROUPS}/${group}`)
  await remove(`${VOLUMES}/${disk}`)

  const points = operationKinds
    .filter(({ name }) => !NOT_HERE.has(name))
    .flatMap(({ name, steps }) =>
      steps.flatMap((step) => [
        `${name} ${step.name} after-act`,
        `${name} ${step.name} after-record`,
      ]),
    )
  const passed = new Set((await readFile(visited, 'utf8')).split('\n'))
  assert.deepEqual(
    points.filter((point) => !passed.has(point)),
    [],
    'every boundary was crashed at',
  )
  assert.ok(lives > points.length, `${lives} lives`)
})
