/**
 * Anything, in any order, at the same time: requests on a few servers and disks, guests that turn by themselves, sites that refuse,
 * cling to disks, forget definitions and fall silent. Afterwards nothing is in motion, and rows, volumes and guests say the same.
 */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { after, before, test } from 'node:test'
import { sleep } from '#base/clock.ts'
import { systemClock } from '#base/system/clock.ts'
import type { RequestServices } from '#control/operations/definitions/requests.ts'
import {
  changeServer,
  requestAttachment,
  requestDetachment,
  requestPower,
  requestServerDeletion,
  requestServers,
} from '#control/operations/definitions/servers/server-requests.ts'
import { disksOf, faultOf, listServers } from '#control/resources/servers.ts'
import { attachmentsOf, listVolumes } from '#control/resources/volumes.ts'
import { fakeGuests } from '../support/fake-guests.ts'
import { newDisk, newServer } from '../support/new-server.ts'
import { PROJECT, Region } from '../support/region.ts'
import { randomFrom } from './vault-kit.ts'

const SITES = ['az1', 'az2'] as const
const STEPS = 150

let region: Region
let services: RequestServices
const sites = { az1: fakeGuests(), az2: fakeGuests() }

before(async () => {
  region = await Region.start({ servers: sites })
  services = region.requests
})
after(async () => await region.stop())

const ids = async () =>
  (await listServers(services.store.db, PROJECT)).map(({ id, az }) => ({ id, az }))

async function create(name: string, az: string, count: number, all: boolean): Promise<void> {
  await requestServers(
    services,
    newServer({ name, az, flavor: 't2.nano', disks: [newDisk({ deleteWithServer: all })] }),
    count,
  )
}

/** One thing happens. Refusals are part of it. */
async function step(pick: <T>(from: readonly T[]) => T, name: string): Promise<void> {
  const servers = await ids()
  const volumes = await listVolumes(services.store.db, PROJECT)
  const one = servers.length === 0 ? null : pick(servers)
  const volume = volumes.length === 0 ? null : pick(volumes)
  const site = pick(SITES)
  const kinds = [
    'create',
    ...Array.from({ length: 5 }, () => 'attach' as const),
    ...Array.from({ length: 5 }, () => 'detach' as const),
    ...Array.from({ length: 5 }, () => 'power' as const),
    'delete',
    'guest',
    'guest',
    'site',
    'rename',
    'volume',
  ] as const
  const kind = servers.length < 2 ? 'create' : pick(kinds)
  switch (kind) {
    case 'create':
      if (servers.length < 6) await create(name, site, pick([1, 1, 2]), pick([true, false]))
      return
    case 'power':
      if (one !== null)
        await requestPower(services, PROJECT, one.id, {
          kind: pick(['start', 'stop', 'reboot']),
          hard: pick([true, false]),
        })
      return
    case 'attach':
      if (one === null || volume === null) return
      await requestAttachment(services, PROJECT, one.id, {
        volume: volume.id,
        device: pick([null, '/dev/vdc']),
        deleteWithServer: pick([true, false]),
      })
      return
    case 'detach': {
      const all = await disksOf(
        services.store.db,
        servers.map(({ id }) => id),
      )
      const disks = [...all.values()].flat()
      if (disks.length === 0) return
      const disk = pick(disks)
      await requestDetachment(services, PROJECT, disk.server, { volume: disk.volume })
      return
    }
    case 'delete':
      if (one !== null)
        await requestServerDeletion(services, PROJECT, [one.id], {
          deleteVolumes: pick([true, false]),
        })
      return
    case 'rename':
      if (one !== null) await changeServer(services, PROJECT, one.id, { name })
      return
    case 'volume':
      if (volumes.length < 12)
        await region.call('POST', '/v2/{project}/volumes', {
          volume: { name, size: 1, availability_zone: site },
        })
      return
    case 'guest': {
      const known = [...sites[site].guests.keys()]
      if (known.length > 0)
        sites[site].turn(pick(known), pick(['running', 'off', 'unknown']), 'by itself')
      return
    }
    case 'site':
      sites[site].clinging = pick([true, false])
      sites[site].refusing.set(
        pick(['server.define', 'server.start', 'server.stop', 'server.reboot']),
        1,
      )
      if (one !== null && pick([true, false, false])) sites[site].guests.delete(one.id)
      return
  }
}

test('whatever is asked for and whatever happens, servers, disks and guests agree in the end', async (t) => {
  const seed = Number(process.env['HOLDFAST_TEST_SEED'] ?? randomInt(1_000_000))
  t.diagnostic(`HOLDFAST_TEST_SEED=${seed}`)
  const next = randomFrom(seed)
  const pick = <T>(from: readonly T[]): T => from[Math.floor(next() * from.length)] as T
  for (let at = 0; at < 4; at++) {
    const az = SITES[at % 2] ?? 'az1'
    await region.volume(`disk-${at}`, 1, az)
    await create(`first-${at}`, az, 1, true)
  }
  for (let at = 0; at < STEPS; at++) {
    await step(pick, `box-${at}`)
    if (at === STEPS / 2) {
      await region.stopSite('az2')
      for (let more = 0; more < 10; more++) await step(pick, `quiet-${more}`)
      await region.startSite('az2')
    }
    if (next() < 0.5) await sleep(systemClock, Math.floor(next() * 100))
  }

  for (const site of SITES) {
    sites[site].clinging = false
    sites[site].refusing.clear()
    for (const [id, guest] of sites[site].guests)
      if (guest.power === 'unknown') sites[site].turn(id, 'off')
  }
  await region.until(
    'every operation has ended',
    async () => {
      const open = await region.plane.operations.list({ status: ['pending', 'running'] })
      return open.length === 0
    },
    120_000,
  )
  await region
    .until('all agree', async () => (await disagreements()).length === 0, 40_000)
    .catch(async (error: unknown) => {
      assert.deepEqual(await disagreements(), [], `seed ${seed}: ${String(error)}`)
    })
  const kinds = await services.store.db
    .selectFrom('operations')
    .select((eb) => ['kind', 'status', eb.fn.countAll<number>().as('count')])
    .groupBy(['kind', 'status'])
    .orderBy('kind')
    .execute()
  t.diagnostic(kinds.map(({ kind, status, count }) => `${kind} ${status} ${count}`).join(', '))
  const ended = await region.plane.operations.list({ limit: 1000 })
  const longest = ended
    .map(({ kind, status, createdAt, endAt, failReason }) => ({
      ms: (endAt ?? 0) - createdAt,
      text: `${kind} ${status} ${failReason ?? ''}`,
    }))
    .toSorted((a, b) => b.ms - a.ms)
    .slice(0, 3)
  t.diagnostic(longest.map(({ ms, text }) => `${ms} ms: ${text}`).join('; '))
})

/** What two places say differently of one thing, in words. */
async function disagreements(): Promise<string[]> {
  const { db } = services.store
  const found: string[] = []
  const say = (wrong: boolean, text: string) => {
    if (wrong) found.push(text)
  }
  const servers = await listServers(db, PROJECT)
  const all = await disksOf(
    db,
    servers.map(({ id }) => id),
  )
  const volumes = new Map((await listVolumes(db, PROJECT)).map((one) => [one.id, one]))
  const placed = new Map<string, string>()
  for (const server of servers) {
    const guest = sites[server.az as 'az1' | 'az2'].guests.get(server.id)
    const disks = all.get(server.id) ?? []
    say(server.task !== null, `${server.name} is busy with ${server.task}`)
    say(
      !['active', 'stopped', 'error'].includes(server.status),
      `${server.name} is ${server.status}`,
    )
    for (const disk of disks) {
      const volume = volumes.get(disk.volume)
      say(volume === undefined, `${server.name} has a disk that is not there`)
      say(disk.state !== 'attached', `a disk of ${server.name} is ${disk.state}`)
      say(placed.has(disk.volume), `${disk.volume} is in two servers`)
      placed.set(disk.volume, server.id)
      say(
        volume?.status !== 'in-use' && volume?.status !== 'error',
        `a disk of ${server.name} is ${volume?.status}`,
      )
    }
    // One that could not be made may never have been defined.
    if (server.status === 'error' && faultOf(server)?.passing !== true) continue
    say(guest === undefined, `${server.name} is unknown at its site`)
    if (guest === undefined) continue
    say(guest.power !== server.power, `${server.name} is ${server.power}, its guest ${guest.power}`)
    say(
      (guest.power === 'running') !== (server.status === 'active'),
      `${server.name} is ${server.status}, its guest ${guest.power}`,
    )
    say(
      guest.definition.generation !== server.generation,
      `${server.name} has generation ${server.generation}, its guest ${guest.definition.generation}`,
    )
    say(
      guest.definition.name !== server.name,
      `${server.name} is called ${guest.definition.name} at its site`,
    )
    const wanted = disks.map(({ volume, device }) => `${volume} ${device}`).toSorted()
    const defined = guest.definition.disks
      .map(({ volume, device }) => `${volume} ${device}`)
      .toSorted()
    say(wanted.join() !== defined.join(), `${server.name} has other disks at its site`)
  }
  for (const volume of volumes.values()) {
    const attached = attachmentsOf(volume).map(({ server }) => server)
    const server = placed.get(volume.id)
    say(attached.join() !== (server ?? ''), `${volume.name} is attached to ${attached.join()}`)
    say(
      !['available', 'in-use', 'error'].includes(volume.status),
      `${volume.name} is ${volume.status}`,
    )
    say(
      (volume.status === 'in-use') !== (server !== undefined) && volume.status !== 'error',
      `${volume.name} is ${volume.status} in ${server}`,
    )
  }
  for (const site of SITES) {
    for (const id of sites[site].guests.keys()) {
      const known = servers.some((one) => one.id === id && one.az === site)
      if (!known) say(true, `a guest of nobody at ${site}: ${await historyOf(site, id)}`)
    }
  }
  const ports = await db.selectFrom('ports').select('server').execute()
  say(
    ports.some(({ server }) => !servers.some(({ id }) => id === server)),
    'a port of nobody',
  )
  return found
}

/** What was done to a server, for whoever has to find out why. */
async function historyOf(site: 'az1' | 'az2', id: string): Promise<string> {
  const operations = await region.plane.operations.list({ resourceId: id })
  const commands = sites[site].log.filter(({ server }) => server === id)
  return [
    ...commands.map(({ command, at }) => `${at} ${command}`),
    ...operations.map(
      ({ kind, status, beginAt, endAt, failReason }) =>
        `${beginAt}-${endAt} ${kind} ${status} ${failReason ?? ''}`,
    ),
  ]
    .toSorted()
    .join('; ')
}
