import { Fault, isFault } from '#base/fault.ts'
import {
  attachedPairs,
  deleteInstanceRow,
  drServer,
  moveInstance,
  ownPairs,
  pairAttachments,
  productionServer,
  readInstance,
  updateInstance,
} from '#control/resources/instances.ts'
import { groupStatus, pairsOfGroup, updatePair, volumeAt } from '#control/resources/groups.ts'
import { deletePort } from '#control/resources/networks.ts'
import {
  disksOf,
  readServer,
  SERVER_RESOURCE,
  setDiskState,
  takeDiskOut,
  updateServer,
} from '#control/resources/servers.ts'
import { deleteAllTags } from '#control/resources/tags.ts'
import { moveVolume, readVolume } from '#control/resources/volumes.ts'
import { SITE_REFUSED } from '#control/sites/client.ts'
import { toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import type { ProtectedInstanceRow } from '#control/store/tables/servers.ts'
import { restingInstanceStatus } from '#domain/protected-instance.ts'
import type { Station } from '#domain/protection-group.ts'
import { childrenStep, operation, step, type StepContext } from '../../operation.ts'
import { forgetStops, wearSpare } from './instance-identity.ts'
import { type CreatePair, createPair, deletePair, PAIR_RESOURCE } from '../protection/pairs.ts'
import { deleteServer } from '../servers/server-deletion.ts'
import { defineServer, raiseGeneration } from '../servers/server-definition.ts'
import { faultText } from '../servers/servers.ts'
import { GROUP_MOVED_ON, theGroup, unlessSilent } from '../protection/session.ts'

/* The beginning and the end of protected instances. Their disks and NICs are in files of their own.
 *
 *   create   the pairs, each an operation of its own → the server of the DR site is defined → settled
 *   delete   disks that stay replicated leave the server of the DR site → pairs that were made with the instance, each an
 *            operation of its own → both servers are plain ones again, or the one of the DR site goes
 *
 * Every row exists since the request was accepted. A group may fail over meanwhile, for it must not queue behind a site that is
 * dead. A creation that finds it switched gives up: its NICs and disks did not come along.
 */

export const INSTANCE_RESOURCE = 'protected-instance'
/** Parents of operations on several instances queue behind nothing. */
export const INSTANCE_BATCH = 'protected-instance-batch'

type Db = Queries | Transaction

/** What jobs show of an instance. Text only: typed clients decode it as a map of strings. */
export const instanceEntities = (instance: ProtectedInstanceRow) => ({
  server_group_id: instance.group_id,
  protected_instance_id: instance.id,
  name: instance.name,
})

/** The instance of an operation and its group. Undefined: it is gone. */
export async function theInstance(
  db: Db,
  id: string,
): Promise<{ readonly instance: ProtectedInstanceRow; readonly group: ProtectionGroupRow }> {
  const instance = await readInstance(db, id)
  if (instance === undefined) throw new Fault(GROUP_MOVED_ON, `working on instance ${id}`)
  return { instance, group: await theGroup(db, instance.group_id) }
}

/** The state of an instance whose own operation has ended, well or without harm. */
export async function restInstance(
  tx: Transaction,
  ctx: StepContext<unknown>,
  id: string,
): Promise<void> {
  const { group } = await theInstance(tx, id)
  const resting = restingInstanceStatus(groupStatus(group))
  await moveInstance(tx, id, resting, ctx.services.clock.wallMs())
}

// ---------------------------------------------------------------- create

export interface CreateInstance {
  /** Pairs that are made with it, and the inputs and entities of their operations. */
  readonly pairs: readonly {
    readonly id: string
    readonly creation: CreatePair
    readonly entities: Readonly<Record<string, string>>
  }[]
  /** Who was production when it was asked for. */
  readonly station: Station
  /** The server at the DR site. */
  readonly drServer: string
}

export const createInstance = operation<CreateInstance>('instance.create', {
  version: 1,
  steps: [
    childrenStep('pairs', {
      weight: 5,
      submit: async (_, ctx, submit) => {
        for (const { id, creation, entities } of ctx.input.pairs) {
          await submit(createPair, {
            project: ctx.project,
            resourceType: PAIR_RESOURCE,
            resourceId: id,
            input: creation,
            entities,
          })
        }
      },
    }),
    step('define', {
      act: (ctx) => defineServer(ctx.services, ctx.input.drServer, { signal: ctx.signal }),
    }),
    step('settle', {
      record: async (tx, ctx) => {
        const now = ctx.services.clock.wallMs()
        const { group } = await theInstance(tx, ctx.resourceId)
        if (group.station !== ctx.input.station) {
          throw new Fault(GROUP_MOVED_ON, `creating instance ${ctx.resourceId}`)
        }
        const { drServer: server } = ctx.input
        for (const { volume } of (await disksOf(tx, [server])).get(server) ?? []) {
          await setDiskState(tx, server, volume, 'attached', now)
        }
        await updateServer(tx, server, { status: 'stopped', task: null }, now)
        await restInstance(tx, ctx, ctx.resourceId)
      },
    }),
  ],
  // What was made stays and goes with the instance when that is deleted.
  failed: async (tx, ctx, failure) => {
    const now = ctx.services.clock.wallMs()
    const instance = await readInstance(tx, ctx.resourceId)
    if (instance?.status !== 'creating') return
    const { drServer: server } = ctx.input
    const row = await readServer(tx, server)
    if (row !== undefined) {
      for (const { volume } of (await disksOf(tx, [server])).get(server) ?? []) {
        const disk = await readVolume(tx, volume)
        if (disk?.status === 'creating') await moveVolume(tx, volume, 'error', now)
        await setDiskState(tx, server, volume, 'attached', now)
      }
      const fault = faultText(ctx, failure, false)
      await updateServer(tx, server, { status: 'error', task: null, fault }, now)
    }
    await updateInstance(tx, instance.id, { failure_detail: failure.code }, now)
    await moveInstance(tx, instance.id, 'error', now)
  },
})

/** Waits for creations that were submitted together with it. */
export const createInstances = operation<Record<string, never>>('instance.create-many', {
  version: 1,
  steps: [childrenStep('instances', { submit: async () => {} })],
  failed: async () => {},
})

// ---------------------------------------------------------------- delete

export interface DeleteInstance {
  /** The server at the DR site and its disks go, too. The group's source site is production then. */
  readonly deleteTargetServer: boolean
}

export const deleteInstance = operation<DeleteInstance>('instance.delete', {
  version: 1,
  steps: [
    step('let_go', { record: (tx, ctx) => letGo(tx, ctx) }),
    childrenStep('pairs', {
      weight: 5,
      submit: async (tx, ctx, submit) => {
        const { group } = await theInstance(tx, ctx.resourceId)
        for (const { pair } of ownPairs(await pairsOfGroup(tx, group.id), ctx.resourceId)) {
          await submit(deletePair, {
            project: ctx.project,
            resourceType: PAIR_RESOURCE,
            resourceId: pair.id,
            input: { group: group.id, deleteTargetVolume: ctx.input.deleteTargetServer },
            entities: {
              server_group_id: group.id,
              replication_pair_id: pair.id,
              volume_ids: `${pair.source_volume},${pair.target_volume}`,
              name: pair.name,
            },
          })
        }
      },
    }),
    childrenStep('server', {
      submit: async (tx, ctx, submit) => {
        if (!ctx.input.deleteTargetServer) return
        const { instance, group } = await theInstance(tx, ctx.resourceId)
        const id = drServer(group, instance)
        const server = await readServer(tx, id)
        // After a failover in the meantime it is the one that is left.
        if (server === undefined || id !== instance.target_server) return
        const now = ctx.services.clock.wallMs()
        await updateServer(tx, id, { task: 'deleting', instance: null }, now)
        await submit(deleteServer, {
          project: server.project,
          resourceType: SERVER_RESOURCE,
          resourceId: id,
          input: { deleteVolumes: false },
          entities: { server_id: id },
        })
      },
    }),
    step('define', {
      act: async (ctx) => {
        const { instance, group } = await theInstance(ctx.services.store.db, ctx.resourceId)
        const id = drServer(group, instance)
        const server = await readServer(ctx.services.store.db, id)
        if (server === undefined) return
        try {
          await unlessSilent(ctx, server.az, () =>
            defineServer(ctx.services, id, { signal: ctx.signal }),
          )
        } catch (error) {
          // One whose creation failed half way may name disks that were never made.
          if (!isFault(error, SITE_REFUSED)) throw error
          ctx.services.log.warn({ err: error, server: id }, 'the DR server was not defined')
        }
      },
    }),
    step('forget', { record: (tx, ctx) => forget(tx, ctx) }),
  ],
  failed: async (tx, ctx) => {
    const instance = await readInstance(tx, ctx.resourceId)
    if (instance?.status === 'deleting') {
      await moveInstance(tx, instance.id, 'error-deleting', ctx.services.clock.wallMs())
    }
  },
})

/** Waits for deletions that were submitted together with it. */
export const deleteInstances = operation<Record<string, never>>('instance.delete-many', {
  version: 1,
  steps: [childrenStep('instances', { submit: async () => {} })],
  failed: async () => {},
})

/**
 * Disks that stay replicated without the instance leave the server of the DR site, which could not write them. The production
 * server keeps its disks: they may be in use.
 */
async function letGo(tx: Transaction, ctx: StepContext<DeleteInstance>): Promise<void> {
  const now = ctx.services.clock.wallMs()
  const { instance, group } = await theInstance(tx, ctx.resourceId)
  const pairs = await pairsOfGroup(tx, group.id)
  const own = new Set(ownPairs(pairs, instance.id).map(({ pair }) => pair.id))
  const other = drServer(group, instance)
  const server = await readServer(tx, other)
  for (const { pair } of attachedPairs(pairs, instance.id)) {
    const goes = own.has(pair.id)
    if (server !== undefined && (!goes || ctx.input.deleteTargetServer)) {
      await takeDiskOut(tx, other, volumeAt(group, pair, server.az), now)
    }
    if (goes) continue
    const left = pairAttachments(pair).filter((one) => one.instance !== instance.id)
    await updatePair(tx, pair.id, { attachments: toJson(left) }, now)
  }
  await raiseGeneration(tx, other)
}

async function forget(tx: Transaction, ctx: StepContext<DeleteInstance>): Promise<void> {
  const now = ctx.services.clock.wallMs()
  const { instance, group } = await theInstance(tx, ctx.resourceId)
  for (const id of [instance.source_server, instance.target_server]) {
    if ((await readServer(tx, id)) !== undefined) {
      await updateServer(tx, id, { instance: null }, now)
    }
  }
  const server = drServer(group, instance)
  if ((await readServer(tx, server)) !== undefined) await wearSpare(tx, group, instance)
  else if (instance.spare_port !== null) await deletePort(tx, instance.spare_port)
  // Both are plain servers now, and may run.
  await forgetStops(tx, [productionServer(group, instance), server])
  await deleteAllTags(tx, 'instance', instance.id)
  await deleteInstanceRow(tx, instance.id)
}
