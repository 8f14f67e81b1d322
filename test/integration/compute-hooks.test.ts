/** The hooks driver: what it makes of an operator's program, and the documented sample program with real guests. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { driverContract } from '#agent/compute/driver.contract.ts'
import type { ComputeDriver } from '#agent/compute/driver.ts'
import { GUEST_FAILED } from '#agent/compute/faults.ts'
import { hooksDriver } from '#agent/compute/hooks/hooks-driver.ts'
import type { Clock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import { processesWithArgumentPrefix, readProcess, signalProcess } from '#base/system/process.ts'
import { labLog, openGuestLab, QEMU } from '../support/guest-lab.ts'
import { until } from '../support/until.ts'

const SAMPLE = join(import.meta.dirname, '../../docs/operating/compute-hooks/qemu-hook.py')
const never = new AbortController().signal

const LIMIT_MS = 60_000

const driverOf = (directory: string, program: string, clock = systemClock): ComputeDriver =>
  hooksDriver({
    prefix: 'lab',
    runDir: join(directory, 'run'),
    folder: (server) => join(directory, 'servers', server),
    directory: join(directory, 'compute'),
    nbdSocket: join(directory, 'nbd.sock'),
    clock,
    log: labLog,
    program,
    limitMs: LIMIT_MS,
  })

const missing = [QEMU, 'python3'].find((one) => spawnSync(one, ['--version']).error !== undefined)

if (missing !== undefined) {
  test('the sample program runs guests', (t) => t.skip(`${missing} is not installed`))
} else {
  driverContract('hooks', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-hooks-'))
    const lab = await openGuestLab(directory)
    let driver = driverOf(directory, SAMPLE)
    return {
      driver,
      disk: async (volume, obeys) =>
        await lab.disk(volume, obeys ? { obeys: true, releases: true } : {}),
      folder: (server) => lab.folder(server),
      restart: async () => {
        await driver.close()
        driver = driverOf(directory, SAMPLE)
        return driver
      },
      traces: async (server) => {
        const found = await processesWithArgumentPrefix(lab.pidFile(server))
        const files = [lab.pidFile(server), join(lab.folder(server), 'qmp.sock')]
        return [
          ...found.map(({ facts }) => `process ${facts.pid}`),
          ...files.filter((path) => existsSync(path)),
        ]
      },
      crash: undefined,
      until: async (what, look) => await until(what, look),
      clean: async () => {
        await driver.endStrays(new Set())
        await driver.close()
        await lab.close()
        await rm(directory, { recursive: true, force: true })
      },
    }
  })

  test('a guest of the sample program whose QEMU is killed has died, and can be started again', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-hooks-'))
    const lab = await openGuestLab(directory)
    const driver = driverOf(directory, SAMPLE)
    try {
      await mkdir(lab.folder('s1'), { recursive: true })
      const disks = [await lab.disk('d1')]
      const definition = { ...PLAIN, server: 's1', disks }
      await driver.start(definition)
      signalProcess(Number(await readFile(lab.pidFile('s1'), 'utf8')), 'SIGKILL')
      const state = await until('it is off', async () => {
        const seen = await driver.state('s1')
        return seen.power === 'off' && seen.end === 'died' ? seen : undefined
      })
      assert.match(state.reason ?? '', /QEMU ended with 137/)
      await driver.start(definition)
      assert.equal((await driver.state('s1')).power, 'running')
    } finally {
      await driver.endStrays(new Set())
      await driver.close()
      await lab.close()
      await rm(directory, { recursive: true, force: true })
    }
  })
}

const PLAIN = { generation: 1, name: 'name', vcpus: 1, memory_mb: 96, disks: [], nics: [] }

/** A stand-in for a hypervisor: a guest runs when there is a file of its name, and all calls are noted. */
async function withProgram(
  script: string,
  work: (driver: ComputeDriver, at: (name: string) => string) => Promise<void>,
  clock?: Clock,
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-hooks-'))
  const at = (name: string) => join(directory, 'compute', name)
  await mkdir(at('.'), { recursive: true })
  await writeFile(at('hook'), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  const driver = driverOf(directory, at('hook'), clock)
  try {
    await work(driver, at)
  } finally {
    await driver.close()
    await rm(directory, { recursive: true, force: true })
  }
}

const STAND_IN = `
cat > question.$1
[ $1 = state ] || echo $1 $2 >> calls
case $1 in
  start) echo on > $2.power ;;
  stop) rm -f $2.power ;;
  power_down) ;;
  list) echo '{"servers": ["known", "forgotten"]}' ;;
  state)
    if [ -f $2.power ]; then echo '{"power": "running", "disks": ["d1"], "nics": [], "unheard": 1}'
    else echo '{"power": "off", "disks": ["d1"]}'; fi ;;
  *) exit 3 ;;
esac`

test('a short program is enough: what is so already is not asked for, what is left out is done without', async () => {
  await withProgram(STAND_IN, async (driver, at) => {
    const definition = { ...PLAIN, server: 's1' }
    const calls = async () => (await readFile(at('calls'), 'utf8')).trim().split('\n')
    await driver.define(definition)
    await driver.start(definition)
    await driver.start(definition)
    const disk = { volume: 'd1', device: '/dev/vda', boot_index: 0 }
    await driver.attach('s1', { kind: 'disk', disk })
    await assert.rejects(
      driver.attach('s1', { kind: 'disk', disk: { ...disk, volume: 'd2' } }),
      (error) => isFault(error, GUEST_FAILED) && /does not do that/.test(error.message),
    )
    assert.equal(await driver.console('s1'), '')
    await driver.powerDown('s1', 100, never)
    await driver.stop('s1')
    await driver.remove('s1')
    assert.deepEqual((await driver.state('s1')).disks, [], 'a guest that is off has nothing')
    assert.deepEqual(await calls(), [
      'define s1',
      'start s1',
      'attach s1',
      'console s1',
      'power_down s1',
      'stop s1',
      'remove s1',
    ])
    const question = JSON.parse(await readFile(at('question.start'), 'utf8')) as unknown
    const directory = join(at('.'), '..')
    assert.deepEqual(question, {
      contract: 1,
      verb: 'start',
      agent: 'lab',
      run_dir: join(directory, 'run'),
      directory: join(directory, 'compute'),
      nbd_socket: join(directory, 'nbd.sock'),
      server: 's1',
      folder: join(directory, 'servers/s1'),
      pid_file: join(directory, 'run/lab-guest-s1.pid'),
      definition,
    })
  })
})

test('guests that the program lists and no definition names are removed', async () => {
  await withProgram(STAND_IN, async (driver, at) => {
    await writeFile(at('known.power'), '')
    await writeFile(at('forgotten.power'), '')
    await driver.endStrays(new Set(['known']))
    assert.deepEqual(
      [existsSync(at('known.power')), existsSync(at('forgotten.power'))],
      [true, false],
    )
  })
})

test('a program that fails, talks nonsense or cannot be run is quoted', async () => {
  const failing =
    'case $1 in start) echo "no such" >&2; echo "machine" >&2; exit 1 ;; esac; echo nonsense'
  await withProgram(failing, async (driver) => {
    const state = await driver.state('s1')
    assert.equal(state.power, 'unknown')
    assert.match(state.reason ?? '', /not of the form/)
    // What is not known is neither done nor taken for done.
    const server = 's1'
    await assert.rejects(driver.start({ ...PLAIN, server }), /hook start .* not of the form/)
    const disk = { kind: 'disk' as const, volume: 'd1' }
    await assert.rejects(driver.detach(server, disk, never), /hook detach .* not of the form/)
    await assert.rejects(driver.stop(server), /it is unknown afterwards/)
  })
  const refusing = STAND_IN.replace(
    'echo on > $2.power',
    'echo "no such" >&2; echo "machine" >&2; exit 1',
  )
  await withProgram(refusing, async (driver) => {
    await assert.rejects(
      driver.start({ ...PLAIN, server: 's1' }),
      /hook start of server s1: no such · machine/,
    )
  })
  await withProgram('exit 0', async (driver, at) => {
    await rm(at('hook'))
    assert.match((await driver.state('s1')).reason ?? '', /could not be run/)
  })
})

test('a call that takes too long is ended with its children; a guest in a session of its own stays', async () => {
  const slow = STAND_IN.replace(
    'echo on > $2.power',
    'setsid sleep 600 & echo $! > guest; sleep 600 & echo $! > helper; trap "" TERM; wait; sleep 600',
  )
  // The time of the call is over when the test says so.
  const limits: (() => void)[] = []
  const clock: Clock = {
    ...systemClock,
    after(delayMs, fire) {
      if (delayMs !== LIMIT_MS) return systemClock.after(delayMs, fire)
      limits.push(fire)
      return () => undefined
    },
  }
  await withProgram(
    slow,
    async (driver, at) => {
      const pid = async (name: string) => Number(await readFile(at(name), 'utf8'))
      const runs = async (name: string) => {
        const facts = await readProcess(await pid(name))
        return facts !== undefined && facts.state !== 'Z'
      }
      const start = driver.start({ ...PLAIN, server: 's1' }).catch((error: unknown) => error)
      await until('both run', async () => existsSync(at('helper')) && (await pid('helper')) > 0)
      // setsid gives way to it once the session is made.
      await until(
        'the guest has its session',
        async () => (await readProcess(await pid('guest')))?.commandLine[0] === 'sleep',
      )
      limits[0]?.()
      assert.match(String(await start), /took longer than 60000 ms/)
      assert.equal(await runs('guest'), true)
      await until('the helper is gone', async () => !(await runs('helper')))
      signalProcess(await pid('guest'), 'SIGKILL')
    },
    clock,
  )
})

test('calls that outlived a killed agent are ended before a new one begins', async () => {
  const hanging = STAND_IN.replace('echo on > $2.power', 'echo $$ > caller; sleep 600')
  await withProgram(hanging, async (driver, at) => {
    const start = driver.start({ ...PLAIN, server: 's1' }).catch((error: unknown) => error)
    await until('the call runs', async () => existsSync(at('caller')))
    const next = driverOf(join(at('.'), '..'), at('hook'))
    await next.endStrays(new Set())
    const caller = await readProcess(Number(await readFile(at('caller'), 'utf8')))
    assert.ok(caller === undefined || caller.state === 'Z')
    assert.ok(isFault(await start, GUEST_FAILED))
    await next.close()
  })
})
