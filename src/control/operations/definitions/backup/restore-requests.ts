import { newId } from '#base/ids.ts'
import {
  diskBackupsOf,
  findCheckpoint,
  findItem,
  itemFacts,
  itemsOf,
  SERVER_TYPE,
  updateItem,
} from '#control/resources/checkpoints.ts'
import { readOwnership } from '#control/resources/sync.ts'
import { insertRestore } from '#control/resources/restores.ts'
import { findServer, serverFacts } from '#control/resources/servers.ts'
import { toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type {
  CheckpointItemRow,
  DiskBackupRow,
  RestoreRow,
} from '#control/store/tables/checkpoints.ts'
import {
  decideItem,
  type ItemRefusal,
  type MappingRefusal,
  mappingRefusal,
} from '#domain/checkpoint.ts'
import { SERVER_BACKUP_RESOURCE } from './backup.ts'
import type { BackupServices } from './backup-rows.ts'
import { serverDisks } from './backup-source.ts'
import { type DiskNow, isSameServer, runningServer } from './backup-target.ts'
import { type Outcome, refused } from '../requests.ts'
import { type RestoreItem, restoreItem } from './restore.ts'

/* What is checked before a backup is written back, in the transaction that submits the operation. */

export type RestoreRefusal =
  | 'CHECKPOINT_UNKNOWN'
  | 'ITEM_UNKNOWN'
  | ItemRefusal
  | MappingRefusal
  | 'TARGET_UNKNOWN'
  /** Something is being done to the server, or its disks are written at another site just now. */
  | 'TARGET_STATE'
  /** The backup is of a server of another site, and the target is not what runs in that one's place. */
  | 'TARGET_ZONE'

export interface Mapping {
  readonly backup: string
  readonly volume: string
}

export interface RestoreTarget {
  readonly project: string
  readonly item: string
  readonly server: string
  /** null: every disk to where it came from. */
  readonly mapping: readonly Mapping[] | null
  /** True: some of the disks are enough. Default false. */
  readonly part?: boolean
}

interface Checked {
  readonly item: CheckpointItemRow
  /** Whose disks are written: after a switch, what runs in the place of the one that was named. */
  readonly server: string
  readonly disks: RestoreItem['disks']
}

/**
 * Whether a backup can be written to a server now. A server that was protected, and its disks, stand for what runs in their place: whoever restores by
 * what a backup says of itself need not know of the switch. Changes nothing.
 */
export async function checkRestore(
  db: Queries | Transaction,
  { project, item: id, server: serverId, mapping, part = false }: RestoreTarget,
): Promise<Outcome<Checked, RestoreRefusal>> {
  const item = await findItem(db, project, id)
  if (item === undefined) return refused('ITEM_UNKNOWN')
  const decision = decideItem(itemFacts(item), 'restore')
  if (!decision.ok) return decision
  const named = await findServer(db, project, serverId)
  if (named === undefined) return refused('TARGET_UNKNOWN')
  const server = await runningServer(db, named)
  const facts = await serverFacts(db, server)
  const settled =
    facts.status === 'active' || facts.status === 'stopped' || facts.status === 'error'
  if (facts.task !== null || !settled || !facts.production) return refused('TARGET_STATE')
  const here = item.replica === 1 || item.resource_az === server.az
  if (!here && !(await isSameServer(db, server, item.resource))) return refused('TARGET_ZONE')
  const backups = (await diskBackupsOf(db, [id])).get(id) ?? []
  const disks = await serverDisks(db, server.id)
  const pairs = mapping === null ? originsOf(backups, disks) : writable(mapping, disks)
  const refusal = mappingRefusal(
    backups.map((one) => ({ backup: one.id, system: one.system === 1, sizeGb: one.size_gb })),
    disks,
    pairs,
    part,
  )
  if (refusal !== null) return refused(refusal)
  const groups = disks.flatMap(({ group }) => (group === null ? [] : [group]))
  const records = await readOwnership(db, groups)
  if (groups.some((group) => records.get(group)?.writer !== server.az)) {
    return refused('TARGET_STATE')
  }
  return { ok: true, item, server: server.id, disks: namesOf(backups, pairs) }
}

/** The same disks where they are written now. One that the server has is that one. */
const writable = (mapping: readonly Mapping[], disks: readonly DiskNow[]): Mapping[] =>
  mapping.map(({ backup, volume }) => {
    const here = disks.find((disk) => disk.volume === volume || disk.kept === volume)
    return { backup, volume: here?.volume ?? volume }
  })

/** The disks that a server has of those that are in a backup; after a switch they are their counterparts at the other site. */
export const originsOf = (backups: readonly DiskBackupRow[], disks: readonly DiskNow[]) =>
  backups.map(({ id, volume }) => ({
    backup: id,
    volume: disks.find((disk) => disk.kept === volume)?.volume ?? volume,
  }))

export function namesOf(
  backups: readonly DiskBackupRow[],
  pairs: readonly Mapping[],
): RestoreItem['disks'] {
  const byId = new Map(backups.map((one) => [one.id, one.volume]))
  return pairs.map(({ backup, volume }) => ({ name: byId.get(backup) ?? '', volume }))
}

export interface NewRestore {
  readonly project: string
  readonly provider: string
  readonly checkpoint: string
  /** null: every item of the checkpoint to the server that it came from. */
  readonly target:
    | (Pick<RestoreTarget, 'item' | 'server' | 'mapping'> & { readonly powerOn: boolean })
    | null
  /** As given, for whoever asks later. */
  readonly parameters: unknown
  readonly restoreTarget: string | null
}

export async function requestRestore(
  services: BackupServices,
  request: NewRestore,
): Promise<Outcome<{ readonly restore: RestoreRow }, RestoreRefusal>> {
  const { store, operations, clock } = services
  const { project, target } = request
  return await store.write(
    async (tx): Promise<Outcome<{ readonly restore: RestoreRow }, RestoreRefusal>> => {
      const checkpoint = await findCheckpoint(tx, project, request.checkpoint)
      if (checkpoint === undefined) return refused('CHECKPOINT_UNKNOWN')
      const items = await itemsOf(tx, checkpoint.id)
      if (target !== null && items.every(({ id }) => id !== target.item)) {
        return refused('ITEM_UNKNOWN')
      }
      const targets =
        target === null
          ? items.map(({ id, resource }) => ({
              item: id,
              server: resource,
              mapping: null,
              powerOn: true,
            }))
          : [target]
      const accepted: (Checked & { readonly powerOn: boolean })[] = []
      for (const one of targets) {
        const checked = await checkRestore(tx, { project, ...one })
        if (!checked.ok) return checked
        accepted.push({ ...checked, powerOn: one.powerOn })
      }
      if (accepted.length === 0) return refused('ITEM_UNKNOWN')

      const now = clock.wallMs()
      const restore: RestoreRow = {
        id: newId(),
        project,
        provider: request.provider,
        checkpoint: checkpoint.id,
        item: target?.item ?? null,
        status: 'in_progress',
        target: request.restoreTarget,
        parameters: toJson(request.parameters),
        resources_status: toJson(
          Object.fromEntries(
            accepted.map(({ server }) => [`${SERVER_TYPE}#${server}`, 'restoring']),
          ),
        ),
        resources_reason: toJson({}),
        created_at: now,
        updated_at: now,
      }
      await insertRestore(tx, restore)
      for (const { item, server, disks, powerOn } of accepted) {
        await updateItem(tx, item.id, { status: 'waiting_restore', progress: 0 }, now)
        await operations.submit(tx, restoreItem, {
          project,
          resourceType: SERVER_BACKUP_RESOURCE,
          resourceId: server,
          input: { restore: restore.id, item: item.id, powerOn, disks },
          entities: { restore_id: restore.id, checkpoint_item_id: item.id, server_id: server },
        })
      }
      return { ok: true, restore }
    },
  )
}
