/**
 * A protected instance with a real guest in a complete system: made of a running server, hot-plugged, its site killed with guest and
 * agent, and gone on at the other one: by itself, and by the group's recovery plan. The guest counts on its disk with an fsync each time and says so on its console, which lies elsewhere.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { systemClock } from '#base/system/clock.ts'
import { readFacts } from '#cli/demo/server.ts'
import { imageId } from '#control/resources/images.ts'
import { Lab } from '../lab.ts'
import { testImages } from '../support/images.ts'

/** Without hardware support, on a machine that does other things as well. */
const BOOT_MS = 180_000

const images = await testImages()
const skip = 'skip' in images ? images.skip : false
let lab: Lab | undefined

before(async () => {
  if ('skip' in images) return
  lab = await Lab.start({
    HOLDFAST_IMAGE_DIR: images.directory,
    HOLDFAST_QEMU_ACCELERATOR: 'tcg',
    HOLDFAST_PEER_SILENCE_MS: '1500',
    HOLDFAST_HEARTBEAT_MS: '200',
    HOLDFAST_RENEW_MS: '500',
    HOLDFAST_LEASE_MS: '3000',
  })
})
after(async () => await lab?.close())

const SERVERS = '/v2.1/{project}/servers'
const INSTANCES = '/v1/{project}/protected-instances'
const GROUPS = '/v1/{project}/server-groups'
const PAIRS = '/v1/{project}/replications'

interface Nic {
  readonly addr: string
  readonly 'OS-EXT-IPS-MAC:mac_addr': string
}
interface Server {
  readonly id: string
  readonly status: string
  readonly addresses: Readonly<Record<string, readonly Nic[]>>
}
interface Instance {
  readonly status: string
  readonly target_server: string
  readonly attachment: readonly { readonly replication: string; readonly device: string }[]
}

interface Recoveries {
  readonly recoveries: readonly {
    readonly reason: string
    readonly state: string
    readonly ended_at: string | null
    readonly servers: readonly { readonly ready_after_ms: number | null }[]
  }[]
}
interface Automatic {
  readonly automatic_failover: {
    readonly armed: boolean
    readonly history: readonly { readonly verdict: string }[]
  }
}

const the = (): Lab => {
  assert.ok(lab !== undefined)
  return lab
}
const show = async (id: string) =>
  (await the().ok<{ server: Server }>(200, 'GET', `${SERVERS}/${id}`)).server
const instance = async (id: string) =>
  (await the().ok<{ protected_instance: Instance }>(200, 'GET', `${INSTANCES}/${id}`))
    .protected_instance

async function job(method: string, path: string, body?: unknown): Promise<Record<string, string>> {
  const { job_id } = await the().ok<{ job_id: string }>(200, method, path, body)
  const { entities } = await the().job(job_id)
  return entities as Record<string, string>
}

async function status(id: string, wanted: string): Promise<void> {
  await the().until(
    `${id} is ${wanted}`,
    () => show(id),
    (server) => server.status === wanted,
    BOOT_MS,
  )
}

async function consoleOf(id: string): Promise<string> {
  const body = { 'os-getConsoleOutput': {} }
  const { output } = await the().ok<{ output: string }>(
    200,
    'POST',
    `${SERVERS}/${id}/action`,
    body,
  )
  return output
}

async function says(id: string, pattern: RegExp): Promise<void> {
  await the().until(
    `the console of ${id} says ${pattern}`,
    () => consoleOf(id),
    (text) => pattern.test(text),
    BOOT_MS,
  )
}

/** The guest counts: its facts once it has acknowledged a few numbers. */
async function counting(id: string) {
  const text = await the().until(
    `${id} counts`,
    () => consoleOf(id),
    (shown) => {
      const { numbers, boots, address } = readFacts(shown)
      return numbers >= 3 && boots > 0 && address !== ''
    },
    BOOT_MS,
  )
  return readFacts(text)
}

async function identityOf(id: string): Promise<string[]> {
  const nics = Object.values((await show(id)).addresses).flat()
  return nics.map((nic) => `${nic['OS-EXT-IPS-MAC:mac_addr']} ${nic.addr}`)
}

async function inSync(id: string): Promise<void> {
  for (const { replication } of (await instance(id)).attachment) {
    await the().until(
      `${replication} is in sync`,
      () =>
        the().ok<{ replication: { replication_status: string } }>(
          200,
          'GET',
          `${PAIRS}/${replication}`,
        ),
      (reply) => reply.replication.replication_status === 'active',
      BOOT_MS,
    )
  }
}

const act = async (group: string, body: object) =>
  await job('POST', `${GROUPS}/${group}/action`, body)

test('a running server joins a protected group, gets a disk, loses its site, and goes on at the other one with all that it was promised', {
  skip,
}, async (t) => {
  const { server } = await the().ok<{ server: Server }>(202, 'POST', SERVERS, {
    server: {
      name: 'counter',
      imageRef: imageId('holdfast-counter'),
      flavorRef: 't2.nano',
      availability_zone: 'az1',
    },
  })
  const { id } = server
  await status(id, 'ACTIVE')
  await counting(id)

  const domains = await the().ok<{ domains: { id: string }[] }>(
    200,
    'GET',
    '/v1/{project}/active-domains',
  )
  const vpcs = await the().ok<{ vpcs: { id: string }[] }>(200, 'GET', '/v1/{project}/vpcs')
  const { server_group_id: group = '' } = await job('POST', GROUPS, {
    server_group: {
      name: 'g',
      source_availability_zone: 'az1',
      target_availability_zone: 'az2',
      domain_id: domains.domains[0]?.id,
      source_vpc_id: vpcs.vpcs[0]?.id,
      start_servers: true,
    },
  })
  const volume = await the().volume(1, 'az1', 'data')
  const { replication_pair_id: pair = '' } = await job('POST', PAIRS, {
    replication: { server_group_id: group, volume_id: volume, name: 'data' },
  })
  await act(group, { 'start-server-group': {} })
  const beganMs = systemClock.bootMs()
  const made = await job('POST', INSTANCES, {
    protected_instance: { name: 'counter', server_group_id: group, server_id: id },
  })
  const inst = made['protected_instance_id'] ?? ''
  await inSync(inst)
  t.diagnostic(
    `protected and in sync ${Math.round(systemClock.bootMs() - beganMs)} ms after the wish`,
  )
  assert.equal((await show(id)).status, 'ACTIVE', 'the guest ran all the while')
  const { target_server: dr } = await instance(inst)
  const identity = await identityOf(id)
  assert.equal(identity.length, 1)

  const pluggedMs = systemClock.bootMs()
  const { job_id } = await the().ok<{ job_id: string }>(
    200,
    'POST',
    `${INSTANCES}/${inst}/attachreplication`,
    { replicationAttachment: { replication_id: pair, device: '/dev/vdb' } },
  )
  await says(id, new RegExp(`^DISK vd[a-z] ${1024 ** 3} ${volume.slice(0, 20)}`, 'm'))
  t.diagnostic(
    `attached pair seen by the guest after ${Math.round(systemClock.bootMs() - pluggedMs)} ms`,
  )
  await the().job(job_id)
  await inSync(inst)

  await the().ok(200, 'PUT', `/api/v1/groups/${group}/recovery-plan`, {
    waves: [{ instances: ['counter'] }],
    instances: { counter: { probes: [{ probe: { kind: 'boot' }, timeout_s: BOOT_MS / 1_000 }] } },
  })
  const automaticPath = `/api/v1/groups/${group}/automatic-failover`
  await the().ok(200, 'PUT', automaticPath, { enabled: true, silence_s: 1 })
  const before = await counting(id)
  await the().holdfast('site', 'kill', 'az1')
  // What came after the last look, too: the console lies in a file of its own.
  const file = join(the().data, 'az1-agent', 'servers', id, 'console.log')
  const acknowledged = Math.max(
    before.acknowledged,
    readFacts(readFileSync(file, 'latin1')).acknowledged,
  )
  // Nobody asks for the failover: the witness misses the site.
  const over = await the().until(
    'the group has failed over by itself, and its server is back by the plan',
    () => the().ok<Recoveries>(200, 'GET', `/api/v1/groups/${group}/recovery`),
    ({ recoveries: [run] }) => run !== undefined && run.ended_at !== null,
    BOOT_MS,
  )
  const [recovery] = over.recoveries
  assert.deepEqual([recovery?.reason, recovery?.state], ['failover', 'done'])
  t.diagnostic(`ready ${recovery?.servers[0]?.ready_after_ms} ms after its start`)
  const { automatic_failover: automatic } = await the().ok<Automatic>(200, 'GET', automaticPath)
  assert.equal(automatic.armed, false)
  assert.ok(automatic.history.some(({ verdict }) => verdict === 'acts'))
  await status(dr, 'ACTIVE')
  const after_ = await counting(dr)
  t.diagnostic(`acknowledged ${acknowledged}, found ${after_.found}`)
  assert.ok(acknowledged > 0 && (after_.found ?? 0) >= acknowledged)
  assert.equal(after_.boots, 2, 'it is the same disk')
  assert.deepEqual(await identityOf(dr), identity)
  assert.equal(identity[0]?.split(' ')[1], after_.address.split('/')[0])
  assert.deepEqual(await identityOf(id), [])
  const start = await the().call('POST', `${SERVERS}/${id}/action`, { 'os-start': null })
  assert.equal(start.status, 409)
})
