import { newId } from '#base/ids.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import { bit } from '#control/store/bit.ts'
import type { Transaction } from '#control/store/store.ts'
import type { ServerDiskRow, ServerRow } from '#control/store/tables/servers.ts'
import {
  disksOf,
  findServer,
  putDiskIn,
  SERVER_RESOURCE,
  serverFacts,
  serverMetadataOf,
  setDiskState,
  updateServer,
} from '#control/resources/servers.ts'
import { findVolume } from '#control/resources/volumes.ts'
import { decideServer, type ServerRefusal } from '#domain/server.ts'
import { nextDevice, normaliseDevice, ROOT_DEVICE } from '#domain/server-disks.ts'
import { DISKS_MAX } from '#wire/site/servers.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'
import type { ServerCreationRefusal } from './server-creation.ts'
import { raiseGeneration } from './server-definition.ts'
import { deleteServer, deleteServers } from './server-deletion.ts'
import { attachDisk, detachDisk } from './server-disks.ts'
import { attachable } from './server-volumes.ts'
import { powerServers, rebootServer, SERVER_BATCH, startServer, stopServer } from './servers.ts'

/* What the dialects call to change servers. See requests.ts for what a request promises. Creation is in server-creation.ts. */

export {
  type NewServerDisk,
  type NewServerNic,
  type NewServerRequest,
  requestServers,
  type ServerCreationRefusal,
} from './server-creation.ts'

export type ServerRequestRefusal =
  | 'SERVER_UNKNOWN'
  | ServerRefusal
  | ServerCreationRefusal
  | 'VOLUME_NOT_ATTACHED'

const about = (server: ServerRow) => ({
  project: server.project,
  resourceType: SERVER_RESOURCE,
  resourceId: server.id,
  entities: { server_id: server.id, name: server.name },
})

// ---------------------------------------------------------------- deletion

/**
 * All or none. One that is being deleted already is not deleted twice. A creation under way gives up. `deleteVolumes`: also disks
 * that were not marked to go with the server. The operation has a sub-operation for each server.
 */
export async function requestServerDeletion(
  services: RequestServices,
  project: string,
  ids: readonly string[],
  { deleteVolumes }: { readonly deleteVolumes: boolean },
): Promise<Outcome<{ readonly operation: string }, ServerRequestRefusal>> {
  const { store, operations, clock } = services
  return await store.write(
    async (tx): Promise<Outcome<{ readonly operation: string }, ServerRequestRefusal>> => {
      const going: ServerRow[] = []
      for (const id of new Set(ids)) {
        const server = await findServer(tx, project, id)
        if (server === undefined) return refused('SERVER_UNKNOWN')
        const decision = decideServer(await serverFacts(tx, server), { kind: 'delete' })
        if (!decision.ok) return decision
        if (!decision.already) going.push(server)
      }
      const operation = await operations.submit(tx, deleteServers, {
        project,
        resourceType: SERVER_BATCH,
        resourceId: newId(),
        input: {},
      })
      for (const server of going) {
        await updateServer(tx, server.id, { task: 'deleting' }, clock.wallMs())
        const request = { ...about(server), parent: operation, input: { deleteVolumes } }
        await operations.submit(tx, deleteServer, request)
      }
      return { ok: true, operation }
    },
  )
}

/** Operations of a kind on these servers that have not ended. */
async function underWay(
  tx: Transaction,
  kind: string,
  servers: readonly string[],
): Promise<string[]> {
  if (servers.length === 0) return []
  const rows = await tx
    .selectFrom('operations')
    .select('id')
    .where('resource_type', '=', SERVER_RESOURCE)
    .where('resource_id', 'in', [...servers])
    .where('kind', '=', kind)
    .where('status', 'in', ['pending', 'running'])
    .execute()
  return rows.map(({ id }) => id)
}

// ---------------------------------------------------------------- power

export interface PowerRequest {
  readonly kind: 'start' | 'stop' | 'reboot'
  /** Without asking the guest. No meaning for a start. */
  readonly hard: boolean
  /** True: an operation that ends at once when it is so already, for callers that need one. Default false. */
  readonly always?: boolean
}

/** `operation` null: it is so already. */
export async function requestPower(
  services: RequestServices,
  project: string,
  id: string,
  power: PowerRequest,
): Promise<Outcome<{ readonly operation: string | null }, ServerRequestRefusal>> {
  return await services.store.write(async (tx) => {
    const decision = await decidePower(tx, project, id, power)
    return decision.ok ? await submitPower(tx, services, decision, power) : decision
  })
}

/** All or none, as one operation with a sub-operation for each server; one that is so already is done at once. */
export async function requestPowers(
  services: RequestServices,
  project: string,
  ids: readonly string[],
  power: Omit<PowerRequest, 'always'>,
): Promise<Outcome<{ readonly operation: string }, ServerRequestRefusal>> {
  return await services.store.write(async (tx) => {
    const decisions: PowerDecision[] = []
    for (const id of new Set(ids)) {
      const decision = await decidePower(tx, project, id, power)
      if (!decision.ok) return decision
      decisions.push(decision)
    }
    const parent = await services.operations.submit(tx, powerServers, {
      project,
      resourceType: SERVER_BATCH,
      resourceId: newId(),
      input: {},
    })
    for (const decision of decisions) {
      await submitPower(tx, services, decision, { ...power, always: true }, parent)
    }
    return { ok: true, operation: parent }
  })
}

interface PowerDecision {
  readonly server: ServerRow
  readonly already: boolean
  readonly status: ServerRow['status']
  readonly task: ServerRow['task']
}

async function decidePower(
  tx: Transaction,
  project: string,
  id: string,
  { kind, hard }: PowerRequest,
): Promise<Outcome<PowerDecision, ServerRequestRefusal>> {
  const server = await findServer(tx, project, id)
  if (server === undefined) return refused('SERVER_UNKNOWN')
  const facts = await serverFacts(tx, server)
  const decision = decideServer(facts, kind === 'reboot' ? { kind, hard } : { kind })
  return decision.ok ? { ...decision, server } : decision
}

async function submitPower(
  tx: Transaction,
  { operations, clock }: RequestServices,
  { server, already, status, task }: PowerDecision,
  { kind, hard, always = false }: PowerRequest,
  parent?: string,
): Promise<{ readonly ok: true; readonly operation: string | null }> {
  if (already && !always) return { ok: true, operation: null }
  if (!already) await updateServer(tx, server.id, { status, task }, clock.wallMs())
  const of = { ...about(server), ...(parent === undefined ? {} : { parent }) }
  const submitted = async (operation: Promise<string>) =>
    ({ ok: true, operation: await operation }) as const
  switch (kind) {
    case 'start':
      return await submitted(operations.submit(tx, startServer, { ...of, input: { already } }))
    case 'stop':
      return await submitted(operations.submit(tx, stopServer, { ...of, input: { already, hard } }))
    case 'reboot':
      return await submitted(operations.submit(tx, rebootServer, { ...of, input: { hard } }))
  }
}

// ---------------------------------------------------------------- disks

export interface AttachmentRequest {
  readonly volume: string
  /** Null: the next free one. */
  readonly device: string | null
  readonly deleteWithServer: boolean
}

/** The disk's row exists from now on, in state `attaching` until the guest has it. */
export async function requestAttachment(
  services: RequestServices,
  project: string,
  id: string,
  attachment: AttachmentRequest,
): Promise<Outcome<{ readonly operation: string; readonly device: string }, ServerRequestRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const server = await findServer(tx, project, id)
    if (server === undefined) return refused('SERVER_UNKNOWN')
    const volume = await findVolume(tx, project, attachment.volume)
    if (volume === undefined) return refused('VOLUME_UNKNOWN')
    const decision = decideServer(await serverFacts(tx, server), { kind: 'attach' })
    if (!decision.ok) return decision
    const refusal = await attachable(tx, server, volume)
    if (refusal !== null) return refused(refusal)
    const named = chooseDevice((await disksOf(tx, [id])).get(id) ?? [], attachment.device)
    if (!named.ok) return named
    const { device } = named
    await putDiskIn(
      tx,
      {
        server,
        volume,
        device,
        bootIndex: device === ROOT_DEVICE ? 0 : null,
        deleteWithServer: attachment.deleteWithServer,
        state: 'attaching',
      },
      clock.wallMs(),
    )
    await raiseGeneration(tx, id)
    const operation = await operations.submit(tx, attachDisk, {
      ...about(server),
      input: { volume: volume.id },
      entities: { server_id: id, volume_id: volume.id, device },
    })
    return { ok: true, operation, device }
  })
}

function chooseDevice(
  disks: readonly ServerDiskRow[],
  wanted: string | null,
): Outcome<{ readonly device: string }, 'TOO_MANY_DISKS' | 'DEVICE_INVALID' | 'DEVICE_TAKEN'> {
  if (disks.length >= DISKS_MAX) return refused('TOO_MANY_DISKS')
  const taken = new Set(disks.map((disk) => disk.device))
  if (wanted === null || wanted === '') {
    const device = nextDevice(taken)
    return device === null ? refused('DEVICE_TAKEN') : { ok: true, device }
  }
  const device = normaliseDevice(wanted)
  if (device === null) return refused('DEVICE_INVALID')
  return taken.has(device) ? refused('DEVICE_TAKEN') : { ok: true, device }
}

/** The disk's row is in state `detaching` until the guest has released it, and gone then. The same again is the same operation. */
export async function requestDetachment(
  services: RequestServices,
  project: string,
  id: string,
  { volume: volumeId }: { readonly volume: string },
): Promise<Outcome<{ readonly operation: string }, ServerRequestRefusal>> {
  const { store, operations, clock } = services
  return await store.write(async (tx) => {
    const server = await findServer(tx, project, id)
    if (server === undefined) return refused('SERVER_UNKNOWN')
    const disks = (await disksOf(tx, [id])).get(id) ?? []
    const disk = disks.find((one) => one.volume === volumeId)
    const volume = await findVolume(tx, project, volumeId)
    if (disk === undefined || volume === undefined) return refused('VOLUME_NOT_ATTACHED')
    if (disk.state === 'detaching') {
      const operation = await detachmentOf(tx, id, volumeId)
      return operation === null ? refused('VOLUME_NOT_ATTACHED') : { ok: true, operation }
    }
    const decision = decideServer(await serverFacts(tx, server), {
      kind: 'detach',
      root: disk.boot_index === 0,
      replicated: server.instance !== null && volume.pair !== null,
    })
    if (!decision.ok) return decision
    if (disk.state === 'attaching') return refused('SERVER_BUSY')
    if (volume.status !== 'in-use') return refused('VOLUME_NOT_AVAILABLE')
    await setDiskState(tx, id, volumeId, 'detaching', clock.wallMs())
    await raiseGeneration(tx, id)
    const operation = await operations.submit(tx, detachDisk, {
      ...about(server),
      input: { volume: volumeId },
      entities: { server_id: id, volume_id: volumeId, device: disk.device },
    })
    return { ok: true, operation }
  })
}

async function detachmentOf(
  tx: Transaction,
  server: string,
  volume: string,
): Promise<string | null> {
  for (const id of await underWay(tx, detachDisk.name, [server])) {
    const { input } = await tx
      .selectFrom('operations')
      .select('input')
      .where('id', '=', id)
      .executeTakeFirstOrThrow()
    if (fromJson<{ volume: string }>(input).volume === volume) return id
  }
  return null
}

// ---------------------------------------------------------------- others

export interface ServerChange {
  readonly name?: string
  readonly description?: string | null
  /** Null removes a key; keys that are not named stay. */
  readonly metadata?: Readonly<Record<string, string | null>>
  readonly autoRecovery?: boolean
}

/** Done at once. A new name reaches the guest when its site is heard next. */
export async function changeServer(
  services: RequestServices,
  project: string,
  id: string,
  { name, description, metadata, autoRecovery }: ServerChange,
): Promise<Outcome<{ readonly server: ServerRow }, ServerRequestRefusal>> {
  return await services.store.write(async (tx) => {
    const before = await findServer(tx, project, id)
    if (before === undefined) return refused('SERVER_UNKNOWN')
    const decision = decideServer(await serverFacts(tx, before), { kind: 'change' })
    if (!decision.ok) return decision
    await updateServer(
      tx,
      id,
      {
        ...(name === undefined ? {} : { name }),
        ...(description === undefined ? {} : { description }),
        ...(autoRecovery === undefined ? {} : { auto_recovery: bit(autoRecovery) }),
        ...(metadata === undefined
          ? {}
          : { metadata: toJson(merged(serverMetadataOf(before), metadata)) }),
      },
      services.clock.wallMs(),
    )
    if (name !== undefined && name !== before.name) await raiseGeneration(tx, id)
    const server = await findServer(tx, project, id)
    return server === undefined ? refused('SERVER_UNKNOWN') : { ok: true, server }
  })
}

function merged(
  before: Readonly<Record<string, string>>,
  change: Readonly<Record<string, string | null>>,
): Record<string, string> {
  const all = Object.entries({ ...before, ...change })
  return Object.fromEntries(all.filter((entry): entry is [string, string] => entry[1] !== null))
}
