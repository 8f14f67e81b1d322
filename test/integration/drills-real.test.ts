/**
 * A drill in a complete system with real guests, from the command line: while production counts on its disk with an fsync each time, its copy boots in
 * a network of its own with the same address, is probed from inside that network, and knows every number that was acknowledged.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { sleep } from '#base/clock.ts'
import { systemClock } from '#base/system/clock.ts'
import { readFacts } from '#cli/demo/server.ts'
import { imageId } from '#control/resources/images.ts'
import type { SealedReport } from '#wire/reports/sealed.ts'
import { Lab } from '../lab.ts'
import { testImages } from '../support/images.ts'

/** Without hardware support, on a machine that does other things as well. */
const BOOT_MS = 240_000

const images = await testImages()
const skip = 'skip' in images ? images.skip : false
let lab: Lab | undefined

before(async () => {
  if ('skip' in images) return
  lab = await Lab.start({
    HOLDFAST_IMAGE_DIR: images.directory,
    HOLDFAST_QEMU_ACCELERATOR: 'tcg',
  })
})
after(async () => await lab?.close())

const the = (): Lab => {
  assert.ok(lab !== undefined)
  return lab
}

async function job(method: string, path: string, body?: unknown): Promise<Record<string, string>> {
  const { job_id } = await the().ok<{ job_id: string }>(200, method, path, body)
  const { entities } = await the().job(job_id)
  return entities as Record<string, string>
}

/** All that a guest ever said: its console lies in a file of its own. */
const saidAt = (site: string, server: string) =>
  readFacts(
    readFileSync(join(the().data, `${site}-agent`, 'servers', server, 'console.log'), 'latin1'),
  )

interface Detail {
  readonly group: { readonly sync: string; readonly record: { readonly epoch: number } }
}
const detail = async (group: string) =>
  (await the().ok<Detail>(200, 'GET', `/api/v1/groups/${group}`)).group

test('a drill shows every acknowledged write while production goes on, touches no replication, and leaves nothing', {
  skip,
}, async (t) => {
  const { server } = await the().ok<{ server: { id: string } }>(
    202,
    'POST',
    '/v2.1/{project}/servers',
    {
      server: {
        name: 'counter',
        imageRef: imageId('holdfast-counter'),
        flavorRef: 't2.nano',
        availability_zone: 'az1',
      },
    },
  )
  const { id } = server
  await the().until(
    'production counts',
    async () => {
      const { server: shown } = await the().ok<{ server: { status: string } }>(
        200,
        'GET',
        `/v2.1/{project}/servers/${id}`,
      )
      return shown.status === 'ACTIVE' ? saidAt('az1', id).numbers : 0
    },
    (numbers) => numbers >= 3,
    BOOT_MS,
  )
  const domains = await the().ok<{ domains: { id: string }[] }>(
    200,
    'GET',
    '/v1/{project}/active-domains',
  )
  const vpcs = await the().ok<{ vpcs: { id: string }[] }>(200, 'GET', '/v1/{project}/vpcs')
  const { server_group_id: group = '' } = await job('POST', '/v1/{project}/server-groups', {
    server_group: {
      name: 'shop',
      source_availability_zone: 'az1',
      target_availability_zone: 'az2',
      domain_id: domains.domains[0]?.id,
      source_vpc_id: vpcs.vpcs[0]?.id,
    },
  })
  await job('POST', '/v1/{project}/protected-instances', {
    protected_instance: { name: 'counter', server_group_id: group, server_id: id },
  })
  await job('POST', `/v1/{project}/server-groups/${group}/action`, { 'start-server-group': {} })
  await the().until(
    'both sites hold the same',
    () => detail(group),
    ({ sync }) => sync === 'in_sync',
    BOOT_MS,
  )

  // Looked at all the while: a drill that costs the group its sync shows here.
  const { record } = await detail(group)
  const seen = new Set<string>()
  let watching = true
  const watch = (async () => {
    while (watching) {
      const { sync, record: now } = await detail(group)
      seen.add(`${sync} ${now.epoch}`)
      await sleep(systemClock, 250)
    }
  })()
  const acknowledged = saidAt('az1', id).acknowledged
  const probes = ['boot:READY counter', 'boot', 'http:80/', 'tcp:80']
  const started = await the().holdfast(
    'drill',
    'start',
    'rehearsal',
    '--group',
    group,
    '--json',
    ...probes.flatMap((probe) => ['--probe', probe]),
  )
  watching = false
  await watch
  assert.deepEqual([...seen], [`in_sync ${record.epoch}`], 'replication went on untouched')
  const report = JSON.parse(started.trim().split('\n').at(-1) ?? '') as SealedReport['report']
  assert.equal(report.result, 'passed', JSON.stringify(report.servers))
  assert.deepEqual([report.data_age_ms, report.data_age_basis], [0, 'in_sync'])
  t.diagnostic(
    `recovery time ${report.recovery_time_ms} ms, longest wait of a write ${report.production_stall_ms} ms`,
  )
  const [copy] = report.servers
  assert.ok(copy !== undefined)
  const found = saidAt('az2', copy.server)
  t.diagnostic(`acknowledged ${acknowledged} when it was asked for, found ${found.found}`)
  assert.ok(acknowledged > 0 && (found.found ?? 0) >= acknowledged)
  assert.equal(found.boots, 2, 'it is a copy of the same disk')
  assert.equal(found.address.split('/')[0], saidAt('az1', id).address.split('/')[0])

  await the().holdfast('group', 'verify', group)
  const counted = saidAt('az1', id).acknowledged
  const ended = await the().holdfast('drill', 'delete', report.drill.id, '--json')
  const last = JSON.parse(ended.trim().split('\n').at(-1) ?? '') as SealedReport['report']
  assert.equal(last.teardown?.verdict, 'clean')
  assert.ok(saidAt('az1', id).acknowledged > counted, 'production counts on')
  assert.deepEqual((await detail(group)).record.epoch, record.epoch)
})
