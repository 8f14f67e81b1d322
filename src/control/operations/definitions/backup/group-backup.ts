import { newId } from '#base/ids.ts'
import { GROUP_TYPE, insertCheckpoint, insertItem } from '#control/resources/checkpoints.ts'
import { findGroup } from '#control/resources/groups.ts'
import type { CheckpointItemRow } from '#control/store/tables/checkpoints.ts'
import {
  type BackupServices,
  checkpointRow,
  itemRow,
  nameOperation,
  roomFor,
  submitBackup,
} from './backup-rows.ts'
import { groupSources } from './backup-target.ts'
import { type Outcome, refused } from '../requests.ts'

/* All disks of a protection group at one moment, as one backup: what runs on several of its servers is restored as of that moment. */

/** What a site takes at one moment; also the bound of its own command. */
export const GROUP_DISKS_MAX = 64

export interface NewGroupBackup {
  readonly project: string
  readonly group: string
  readonly provider: string
  /** null: one is made up. */
  readonly name: string | null
  readonly description: string | null
  readonly incremental: boolean
  /** Bytes per second; 0: what the region allows. */
  readonly rateBytes: number
}

export type GroupBackupRefusal =
  | 'GROUP_UNKNOWN'
  | 'GROUP_EMPTY'
  | 'GROUP_TOO_LARGE'
  | 'BACKUPS_FULL'

export interface AcceptedGroupBackup {
  readonly item: CheckpointItemRow
  readonly operation: string
}

export async function requestGroupBackup(
  services: BackupServices,
  request: NewGroupBackup,
): Promise<Outcome<AcceptedGroupBackup, GroupBackupRefusal>> {
  const { project, provider, name, description } = request
  return await services.store.write(async (tx) => {
    const group = await findGroup(tx, project, request.group)
    if (group === undefined) return refused('GROUP_UNKNOWN')
    const found = await groupSources(tx, group)
    if (found === null) return refused('GROUP_EMPTY')
    const { disks, sources } = found
    if (disks.length > GROUP_DISKS_MAX) return refused('GROUP_TOO_LARGE')
    const sizeMb = disks.reduce((total, { sizeGb }) => total + sizeGb * 1024, 0)
    if (!(await roomFor(tx, project, { backups: 1, sizeMb }))) return refused('BACKUPS_FULL')
    const now = services.clock.wallMs()
    const resource = { id: group.id, type: GROUP_TYPE, name: group.name, extra_info: {} }
    const plan = {
      id: `fake_${newId()}`,
      name: `protect plan for group ${group.id}`,
      provider_id: provider,
      resources: [resource],
    }
    const checkpoint = checkpointRow({ project, provider, plan, planId: null }, now)
    await insertCheckpoint(tx, checkpoint)
    const row = itemRow(
      {
        checkpoint,
        resource: {
          type: GROUP_TYPE,
          id: group.id,
          name: group.name,
          az: sources.at(-1)?.site ?? '',
        },
        name,
        description,
        policy: null,
        scheduled: false,
        sizeMb,
        backupData: {},
        address: null,
      },
      now,
    )
    await insertItem(tx, row)
    const { incremental, rateBytes } = request
    const operation = await submitBackup(tx, services, row, incremental, { rateBytes })
    await nameOperation(tx, row.id, operation)
    return { ok: true, item: row, operation }
  })
}
