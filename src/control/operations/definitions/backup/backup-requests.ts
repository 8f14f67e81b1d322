import { assert } from '#base/assert.ts'
import { newId } from '#base/ids.ts'
import { findPlan, planResources } from '#control/resources/backup-plans.ts'
import {
  findCheckpoint,
  findItem,
  insertCheckpoint,
  itemFacts,
  itemsOf,
  SERVER_TYPE,
  updateItem,
} from '#control/resources/checkpoints.ts'
import { findServer, serverFacts } from '#control/resources/servers.ts'
import { setTags, tagsOf } from '#control/resources/tags.ts'
import { fromJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { CheckpointItemRow, CheckpointRow } from '#control/store/tables/checkpoints.ts'
import { decideItem, type ItemRefusal } from '#domain/checkpoint.ts'
import { type Tag, TAGS_MAX } from '#domain/tag.ts'
import { POLICY_RUN_RESOURCE, type RunPolicy, runPolicy } from './backup.ts'
import {
  type BackupServices,
  checkpointRow,
  nameOperation,
  newItem,
  roomFor,
  sizeMbOf,
  submitBackup,
  tagged,
} from './backup-rows.ts'
import { serverDisks } from './backup-source.ts'
import { runningServer } from './backup-target.ts'
import { DELETION_RESOURCE, deleteItem, laneOf } from './checkpoint-deletion.ts'
import { type Outcome, refused } from '../requests.ts'

/* What is checked before servers are backed up and backups deleted, in the transaction that submits the operations. */

export type BackupRefusal =
  | 'SERVER_UNKNOWN'
  /** Not running and not off, or something is being done to it, or it stands by for another. */
  | 'SERVER_STATE'
  | 'SERVER_WITHOUT_DISKS'
  | 'BACKUPS_FULL'
  | 'TAGS_FULL'

/** Why a server cannot be backed up now; null: it can. */
export async function backupRefusal(
  db: Queries | Transaction,
  project: string,
  serverId: string,
): Promise<'SERVER_UNKNOWN' | 'SERVER_STATE' | 'SERVER_WITHOUT_DISKS' | null> {
  const named = await findServer(db, project, serverId)
  if (named === undefined) return 'SERVER_UNKNOWN'
  const server = await runningServer(db, named)
  const facts = await serverFacts(db, server)
  const going = facts.status === 'building' || facts.task === 'deleting'
  if (going || !facts.production) return 'SERVER_STATE'
  return (await serverDisks(db, server.id)).length === 0 ? 'SERVER_WITHOUT_DISKS' : null
}

export interface NewBackup {
  readonly project: string
  readonly server: string
  readonly provider: string
  /** null: one is made up. */
  readonly name: string | null
  readonly description: string | null
  readonly incremental: boolean
  readonly tags: readonly Tag[]
  readonly extraInfo: unknown
}

export interface AcceptedRun {
  readonly checkpoint: CheckpointRow
  readonly operation: string
}

/** One server, without a policy. */
export async function requestBackup(
  services: BackupServices,
  request: NewBackup,
): Promise<Outcome<AcceptedRun, BackupRefusal>> {
  const { store, clock } = services
  const { project } = request
  if (request.tags.length > TAGS_MAX) return refused('TAGS_FULL')
  return await store.write(async (tx) => {
    const refusal = await backupRefusal(tx, project, request.server)
    if (refusal !== null) return refused(refusal)
    const sizeMb = await sizeMbOf(tx, [request.server])
    if (!(await roomFor(tx, project, { backups: 1, sizeMb }))) return refused('BACKUPS_FULL')
    const now = clock.wallMs()
    const plan = {
      id: `fake_${newId()}`,
      name: `server protect plan for ${request.server}`,
      provider_id: request.provider,
      resources: [
        {
          id: request.server,
          type: SERVER_TYPE,
          name: `resource_${request.server}`,
          extra_info: request.extraInfo,
        },
      ],
    }
    const checkpoint = checkpointRow(
      { project, provider: request.provider, plan, planId: null },
      now,
    )
    await insertCheckpoint(tx, checkpoint)
    const made = await newItem(tx, checkpoint, request.server, { ...request, policy: null }, now)
    assert(made !== null, 'a server that can be backed up exists')
    await setTags(tx, tagged(made), request.tags)
    const operation = await submitBackup(tx, services, made, request.incremental)
    await nameOperation(tx, made.id, operation)
    return { ok: true, checkpoint, operation }
  })
}

// ---------------------------------------------------------------- runs of a policy

export interface NewRun {
  readonly project: string
  readonly plan: string
  readonly provider: string
  /** Some of the plan's servers; empty: all. */
  readonly servers: readonly string[]
  readonly scheduled: boolean
  readonly extraInfo: Readonly<Record<string, unknown>>
}

export type RunRefusal =
  | 'POLICY_UNKNOWN'
  /** The provider is not the policy's. */
  | 'PROVIDER_OTHER'
  | 'SERVER_NOT_OF_POLICY'
  | 'MANUAL_RUN_ACTIVE'
  | 'SCHEDULED_RUN_ACTIVE'
  /** None of its servers can be backed up. */
  | 'NO_SERVER'
  | 'BACKUPS_FULL'

export async function requestRun(
  services: BackupServices,
  request: NewRun,
): Promise<Outcome<AcceptedRun, RunRefusal>> {
  return await services.store.write((tx) => beginRun(tx, services, request))
}

/** Servers that cannot be backed up just now get an item that says so, as long as there is one that can. */
export async function beginRun(
  tx: Transaction,
  services: BackupServices,
  request: NewRun,
): Promise<Outcome<AcceptedRun, RunRefusal>> {
  const { project } = request
  const plan = await findPlan(tx, project, request.plan)
  if (plan === undefined) return refused('POLICY_UNKNOWN')
  if (plan.provider !== request.provider) return refused('PROVIDER_OTHER')
  const running = await runOf(tx, plan.id)
  if (running !== 'nobody') {
    return refused(running === 'manual' ? 'MANUAL_RUN_ACTIVE' : 'SCHEDULED_RUN_ACTIVE')
  }
  const resources = await planResources(tx, plan.id)
  const known = new Set(resources.map(({ resource }) => resource))
  if (request.servers.some((id) => !known.has(id))) return refused('SERVER_NOT_OF_POLICY')
  const wanted = request.servers.length === 0 ? [...known] : [...new Set(request.servers)]
  const refusals = new Map<string, string | null>()
  for (const id of wanted) refusals.set(id, await backupRefusal(tx, project, id))
  const able = wanted.filter((id) => refusals.get(id) === null)
  if (able.length === 0) return refused('NO_SERVER')
  const more = { backups: able.length, sizeMb: await sizeMbOf(tx, able) }
  if (!(await roomFor(tx, project, more))) return refused('BACKUPS_FULL')

  const now = services.clock.wallMs()
  const snapshot = {
    id: plan.id,
    name: plan.name,
    provider_id: plan.provider,
    resources: resources
      .filter(({ resource }) => wanted.includes(resource))
      .map(({ resource, type, name, extra_info }) => ({ id: resource, type, name, extra_info })),
  }
  const checkpoint = checkpointRow(
    {
      project,
      provider: plan.provider,
      plan: snapshot,
      planId: plan.id,
      scheduled: request.scheduled,
      extraInfo: request.extraInfo,
    },
    now,
  )
  await insertCheckpoint(tx, checkpoint)
  const operation = await services.operations.submit<RunPolicy>(tx, runPolicy, {
    project,
    resourceType: POLICY_RUN_RESOURCE,
    resourceId: plan.id,
    input: { checkpoint: checkpoint.id, scheduled: request.scheduled },
    entities: { checkpoint_id: checkpoint.id },
  })
  const tags = await tagsOf(tx, 'backup_policy', plan.id)
  for (const server of wanted) {
    const details = { name: null, description: null, policy: plan, scheduled: request.scheduled }
    const item = await newItem(tx, checkpoint, server, details, now)
    if (item === null) continue
    await setTags(tx, tagged(item), tags)
    const refusal = refusals.get(server) ?? null
    if (refusal === null) {
      const own = await submitBackup(tx, services, item, true, { parent: operation })
      await nameOperation(tx, item.id, own)
    } else {
      const reason = 'The server could not be backed up when the policy ran.'
      const failure = { fail_op: 'backup', fail_code: refusal, fail_reason: reason }
      await updateItem(tx, item.id, { ...failure, status: 'error', finished_at: now }, now)
    }
  }
  return { ok: true, checkpoint, operation }
}

/** Who is at work under a policy just now. */
export async function runOf(
  db: Queries | Transaction,
  plan: string,
): Promise<'nobody' | 'manual' | 'scheduled'> {
  const rows = await db
    .selectFrom('operations')
    .select('input')
    .where('resource_type', '=', POLICY_RUN_RESOURCE)
    .where('resource_id', '=', plan)
    .where('kind', '=', runPolicy.name)
    .where('status', 'in', ['pending', 'running'])
    .execute()
  const runs = rows.map(({ input }) => fromJson<RunPolicy>(input))
  if (runs.length === 0) return 'nobody'
  return runs.some(({ scheduled }) => !scheduled) ? 'manual' : 'scheduled'
}

// ---------------------------------------------------------------- deletion

export type DeletionRefusal = 'CHECKPOINT_UNKNOWN' | 'ITEM_UNKNOWN' | ItemRefusal

/** All or none. `items` empty: every backup of the checkpoint. */
export async function requestDeletion(
  services: BackupServices,
  project: string,
  checkpointId: string,
  items: readonly string[],
): Promise<Outcome<{ readonly operations: readonly string[] }, DeletionRefusal>> {
  const { store, operations, clock } = services
  return await store.write(
    async (tx): Promise<Outcome<{ readonly operations: readonly string[] }, DeletionRefusal>> => {
      const checkpoint = await findCheckpoint(tx, project, checkpointId)
      if (checkpoint === undefined) return refused('CHECKPOINT_UNKNOWN')
      const all = await itemsOf(tx, checkpoint.id)
      const wanted = items.length === 0 ? all : all.filter(({ id }) => items.includes(id))
      if (wanted.length === 0 || items.some((id) => all.every((one) => one.id !== id))) {
        return refused('ITEM_UNKNOWN')
      }
      for (const item of wanted) {
        const decision = decideItem(itemFacts(item), 'delete')
        if (!decision.ok) return decision
      }
      const submitted: string[] = []
      for (const item of wanted) {
        await updateItem(tx, item.id, { status: 'waiting_delete' }, clock.wallMs())
        const operation = await operations.submit(tx, deleteItem, {
          project,
          resourceType: DELETION_RESOURCE,
          resourceId: laneOf(project, item.id),
          input: { item: item.id },
          entities: { checkpoint_id: checkpoint.id, checkpoint_item_id: item.id },
        })
        submitted.push(operation)
      }
      return { ok: true, operations: submitted }
    },
  )
}

/** An item by its own id, or by that of a checkpoint which holds just this one: one client confuses the two. */
export async function findItemOrOnly(
  db: Queries,
  project: string,
  id: string,
): Promise<CheckpointItemRow | undefined> {
  const item = await findItem(db, project, id)
  if (item !== undefined) return item
  const [only, ...others] = await itemsOf(db, id)
  return only?.project === project && others.length === 0 ? only : undefined
}
