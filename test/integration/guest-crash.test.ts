/** An agent killed at any point leaves a guest that its successor takes over, or nothing at all. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Qmp } from '#agent/compute/qemu/qmp.ts'
import { systemClock } from '#base/system/clock.ts'
import { knock } from '#base/system/door.ts'
import { processesWithArgumentPrefix } from '#base/system/process.ts'
import type { ServerInfo } from '#wire/site/servers.ts'
import { definitionOf, NO_QEMU, openGuestLab } from '../support/guest-lab.ts'
import { until } from '../support/until.ts'

const CHILD = fileURLToPath(new URL('../support/guest-agent-child.ts', import.meta.url))
const SERVER = '5eae5e00-0000-4000-8000-000000000001'

let directory: string
let agent: ChildProcess | undefined

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-guests-'))
  const lab = await openGuestLab(directory)
  await lab.disk('disk-1', { obeys: true, releases: true })
  await lab.disk('disk-2')
  await lab.close()
})
afterEach(async () => {
  await kill()
  const lab = await openGuestLab(directory)
  await lab.driver.endStrays(new Set())
  await lab.close()
  await rm(directory, { recursive: true, force: true })
})

async function startAgent(): Promise<void> {
  agent = spawn(process.execPath, [CHILD, directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  assert.ok(agent.stdout)
  await once(agent.stdout, 'data')
}
async function kill(): Promise<void> {
  if (agent === undefined) return
  const gone = agent.exitCode === null && agent.signalCode === null ? once(agent, 'exit') : null
  agent.kill('SIGKILL')
  await gone
  agent = undefined
}

/** The answer, or undefined when the agent died instead of answering. */
async function ask(command: string, request: object): Promise<ServerInfo | undefined> {
  const dying = agent
  try {
    const answer = (await knock(join(directory, 'door'), { command, request })) as ServerInfo
    assert.ok(!('error' in answer), JSON.stringify(answer))
    return answer
  } catch (error) {
    if (dying?.signalCode === null) await once(dying, 'exit')
    if (dying?.signalCode === 'SIGKILL') return undefined
    throw error
  }
}

/** The next command ends the agent at its n-th step; then there is another one. */
async function crashing(boundaries: number, command: () => Promise<unknown>): Promise<void> {
  await ask('crash_at', { boundaries })
  assert.equal(await command(), undefined, 'it crashed')
  await startAgent()
}

const pids = async (): Promise<number[]> =>
  (await processesWithArgumentPrefix(join(directory, 'run'), '-pidfile')).map(
    ({ facts }) => facts.pid,
  )
const power = async () => (await ask('show', { server: SERVER }))?.power
const define = async (generation = 1, disks: readonly string[] = ['disk-1']) =>
  await ask('define', {
    definition: definitionOf(
      SERVER,
      disks.map((volume, index) => ({
        volume,
        device: `/dev/vd${'ab'[index]}`,
        boot_index: index === 0 ? 0 : null,
      })),
      { generation },
    ),
  })
const up = async () =>
  await until('the guest is up', async () => {
    const answer = (await ask('console', { server: SERVER, lines: 0 })) as unknown
    return (answer as { output: string }).output.includes('TINY UP')
  })

test('a guest outlives kill -9 of its agent and is adopted by the next one, with its pid file', {
  skip: NO_QEMU,
}, async () => {
  await startAgent()
  await define()
  assert.equal((await ask('start', { server: SERVER }))?.power, 'running')
  await up()
  const before = await pids()
  assert.equal(before.length, 1)
  await kill()
  assert.deepEqual(await pids(), before)
  await startAgent()
  assert.equal(await power(), 'running')
  assert.deepEqual(await pids(), before)
  const pidFile = join(directory, 'run', `lab-guest-${SERVER}.pid`)
  assert.equal(Number(await readFile(pidFile, 'utf8')), before[0])
  const stopped = await ask('stop', { server: SERVER, hard: false, grace_ms: 60_000 })
  assert.equal(stopped?.power, 'off')
  assert.deepEqual(await pids(), [])
})

test('a process that only looks at the pid file of a guest is not taken for one', {
  skip: NO_QEMU,
}, async () => {
  await startAgent()
  await define()
  await kill()
  const onlooker = spawn('tail', ['-F', join(directory, 'run', `lab-guest-${SERVER}.pid`)], {
    stdio: 'ignore',
  })
  try {
    await once(onlooker, 'spawn')
    await startAgent()
    assert.equal(await power(), 'off')
    await ask('remove', { server: SERVER })
    assert.equal(onlooker.exitCode ?? onlooker.signalCode, null)
  } finally {
    onlooker.kill('SIGKILL')
  }
})

test('an agent killed while it starts a guest is followed by one that has it, once', {
  skip: NO_QEMU,
}, async () => {
  await startAgent()
  await define()
  const asked = ask('start', { server: SERVER })
  await until('the process is there', async () => (await pids()).length > 0)
  await kill()
  await asked
  await startAgent()
  await until('it runs', async () => (await power()) === 'running')
  assert.equal((await pids()).length, 1)
})

test('a guest that should run and was killed with its agent is started by the next one', {
  skip: NO_QEMU,
}, async () => {
  await startAgent()
  await define()
  await ask('start', { server: SERVER })
  const [pid = 0] = await pids()
  await kill()
  process.kill(pid, 'SIGKILL')
  await startAgent()
  await until('it runs again', async () => (await power()) === 'running')
  assert.notDeepEqual(await pids(), [pid])
})

test('a guest that powered itself off while no agent was there is off, and stays off', {
  skip: NO_QEMU,
}, async () => {
  await startAgent()
  await define()
  await ask('start', { server: SERVER })
  await up()
  await kill()
  const lab = await openGuestLab(directory)
  // As the guest itself would: the agent that was killed has not heard of it.
  const path = join(lab.folder(SERVER), 'qmp.sock')
  const qmp = await Qmp.connect({ path, clock: systemClock, timeoutMs: 5_000 })
  const off = new Promise<void>((resolve) =>
    qmp.onEvent(({ event }) => {
      if (event === 'SHUTDOWN') resolve()
    }),
  )
  await qmp.run('system_powerdown')
  await off
  qmp.close()
  await lab.close()
  await startAgent()
  const info = await until('it is off', async () => {
    const shown = await ask('show', { server: SERVER })
    return shown?.power === 'off' && shown.reason !== null ? shown : undefined
  })
  assert.equal(info.reason, 'it powered itself off')
  await kill()
  await startAgent()
  assert.equal(await power(), 'off')
})

test('a reboot is carried out once for one request, wherever the agent was killed', {
  skip: NO_QEMU,
}, async () => {
  await startAgent()
  await define()
  await ask('start', { server: SERVER })
  for (const crashAt of [2, 3, 4]) {
    const before = await pids()
    const request = { server: SERVER, reboot: `request-${crashAt}`, hard: true, grace_ms: 0 }
    await crashing(crashAt, () => ask('reboot', request))
    const answer = await ask('reboot', request)
    assert.equal(answer?.power, 'running', `killed at boundary ${crashAt}`)
    const rebooted = await pids()
    assert.equal(rebooted.length, 1)
    assert.notDeepEqual(rebooted, before, 'it was rebooted')
    await ask('reboot', request)
    assert.deepEqual(await pids(), rebooted, 'not a second time')
  }
})

test('a removal is complete after any crash, and repeats', { skip: NO_QEMU }, async () => {
  await startAgent()
  for (const crashAt of [1, 2]) {
    await define()
    await ask('start', { server: SERVER })
    await crashing(crashAt, () => ask('remove', { server: SERVER }))
    await ask('remove', { server: SERVER })
    assert.deepEqual(await pids(), [])
    assert.deepEqual(await readdir(join(directory, 'servers')), [])
    assert.deepEqual(await readdir(join(directory, 'run')), [])
  }
  await ask('remove', { server: SERVER })
  assert.equal(existsSync(join(directory, 'servers', SERVER)), false)
})

test('an agent killed while it plugs or unplugs a disk is followed by one that ends what it began', {
  skip: NO_QEMU,
}, async () => {
  await startAgent()
  await define()
  await ask('start', { server: SERVER })
  await up()
  let generation = 1
  // define, then attach or detach: boundaries before and after each.
  for (const [crashAt, disks] of [
    [3, ['disk-1', 'disk-2']],
    [3, ['disk-1']],
    [4, ['disk-1', 'disk-2']],
  ] as const) {
    generation++
    await crashing(crashAt, () => define(generation, disks))
    const has = await until(`it has ${disks.join()}, killed at ${crashAt}`, async () => {
      const shown = await ask('show', { server: SERVER })
      const now = shown?.disks.map(({ volume }) => volume).toSorted()
      return now?.join() === disks.join() && shown?.releasing.length === 0 ? shown : undefined
    })
    assert.equal(has.generation, generation)
    assert.equal(has.power, 'running')
  }
})
