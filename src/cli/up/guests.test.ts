import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '#base/system/clock.ts'
import { killGuests } from './guests.ts'
import { pathsUnder } from './layout.ts'

test('the guests of a site end with it, and those of other sites go on', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'holdfast-guests-'))
  t.after(() => rm(root, { recursive: true, force: true }))
  const paths = pathsUnder(root)
  await mkdir(paths.run, { recursive: true })
  // Carries the path of its pid file as an argument, as a guest does.
  const start = async (name: string) => {
    const pidFile = join(paths.run, `${name}.pid`)
    const guest = spawn('/bin/sh', ['-c', 'echo started; read line', pidFile])
    t.after(() => guest.kill('SIGKILL'))
    await once(guest.stdout, 'data')
    await writeFile(pidFile, `${guest.pid}\n`)
    return { guest, pidFile }
  }
  const [one, two] = [await start('az1-guest-1'), await start('az1-guest-2')]
  const others = [await start('az2-guest-1'), await start('r2-az1-guest-1')]

  assert.deepEqual(await killGuests(systemClock, paths, 'az1'), ['az1-guest-1', 'az1-guest-2'])
  for (const { guest, pidFile } of [one, two]) {
    if (guest.signalCode === null) await once(guest, 'exit')
    assert.equal(guest.signalCode, 'SIGKILL')
    assert.ok(!existsSync(pidFile))
  }
  for (const { guest, pidFile } of others) {
    assert.equal(guest.signalCode, null)
    assert.ok(existsSync(pidFile))
  }
  assert.deepEqual(await killGuests(systemClock, paths, 'az1'), [])
})

test('a guest with a pid file only ends, too; a pid that was given again does not', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'holdfast-guests-'))
  t.after(() => rm(root, { recursive: true, force: true }))
  const paths = pathsUnder(root)
  await mkdir(paths.run, { recursive: true })
  const start = async (name: string) => {
    const guest = spawn('/bin/sh', ['-c', 'echo started; read line'])
    t.after(() => guest.kill('SIGKILL'))
    await once(guest.stdout, 'data')
    await writeFile(join(paths.run, `${name}.pid`), `${guest.pid}\n`)
    return guest
  }
  const guest = await start('az1-guest-1')
  const other = await start('az1-guest-2')
  // Written an hour before the process that has the number now was started.
  const anHourAgo = new Date(Date.now() - 3_600_000)
  await utimes(join(paths.run, 'az1-guest-2.pid'), anHourAgo, anHourAgo)
  await writeFile(join(paths.run, 'az1-guest-3.pid'), 'no number')

  assert.deepEqual(await killGuests(systemClock, paths, 'az1'), ['az1-guest-1'])
  if (guest.signalCode === null) await once(guest, 'exit')
  assert.equal(guest.signalCode, 'SIGKILL')
  assert.equal(other.signalCode, null)
})
