/** One server from its image to its deletion, with a real guest: control plane, agent and QEMU, and nothing of it left behind. */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { systemClock } from '#base/system/clock.ts'
import type { Outcome, RequestServices } from '#control/operations/definitions/requests.ts'
import {
  requestAttachment,
  requestDetachment,
  requestPower,
  requestServerDeletion,
  requestServers,
  type ServerRequestRefusal,
} from '#control/operations/definitions/servers/server-requests.ts'
import { readServer } from '#control/resources/servers.ts'
import { NO_QEMU } from '../support/guest-lab.ts'
import { testImages } from '../support/images.ts'
import { newServer } from '../support/new-server.ts'
import { PROJECT, Region } from '../support/region.ts'

/** Without hardware support, on a machine that does other things as well. */
const BOOT_MS = 120_000

const images = await testImages()
const skip = 'skip' in images ? images.skip : NO_QEMU

let region: Region
let started = false
let services: RequestServices

before(async () => {
  if ('skip' in images || skip !== false) return
  region = await Region.start({
    agent: { imageDir: images.directory, computeDriver: 'qemu', qemuAccelerator: 'tcg' },
  })
  started = true
  services = region.requests
})
after(async () => {
  if (!started) return
  // Guests outlive their agent: those of a test that failed are ended here.
  const run = join(region.directory, 'az1', 'run')
  const pids = existsSync(run)
    ? readdirSync(run).map((name) => Number.parseInt(readFileSync(join(run, name), 'utf8'), 10))
    : []
  await region.stop()
  for (const pid of pids) if (existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGKILL')
})

function taken<T>(outcome: Outcome<T, ServerRequestRefusal>): T {
  assert.ok(outcome.ok, JSON.stringify(outcome))
  return outcome
}

async function ended(operation: string | null): Promise<void> {
  assert.ok(operation !== null)
  const view = await region.plane.operations.waitFor(operation)
  assert.equal(view.status, 'succeeded', view.failReason ?? '')
}

async function says(server: string, pattern: RegExp): Promise<void> {
  await region.until(
    `the console says ${pattern}`,
    async () => {
      const request = { server, lines: 0 }
      const { output } = await region.plane.sites.command('az1', 'server.console', request)
      return pattern.test(output)
    },
    BOOT_MS,
  )
}

test('a server boots from its image, gets and loses a disk, outlives its agent, stops, starts, and leaves nothing', {
  skip,
}, async (t) => {
  const begunMs = systemClock.bootMs()
  const { servers, operation } = taken(
    await requestServers(services, newServer({ name: 'real' }), 1),
  )
  await ended(operation)
  t.diagnostic(`active after ${systemClock.bootMs() - begunMs} ms`)
  const id = servers[0]?.id ?? ''
  const row = async () => (await readServer(services.store.db, id)) ?? assert.fail('it is there')
  assert.deepEqual([(await row()).status, (await row()).power], ['active', 'running'])
  await says(id, /^READY real 1\r?$/m)
  t.diagnostic(`ready after ${systemClock.bootMs() - begunMs} ms`)

  const volume = await region.volume('data')
  const pluggedMs = systemClock.bootMs()
  const attached = await requestAttachment(services, PROJECT, id, {
    volume,
    device: null,
    deleteWithServer: false,
  })
  await ended(taken(attached).operation)
  t.diagnostic(`attached after ${systemClock.bootMs() - pluggedMs} ms`)
  await says(id, new RegExp(`^DISK vd[a-z] ${1024 ** 3} ${volume.slice(0, 20)}`, 'm'))
  t.diagnostic(`seen by the guest after ${systemClock.bootMs() - pluggedMs} ms`)
  await ended(taken(await requestDetachment(services, PROJECT, id, { volume })).operation)
  await says(id, /^GONE vd[a-z]/m)
  await region.ok('DELETE', `/v2/{project}/volumes/${volume}`, undefined, 202)

  const pidFile = join(region.directory, 'az1', 'run', `az1-guest-${id}.pid`)
  const pid = () => Number.parseInt(readFileSync(pidFile, 'utf8'), 10)
  const before = pid()
  await region.stopSite('az1')
  assert.equal((await row()).status, 'active')
  await region.startSite('az1')
  await region.until('the site is heard', async () => region.plane.agents.heard('az1'))
  const switchOff = await requestPower(services, PROJECT, id, { kind: 'stop', hard: false })
  assert.equal(pid(), before, 'the guest went on without its agent')
  const stopMs = systemClock.bootMs()
  await ended(taken(switchOff).operation)
  t.diagnostic(`stopped after ${systemClock.bootMs() - stopMs} ms`)
  await says(id, /^STOPPING/m)
  assert.deepEqual([(await row()).status, (await row()).power], ['stopped', 'off'])
  assert.equal(existsSync(`/proc/${before}`), false)

  const on = await requestPower(services, PROJECT, id, { kind: 'start', hard: false })
  await ended(taken(on).operation)
  await says(id, /^READY real 2\r?$/m)

  const last = pid()
  const gone = await requestServerDeletion(services, PROJECT, [id], { deleteVolumes: true })
  await ended(taken(gone).operation)
  assert.equal(await readServer(services.store.db, id), undefined)
  assert.equal(existsSync(`/proc/${last}`), false)
  const left = readdirSync(join(region.directory, 'az1'), { recursive: true, encoding: 'utf8' })
  assert.deepEqual(
    left.filter((path) => path.includes(id) || path.startsWith('run/')),
    [],
  )
  assert.deepEqual((await region.ok('GET', '/v2/{project}/volumes/detail')).volumes, [])
  const ports = await services.store.db.selectFrom('ports').select('id').execute()
  assert.deepEqual(ports, [])
})
