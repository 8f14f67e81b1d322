/**
 * Protected instances for tests: a region with two real agents whose guests are lines in memory, servers in it, and the API of instances.
 * Every answer is held against the contract.
 */
import assert from 'node:assert/strict'
import type { RequestServices } from '#control/operations/definitions/requests.ts'
import {
  type NewServerDisk,
  requestPower,
  requestServerDeletion,
  requestServers,
} from '#control/operations/definitions/servers/server-requests.ts'
import { portsOf } from '#control/resources/networks.ts'
import { disksOf, readServer } from '#control/resources/servers.ts'
import type { PortRow } from '#control/store/tables/networks.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import { type FakeGuests, fakeGuests } from './fake-guests.ts'
import { newDisk, newServer } from './new-server.ts'
import { PROJECT, Region, type Reply } from './region.ts'

export const INSTANCES = '/v1/{project}/protected-instances'
export const GROUPS = '/v1/{project}/server-groups'

export function instanceLab() {
  let region: Region
  let services: RequestServices
  const sites: Readonly<Record<'az1' | 'az2', FakeGuests>> = {
    az1: fakeGuests(),
    az2: fakeGuests(),
  }

  async function start() {
    region = await Region.start({ servers: sites })
    services = region.requests
    return { region, services }
  }

  // ---------------------------------------------------------------- servers

  async function server(
    name: string,
    disks: readonly NewServerDisk[] = [],
    az = 'az1',
  ): Promise<ServerRow> {
    const outcome = await requestServers(services, newServer({ name, az, disks }), 1)
    assert.ok(outcome.ok, JSON.stringify(outcome))
    const view = await region.plane.operations.waitFor(outcome.operation)
    assert.equal(view.status, 'succeeded', view.failReason ?? '')
    return await row(outcome.servers[0]?.id ?? '')
  }

  async function row(id: string): Promise<ServerRow> {
    const found = await readServer(services.store.db, id)
    assert.ok(found !== undefined)
    return found
  }

  async function power(id: string, kind: 'start' | 'stop'): Promise<string | null> {
    const outcome = await requestPower(services, PROJECT, id, { kind, hard: true })
    if (!outcome.ok) return outcome.refusal
    if (outcome.operation !== null) {
      const view = await region.plane.operations.waitFor(outcome.operation)
      assert.equal(view.status, 'succeeded', view.failReason ?? '')
    }
    return null
  }

  const ports = async (id: string): Promise<readonly PortRow[]> =>
    (await portsOf(services.store.db, [id])).get(id) ?? []
  const disks = async (id: string) => (await disksOf(services.store.db, [id])).get(id) ?? []
  const devices = async (id: string) =>
    (await disks(id)).map(({ device, state }) => `${device} ${state}`)

  /** As the agent of a site has it. */
  const guestAt = (site: 'az1' | 'az2', id: string) => sites[site].guests.get(id)
  const nicsAt = (site: 'az1' | 'az2', id: string) =>
    guestAt(site, id)?.definition.nics.map(({ mac, address }) => `${mac} ${address}`)

  // ---------------------------------------------------------------- instances

  const wish = (group: string, id: string, over: object = {}) => ({
    protected_instance: { server_group_id: group, server_id: id, name: 'inst', ...over },
  })

  async function protect(group: string, id: string, over: object = {}): Promise<string> {
    const job = await region.job('POST', INSTANCES, wish(group, id, over))
    assert.equal(job.job_type, 'createProtectedInstanceNoCG')
    return job.entities.protected_instance_id as string
  }

  const show = async (id: string): Promise<Reply['body']> =>
    (await region.ok('GET', `${INSTANCES}/${id}`)).protected_instance

  const pairsOf = async (id: string): Promise<Reply['body'][]> => {
    const { attachment } = await show(id)
    return await Promise.all(
      attachment.map((one: { replication: string }) => region.showPair(one.replication)),
    )
  }

  /** Everything that a request could change. */
  async function everything(): Promise<string> {
    const { db } = services.store
    const rows = await Promise.all([
      db
        .selectFrom('servers')
        .select(['id', 'status', 'task', 'flavor', 'generation', 'instance'])
        .orderBy('id')
        .execute(),
      db.selectFrom('server_disks').selectAll().orderBy('volume').orderBy('server').execute(),
      db.selectFrom('ports').selectAll().orderBy('id').execute(),
      db.selectFrom('tags').selectAll().orderBy('resource').orderBy('key').execute(),
      db.selectFrom('protected_instances').selectAll().orderBy('id').execute(),
    ])
    return JSON.stringify(rows) + (await region.snapshot())
  }

  /** Sends what must be refused: the code is the documented one, and nothing changed. */
  async function refused(
    method: string,
    path: string,
    body: unknown,
    code: string,
    status = 400,
  ): Promise<void> {
    const before = await everything()
    const reply = await region.call(method, path, body)
    const where = `${method} ${path} ${JSON.stringify(body)} → ${JSON.stringify(reply.body)}`
    assert.equal(reply.body?.error?.code, code, where)
    assert.equal(reply.status, status, where)
    assert.equal(reply.body.error_code, code)
    assert.equal(await everything(), before, `${where} changed something`)
  }

  async function inSync(id: string): Promise<void> {
    for (const { id: pair } of await pairsOf(id)) await region.inSync(pair)
  }

  async function dropGroup(group: string): Promise<void> {
    await region.job('DELETE', `${GROUPS}/${group}`)
  }

  async function dropServers(...ids: string[]): Promise<void> {
    const outcome = await requestServerDeletion(services, PROJECT, ids, { deleteVolumes: true })
    assert.ok(outcome.ok, JSON.stringify(outcome))
    const view = await region.plane.operations.waitFor(outcome.operation)
    assert.equal(view.status, 'succeeded', view.failReason ?? '')
  }

  /** `mac address` of every NIC, as the database has it. */
  const worn = async (id: string) =>
    (await ports(id)).map(({ mac, address }) => `${mac} ${address}`)

  return {
    start,
    services: (): RequestServices => services,
    sites,
    blank: newDisk,
    server,
    row,
    power,
    ports,
    disks,
    devices,
    guestAt,
    nicsAt,
    wish,
    protect,
    show,
    pairsOf,
    everything,
    refused,
    inSync,
    dropGroup,
    dropServers,
    worn,
  }
}
