/** Servers of two real agents are backed up under a policy, their disks destroyed and restored, byte for byte; one of them replicates. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import {
  type AcceptedRun,
  requestBackup,
  requestDeletion,
} from '#control/operations/definitions/backup/backup-requests.ts'
import {
  requestAttach,
  requestDetach,
} from '#control/operations/definitions/backup/checkpoint-attachment.ts'
import { requestGroupBackup } from '#control/operations/definitions/backup/group-backup.ts'
import {
  type RestoreForm,
  requestRestoreForm,
} from '#control/operations/definitions/backup/restore-forms.ts'
import type { RequestServices } from '#control/operations/definitions/requests.ts'
import {
  type Mapping,
  requestRestore,
} from '#control/operations/definitions/backup/restore-requests.ts'
import { requestServers } from '#control/operations/definitions/servers/server-requests.ts'
import { attachmentOf } from '#control/resources/checkpoint-attachments.ts'
import { diskBackupsOf, itemsOf, readItem } from '#control/resources/checkpoints.ts'
import { readRestore } from '#control/resources/restores.ts'
import { disksOf } from '#control/resources/servers.ts'
import { stepResults } from '#control/operations/records.ts'
import type { CheckpointItemRow } from '#control/store/tables/checkpoints.ts'
import type { BackupInfo } from '#wire/site/backups.ts'
import { fakeGuests } from '../support/fake-guests.ts'
import { newDisk, newServer } from '../support/new-server.ts'
import { PROJECT, Region } from '../support/region.ts'

const MIB = 1024 * 1024
const PROVIDER = 'fc4d5750-22e7-4798-8a46-f48f62c4c1da'

let directory = ''
let region: Region
let services: RequestServices

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hf-backup-'))
  await writeFile(join(directory, 'vault.key'), randomBytes(32))
  region = await Region.start({
    servers: { az1: fakeGuests(), az2: fakeGuests() },
    agent: {
      'vault.place': join(directory, 'vault'),
      'vault.keyFile': join(directory, 'vault.key'),
    },
  })
  services = region.requests
})
after(async () => {
  await region.stop()
  await rm(directory, { recursive: true, force: true })
})

/** A running server with two blank disks. */
async function serverWithDisks(name: string): Promise<{ id: string; volumes: string[] }> {
  const disks = [newDisk({ bootIndex: 0 }), newDisk()]
  const outcome = await requestServers(services, newServer({ name, image: null, disks }), 1)
  assert.ok(outcome.ok, JSON.stringify(outcome))
  await ended(outcome.operation)
  const id = outcome.servers[0]?.id ?? ''
  const made = (await disksOf(services.store.db, [id])).get(id) ?? []
  return { id, volumes: made.map(({ volume }) => volume) }
}

async function ended(operation: string): Promise<void> {
  const view = await services.operations.waitFor(operation)
  assert.equal(view.status, 'succeeded', `${view.kind}: ${view.failReason}`)
}

async function write(
  name: string,
  offset: number,
  bytes: Buffer,
  site: 'az1' | 'az2' = 'az1',
): Promise<void> {
  const client = await region.nbd(site, name)
  await client.write(offset, bytes)
  await client.disconnect()
}

async function read(
  name: string,
  offset: number,
  length: number,
  site: 'az1' | 'az2' = 'az1',
): Promise<Buffer> {
  const client = await region.nbd(site, name)
  const bytes = await client.read(offset, length)
  await client.disconnect()
  return bytes
}

interface BackedUp {
  readonly item: CheckpointItemRow
  readonly site: string
  readonly info: BackupInfo
}

async function backUp(server: string): Promise<BackedUp> {
  const outcome = await requestBackup(services, {
    project: PROJECT,
    server,
    provider: PROVIDER,
    name: null,
    description: null,
    incremental: true,
    tags: [],
    extraInfo: {},
  })
  assert.ok(outcome.ok, JSON.stringify(outcome))
  const { operation, checkpoint }: AcceptedRun = outcome
  await ended(operation)
  const [item] = await itemsOf(services.store.db, checkpoint.id)
  assert.ok(item !== undefined)
  const { take } = await stepResults(services.store.db, operation)
  return { item, ...(take as Pick<BackedUp, 'site' | 'info'>) }
}

/** Every disk backup to the disk that it names itself. */
async function mappingOf({ id }: CheckpointItemRow): Promise<Mapping[]> {
  const disks = (await diskBackupsOf(services.store.db, [id])).get(id) ?? []
  return disks.map(({ id: backup, volume }) => ({ backup, volume }))
}

async function restore(item: CheckpointItemRow, mapping: Mapping[] | null = null): Promise<void> {
  const outcome = await requestRestore(services, {
    project: PROJECT,
    provider: PROVIDER,
    checkpoint: item.checkpoint,
    target: { item: item.id, server: item.resource, mapping, powerOn: true },
    parameters: {},
    restoreTarget: null,
  })
  assert.ok(outcome.ok, JSON.stringify(outcome))
  const [operation] = await services.operations.list({ resourceType: 'server-backup', limit: 1 })
  await services.operations.waitFor(operation?.id ?? '')
  const row = await readRestore(services.store.db, outcome.restore.id)
  assert.equal(row?.status, 'success', row?.resources_reason)
}

/** Answers the volumes that were written. */
async function restoreInForm(
  item: CheckpointItemRow,
  {
    disks,
    to,
  }: {
    readonly disks: readonly (readonly [backup: string, volume: string | null])[]
    readonly to: RestoreForm['to']
  },
): Promise<readonly string[]> {
  const outcome = await requestRestoreForm(services, {
    project: PROJECT,
    user: 'c'.repeat(32),
    item: item.id,
    provider: PROVIDER,
    disks: disks.map(([backup, volume]) => ({ backup, volume })),
    to,
    powerOn: true,
    rateBytes: 0,
    parameters: {},
  })
  assert.ok(outcome.ok, JSON.stringify(outcome))
  await services.operations.waitFor(outcome.operation)
  const row = await readRestore(services.store.db, outcome.restore.id)
  assert.equal(row?.status, 'success', row?.resources_reason)
  return outcome.volumes
}

test('a server whose disks were destroyed comes back byte for byte, from the backup of its choice', async () => {
  const { id, volumes } = await serverWithDisks('alone')
  const [root = '', data = ''] = volumes
  const [one, two, three] = [randomBytes(MIB), randomBytes(MIB), randomBytes(MIB)]
  await write(root, 5 * MIB, one)
  await write(data, 1000 * MIB, two)
  const first = await backUp(id)
  assert.equal(first.site, 'az1')
  assert.equal(first.item.incremental, 0)
  await write(data, 1000 * MIB, three)
  const second = await backUp(id)
  assert.equal(second.item.incremental, 1)
  const disks = (await diskBackupsOf(services.store.db, [second.item.id])).get(second.item.id)
  assert.deepEqual(
    disks?.map(({ volume, system, size_gb }) => [volume, system, size_gb]),
    [
      [root, 1, 1],
      [data, 0, 1],
    ],
  )

  const ruin = randomBytes(8 * MIB)
  for (const volume of volumes) await write(volume, 0, ruin)
  await write(data, 996 * MIB, ruin)
  await restore(second.item)
  assert.ok((await read(root, 5 * MIB, MIB)).equals(one))
  assert.ok((await read(data, 1000 * MIB, MIB)).equals(three))
  assert.ok((await read(data, 996 * MIB, 4 * MIB)).equals(Buffer.alloc(4 * MIB)))
  await restore(first.item)
  assert.ok((await read(data, 1000 * MIB, MIB)).equals(two))

  // Deleting the first breaks nothing of the one that was built on it.
  const gone = await requestDeletion(services, PROJECT, first.item.checkpoint, [])
  assert.ok(gone.ok)
  for (const operation of gone.operations) await ended(operation)
  await restore(second.item)
  assert.ok((await read(data, 1000 * MIB, MIB)).equals(three))
  assert.ok((await read(root, 5 * MIB, MIB)).equals(one))

  // One disk becomes a volume of its own at the other site; then it is written over from another backup's disk.
  const to = { kind: 'new', name: 'copy', type: null, site: 'az2' } as const
  const [copy = ''] = await restoreInForm(second.item, { disks: [[data, null]], to })
  const atOther = async (name: string, offset: number) => await read(name, offset, MIB, 'az2')
  assert.ok((await atOther(copy, 1000 * MIB)).equals(three))
  assert.ok((await atOther(copy, 0)).equals(Buffer.alloc(MIB)))
  await restoreInForm(second.item, { disks: [[root, copy]], to: { kind: 'volumes' } })
  assert.ok((await atOther(copy, 5 * MIB)).equals(one))
  assert.ok((await atOther(copy, 1000 * MIB)).equals(Buffer.alloc(MIB)))

  // Read where it is, without any restore.
  const attached = await requestAttach(services, PROJECT, second.item.id, 'az2')
  assert.ok(attached.ok)
  await ended(attached.operation)
  const now = await readItem(services.store.db, second.item.id)
  assert.ok(now !== undefined)
  const offered = attachmentOf(now)?.exports?.find(({ volume }) => volume === data)
  assert.ok((await atOther(offered?.name ?? '', 1000 * MIB)).equals(three))
  const client = await region.nbd('az2', offered?.name ?? '')
  await assert.rejects(client.write(0, one))
  const detached = await requestDetach(services, PROJECT, second.item.id)
  assert.ok(detached.ok)
  await ended(detached.operation)
  await region.refuses('az2', offered?.name ?? '')
})

test('a server whose disks replicate is read at the DR side, and restored to both sides', async () => {
  const { id, volumes } = await serverWithDisks('protected')
  const group = await region.group()
  const wish = { server_group_id: group, server_id: id, name: 'inst' }
  await region.job('POST', '/v1/{project}/protected-instances', { protected_instance: wish })
  const rows = await services.store.db
    .selectFrom('volumes')
    .select(['id', 'pair'])
    .where('id', 'in', volumes)
    .execute()
  const pairs = volumes.map((volume) => rows.find((row) => row.id === volume)?.pair ?? '')
  await region.act(group, 'start-server-group')
  for (const pair of pairs) await region.inSync(pair)
  const [root = '', data = ''] = pairs
  const [one, two] = [randomBytes(MIB), randomBytes(MIB)]
  await write(root, 0, one)
  await write(data, 512 * MIB, two)
  const { item, site } = await backUp(id)
  assert.equal(site, 'az2')
  await write(root, 0, randomBytes(4 * MIB))
  await write(data, 512 * MIB, randomBytes(4 * MIB))
  await restore(item)
  assert.ok((await read(root, 0, MIB)).equals(one))
  assert.ok((await read(data, 512 * MIB, MIB)).equals(two))
  assert.ok((await read(data, 513 * MIB, 3 * MIB)).equals(Buffer.alloc(3 * MIB)))
  // The next one is read there as well, and has what the restore wrote.
  const next = await backUp(id)
  assert.equal(next.site, 'az2')
  assert.equal(next.item.incremental, 1)

  // The group as a whole, whose disks go back together.
  const whole = await requestGroupBackup(services, {
    project: PROJECT,
    group,
    provider: PROVIDER,
    name: 'whole',
    description: null,
    incremental: true,
    rateBytes: 0,
  })
  assert.ok(whole.ok)
  await ended(whole.operation)
  const [taken] = await itemsOf(services.store.db, whole.item.checkpoint)
  assert.ok(taken !== undefined && taken.stall_us !== null)
  const { take } = await stepResults(services.store.db, whole.operation)
  assert.equal((take as { site: string }).site, 'az2')
  for (const pair of [root, data]) await write(pair, 0, randomBytes(2 * MIB))
  await restoreInForm(taken, { disks: [], to: { kind: 'volumes' } })
  assert.ok((await read(root, 0, MIB)).equals(one))
  assert.ok((await read(data, 0, 2 * MIB)).equals(Buffer.alloc(2 * MIB)))

  // The site that wrote is lost: the server goes on at the other one, and its backups with it.
  const [three, four, five] = [randomBytes(MIB), randomBytes(MIB), randomBytes(MIB)]
  await write(root, 8 * MIB, three)
  const last = await backUp(id)
  assert.deepEqual([last.site, last.item.incremental], ['az2', 1])
  await region.stopSite('az1')
  await region.act(group, 'failover-server-group')
  await write(data, 600 * MIB, four, 'az2')
  const afterwards = await backUp(id)
  assert.deepEqual(
    [afterwards.site, afterwards.item.incremental, afterwards.item.resource],
    ['az2', 1, id],
  )
  // What changed since the backup that was read there as the copy, and no more: the increments follow each other through the switch.
  assert.equal(afterwards.info.manner, 'changes')
  assert.ok(afterwards.info.read_bytes <= 2 * MIB, `${afterwards.info.read_bytes} bytes`)
  for (const pair of pairs) await write(pair, 0, randomBytes(12 * MIB), 'az2')
  await write(data, 599 * MIB, randomBytes(4 * MIB), 'az2')
  const content = async (site: 'az1' | 'az2') => [
    await read(root, 0, 16 * MIB, site),
    await read(data, 512 * MIB, MIB, site),
    await read(data, 599 * MIB, 3 * MIB, site),
  ]
  const zeroes = (count: number) => Buffer.alloc(count * MIB)
  const before = [Buffer.concat([one, zeroes(7), three, zeroes(7)]), two, zeroes(3)]
  const since = [before[0], two, Buffer.concat([zeroes(1), four, zeroes(1)])]
  await restore(afterwards.item)
  assert.deepEqual(await content('az2'), since)
  // By its own id and those of its disks at the site that is gone.
  await restore(last.item, await mappingOf(last.item))
  assert.deepEqual(await content('az2'), before)

  // Back in step: the next one is read at the site that was lost, compared with what the vault has, and is as good.
  await region.startSite('az1')
  await region.until('the group can be protected again', async () => {
    const reply = await region.call('POST', `/v1/{project}/server-groups/${group}/action`, {
      'start-server-group': {},
    })
    if (reply.status === 200) await region.plane.operations.waitFor(reply.body.job_id as string)
    return reply.status === 200
  })
  for (const pair of pairs) await region.inSync(pair)
  await write(root, 20 * MIB, five, 'az2')
  const apart = await backUp(id)
  assert.deepEqual([apart.site, apart.item.incremental, apart.info.manner], ['az1', 1, 'scan'])
  await write(root, 20 * MIB, randomBytes(MIB), 'az2')
  await restore(apart.item)
  assert.ok((await read(root, 20 * MIB, MIB, 'az2')).equals(five))
  assert.deepEqual(await content('az2'), before)
})
