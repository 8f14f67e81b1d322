import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { RunningAgent } from '#agent/agent.ts'
import { connectNbd } from '#client/nbd/client.ts'
import { operationKinds } from '#control/operations/definitions/list.ts'
import { imageId } from '#control/resources/images.ts'
import { defaultSubnetId } from '#control/resources/networks.ts'
import { fakeGuests } from '../support/fake-guests.ts'
import {
  makeCertificates,
  PROJECT,
  type RegionControl,
  startRegionAgent,
  startRegionControl,
} from '../support/region-parts.ts'
import { type Answer, Lives } from './crash/lives.ts'

/**
 * Backups, restores and copies under a control plane that dies by SIGKILL at every boundary of every step of theirs, once each; and what is left of them in the
 * other region, when all of the first one is gone: its control plane, its site and its vault.
 */

const MIB = 1024 * 1024
const PROVIDER = 'fc4d5750-22e7-4798-8a46-f48f62c4c1da'
const CSBS = '/v1/{project}'
const ITEMS = `${CSBS}/checkpoint_items`
/** Comes with copies that a schedule of another region has sent: csbs-regions.test.ts. */
const ELSEWHERE = /^backup\.sweep-replicas$/

let directory = ''
let lives: Lives
let other: RegionControl
let front: Server
const agents: Record<'here' | 'there', RunningAgent | undefined> = {
  here: undefined,
  there: undefined,
}
const here = () => join(directory, 'r1')
const there = () => join(directory, 'r2')

const vaultOf = async (region: string) => {
  await writeFile(join(region, 'vault.key'), randomBytes(32))
  return {
    'vault.place': join(region, 'vault'),
    'vault.keyFile': join(region, 'vault.key'),
    replicaListen: '127.0.0.1:0',
    advertiseHost: '127.0.0.1',
  }
}

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hf-'))
  for (const region of [here(), there()]) {
    await mkdir(region)
    await makeCertificates(region)
  }
  other = await startRegionControl({
    directory: there(),
    internalPort: 0,
    native: true,
    backups: true,
  })
  const { port } = other.plane.internal
  agents.there = await startRegionAgent(there(), 'az1', port, await vaultOf(there()), fakeGuests())
  front = await serveOther()
  const credentials = join(directory, 'r2.json')
  const url = `http://127.0.0.1:${(front.address() as AddressInfo).port}`
  const known = { region: 'local-2', url, domain: 'holdfast', user: 'r1', password: 'secret' }
  await writeFile(credentials, JSON.stringify(known))
  const more = { regions: `local-2=${credentials}` }
  lives = await Lives.begin(here(), /^backup\./, { backups: true, more })
  const { internalPort } = lives
  agents.here = await startRegionAgent(
    here(),
    'az1',
    internalPort,
    await vaultOf(here()),
    fakeGuests(),
  )
})

after(async () => {
  await lives.end()
  front.close()
  front.closeAllConnections()
  await agents.here?.close()
  await other.stopServing()
  await other.plane.close()
  await agents.there?.close()
  await rm(directory, { recursive: true, force: true })
})

/** The other region's API for clients of afar. Whoever asks for a token gets the fixed one of its administrator. */
async function serveOther(): Promise<Server> {
  const server = createServer((request, response) => {
    void (async () => {
      const parts: Buffer[] = []
      for await (const part of request as AsyncIterable<Buffer>) parts.push(part)
      if (request.url === '/v3/auth/tokens') {
        response.writeHead(201, { 'x-subject-token': 'admin' }).end('{}')
        return
      }
      const reply = await other.app.inject({
        method: request.method as 'POST' | 'PUT',
        url: request.url ?? '',
        headers: { 'x-auth-token': 'admin', 'content-type': 'application/json' },
        payload: Buffer.concat(parts),
      })
      response.writeHead(reply.statusCode).end(reply.body)
    })()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

async function write(region: string, volume: string, at: number, bytes: Buffer): Promise<void> {
  const client = await open(region, volume)
  await client.write(at, bytes, { fua: true })
  await client.disconnect()
}

async function read(region: string, volume: string, at: number, length: number): Promise<Buffer> {
  const client = await open(region, volume)
  const bytes = await client.read(at, length)
  await client.disconnect()
  return bytes
}

const open = async (region: string, volume: string) =>
  await connectNbd({ unix: join(region, 'az1', 'nbd.sock') }, { exportName: volume })

/** What somebody at last answers. */
const told = async (path: string): Promise<Answer['body']> =>
  (
    await lives.until(`${path} is answered`, async () => {
      const answer = await lives.ask('GET', path)
      return answer === null || answer.status >= 500 ? null : answer
    })
  ).body

/** A running server with a disk of 1 GiB, and its disk. */
async function makeServer(): Promise<{ readonly id: string; readonly volume: string }> {
  const servers = '/v2.1/{project}/servers'
  const image = imageId('holdfast-tiny')
  const disk = {
    source_type: 'image',
    uuid: image,
    destination_type: 'volume',
    boot_index: 0,
    volume_size: 1,
    delete_on_termination: true,
  }
  const server = {
    name: 'kept',
    imageRef: image,
    flavorRef: 't2.micro',
    availability_zone: 'az1',
    networks: [{ uuid: defaultSubnetId(PROJECT) }],
    block_device_mapping_v2: [disk],
  }
  const named = async () => (await told(`${servers}/detail?name=kept`)).servers as Answer['body'][]
  await lives.change('POST', servers, { server }, async () => (await named()).length > 0)
  const [{ id }] = await named()
  await lives.until('the server runs', async () =>
    (await told(`${servers}/${id}`)).server.status === 'ACTIVE' ? true : null,
  )
  const attached = await told(`${servers}/${id}/os-volume_attachments`)
  return { id, volume: attached.volumeAttachments[0].volumeId }
}

const items = async () => (await told(ITEMS)).checkpoint_items as Answer['body'][]

/** Begins something once: `mark` tells whether it has begun. */
async function begin(
  method: string,
  path: string,
  body: unknown,
  mark: () => Promise<boolean>,
): Promise<void> {
  await lives.change(method, path, body, mark)
}

const operations = async (kind: string): Promise<Answer['body'][]> =>
  ((await told('/api/v1/operations?limit=1000')).operations as Answer['body'][]).filter(
    (one) => one.kind === kind,
  )

/** Begins an operation of this kind once, and waits for its good end. */
async function carryOut(kind: string, method: string, path: string, body: unknown): Promise<void> {
  const count = (await operations(kind)).length
  const begun = async () => (await operations(kind)).length > count
  await begin(method, path, body, begun)
  await lives.until(`${kind} has ended`, async () => {
    const all = await operations(kind)
    if (all.length === count) return null
    assert.equal(all.length, count + 1, `${kind} was begun twice`)
    if (all.some(({ status }) => status === 'pending' || status === 'running')) return null
    const bad = all.find(({ status }) => status !== 'succeeded')
    assert.equal(bad, undefined, JSON.stringify(bad))
    return true
  })
}

test('backups, restores and copies end as they should wherever the control plane is killed, and the other region needs nothing of this one', async () => {
  const { id: server, volume } = await makeServer()
  const [one, two] = [randomBytes(MIB), randomBytes(MIB)]
  await write(here(), volume, 5 * MIB, one)
  await write(here(), volume, 1000 * MIB, two)

  const trigger = {
    properties: {
      pattern:
        'BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nRRULE:FREQ=WEEKLY;BYDAY=SU;BYHOUR=3;BYMINUTE=0\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n',
    },
  }
  const policy = {
    name: 'kept',
    provider_id: PROVIDER,
    parameters: { common: {} },
    resources: [{ id: server, type: 'OS::Nova::Server', name: 'kept' }],
    scheduled_operations: [
      { enabled: false, operation_type: 'backup', operation_definition: {}, trigger },
    ],
  }
  const policies = async () => (await told(`${CSBS}/policies`)).policies as Answer['body'][]
  await begin('POST', `${CSBS}/policies`, { policy }, async () => (await policies()).length > 0)
  const [{ id: plan }] = await policies()
  const checkpoints = `${CSBS}/providers/${PROVIDER}/checkpoints`
  const run = { checkpoint: { plan_id: plan, parameters: {} } }
  await carryOut('backup.run', 'POST', checkpoints, run)
  const [item] = await items()
  assert.equal(item.status, 'available', JSON.stringify(item))

  await carryOut(
    'backup.replicate',
    'POST',
    `${CSBS}/providers/${PROVIDER}/checkpoint_items/${item.id}/replicate`,
    {
      replication: { destination_region: 'local-2', destination_project_id: PROJECT },
    },
  )
  await carryOut('backup.verify', 'POST', `${CSBS}/verifications`, {
    verification: { provider_id: PROVIDER, checkpoint_id: item.checkpoint_id, parameters: {} },
  })
  const own = `/api/v1/backups/${item.id}`
  await carryOut('backup.attach', 'POST', `${own}/attach`, {})
  await carryOut('backup.detach', 'POST', `${own}/detach`, {})

  await write(here(), volume, 4 * MIB, randomBytes(3 * MIB))
  await carryOut('backup.restore', 'POST', `${own}/restore`, { server })
  assert.ok((await read(here(), volume, 5 * MIB, MIB)).equals(one))
  await carryOut('backup.restore-volumes', 'POST', `${own}/restore`, {
    new_volumes: true,
    site: 'az1',
  })

  // The next one builds on it, and is deleted.
  const protect = `${CSBS}/providers/${PROVIDER}/resources/${server}/action`
  await carryOut('backup.server', 'POST', protect, { protect: {} })
  const second = (await items()).find(({ id }) => id !== item.id)
  assert.equal(second?.extend_info.incremental, true)
  await carryOut('backup.delete', 'DELETE', `${checkpoints}/${second.checkpoint_id}`, undefined)
  assert.deepEqual(
    (await items()).map(({ id }) => id),
    [item.id],
  )

  const passed = async () => new Set((await readFile(lives.visited, 'utf8')).split('\n'))
  // It comes by itself, once a day, when there is a backup, and is nobody's: no list shows it.
  await lives.until('the daily upkeep has ended', async () =>
    (await passed()).has('backup.upkeep collect after-record') ? true : null,
  )

  const points = operationKinds
    .filter(({ name }) => name.startsWith('backup.') && !ELSEWHERE.test(name))
    .flatMap(({ name, steps }) =>
      steps.flatMap((step) => [
        `${name} ${step.name} after-act`,
        `${name} ${step.name} after-record`,
      ]),
    )
  const seen = await passed()
  const missed = points.filter((point) => !seen.has(point))
  assert.deepEqual(missed, [], 'every boundary of every kind was crashed at')

  // All of the first region goes.
  await lives.end()
  await agents.here?.close()
  agents.here = undefined
  await rm(here(), { recursive: true })
  const ask = async (method: 'GET' | 'POST', path: string, payload?: object) => {
    const reply = await other.app.inject({
      method,
      url: path.replace('{project}', PROJECT),
      headers: { 'x-auth-token': 'admin' },
      ...(payload === undefined ? {} : { payload }),
    })
    assert.ok(reply.statusCode < 300, reply.body)
    return JSON.parse(reply.body) as Answer['body']
  }
  const [copy] = (await ask('GET', ITEMS)).checkpoint_items
  assert.equal(copy.extend_info.image_type, 'replication')
  const begun = await ask('POST', `/api/v1/backups/${copy.id}/restore`, {
    new_volumes: true,
    site: 'az1',
  })
  const ended = await other.plane.operations.waitFor(begun.operation_id as string)
  assert.equal(ended.status, 'succeeded', ended.failReason ?? '')
  const [restored] = begun.volumes as string[]
  assert.ok(restored !== undefined)
  assert.ok((await read(there(), restored, 5 * MIB, MIB)).equals(one))
  assert.ok((await read(there(), restored, 1000 * MIB, MIB)).equals(two))
  assert.ok((await read(there(), restored, 500 * MIB, MIB)).equals(Buffer.alloc(MIB)))
})
