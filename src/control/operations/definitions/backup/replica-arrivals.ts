import { derivedId } from '#base/ids.ts'
import { admitRecord, readAdmission, setAdmission } from '#control/resources/backup-works.ts'
import {
  insertCheckpoint,
  insertDiskBackups,
  insertItem,
  readItem,
} from '#control/resources/checkpoints.ts'
import { setTags } from '#control/resources/tags.ts'
import type { SiteClient } from '#control/sites/client.ts'
import { bit } from '#control/store/bit.ts'
import { toJson } from '#control/store/json.ts'
import type { CheckpointItemRow, CheckpointRow } from '#control/store/tables/checkpoints.ts'
import type { AdmissionRequest, ReplicaDescription } from '#wire/replica.ts'
import type { ReplicaAdmission } from '#wire/site/backups.ts'
import type { Static } from 'typebox'
import type { OperationServices } from '../../services.ts'
import { type BackupServices, roomFor } from './backup-rows.ts'
import { type Outcome, refused } from '../requests.ts'
import { siteOfVault } from './vault-site.ts'

/* Copies that come from another region: each is let in for one project, and becomes a backup of that project when its bytes are there.
 *
 *     open ──► registered         open ──► ended, when it has not become one for a week: then the bytes go (vault-orphans.ts)
 */

export type AdmissionRefusal =
  | 'BACKUPS_FULL'
  /** It was let in for another project, or came too late to become a backup. */
  | 'REPLICA_OTHER'

export type RegistrationRefusal = 'REPLICA_NOT_HERE' | 'BACKUPS_FULL'

/** Lets one copy in, as far as the quota allows. The ticket is good for a limited time; asking again is fine. */
export async function admitReplica(
  services: Pick<OperationServices, 'store' | 'agents' | 'clock'> & { readonly sites: SiteClient },
  project: string,
  record: string,
  { size_mb, source_region }: AdmissionRequest,
): Promise<Outcome<{ readonly admission: Static<typeof ReplicaAdmission> }, AdmissionRefusal>> {
  const refusal = await services.store.write(async (tx): Promise<AdmissionRefusal | null> => {
    const known = await readItem(tx, replicaItemId(record))
    const room =
      known !== undefined || (await roomFor(tx, project, { backups: 1, sizeMb: size_mb }))
    if (!room) return 'BACKUPS_FULL'
    const admitted_at = services.clock.wallMs()
    const row = { record, project, source_region, size_mb, admitted_at }
    return (await admitRecord(tx, row)) ? null : 'REPLICA_OTHER'
  })
  if (refusal !== null) return refused(refusal)
  const site = siteOfVault(services, '')
  const labels = { owner: project, replica: record }
  const admission = await services.sites.command(site, 'replica.admit', {
    replica: record,
    labels,
  })
  return { ok: true, admission }
}

/** Of the backup that a copy becomes. */
export const replicaItemId = (record: string): string => derivedId(`replica ${record}`)
const replicaCheckpointId = (record: string): string => derivedId(`checkpoint of replica ${record}`)

/**
 * Makes a copy that has arrived a backup of this project. The same again changes nothing. What the vault says of the checkpoint decides: only the one that was
 * let in for this project under this record becomes its backup, whatever the caller names.
 */
export async function registerReplica(
  services: Pick<BackupServices, 'store' | 'clock'> &
    Pick<OperationServices, 'agents'> & {
      readonly sites: SiteClient
      readonly provider: string
    },
  project: string,
  record: string,
  description: ReplicaDescription,
): Promise<Outcome<{ readonly checkpoint: string; readonly item: string }, RegistrationRefusal>> {
  const ids = { checkpoint: replicaCheckpointId(record), item: replicaItemId(record) }
  const { checkpoint } = description
  const listed = await services.sites.command(siteOfVault(services, ''), 'vault.list', {
    checkpoint,
    limit: 1,
  })
  const labels = listed.checkpoints.find((one) => one.checkpoint === checkpoint)?.labels
  if (labels?.['owner'] !== project || labels['replica'] !== record) {
    return refused('REPLICA_NOT_HERE')
  }
  const refusal = await services.store.write(async (tx): Promise<RegistrationRefusal | null> => {
    if ((await readItem(tx, ids.item)) !== undefined) return null
    const { size_mb, source_region } = description
    const now = services.clock.wallMs()
    const admission = await readAdmission(tx, record)
    if (admission === undefined) {
      // Let in by a release that noted none, or before the state that this one has was saved. The labels of the vault say for whom: only a ticket of our agent sets them.
      await admitRecord(tx, { record, project, source_region, size_mb, admitted_at: now })
    } else if (admission.project !== project || admission.state === 'ended') {
      return 'REPLICA_NOT_HERE'
    }
    // Others may have come in since this one was let in.
    const sizeMb = size_mb
    if (!(await roomFor(tx, project, { backups: 1, sizeMb }))) return 'BACKUPS_FULL'
    await insertCheckpoint(
      tx,
      checkpointOf(description, ids.checkpoint, project, services.provider, now),
    )
    await insertItem(tx, itemOf(description, ids, project, now))
    await insertDiskBackups(
      tx,
      description.disks.map((disk, place) => ({
        id: derivedId(`disk ${disk.volume} of replica ${record}`),
        item: ids.item,
        project,
        place,
        name: disk.name,
        system: bit(disk.system),
        size_gb: disk.size_gb,
        size_mb: disk.size_mb,
        incremental: bit(description.incremental),
        average_speed: 0,
        space_saving: description.space_saving,
        volume: disk.volume,
        volume_name: disk.volume_name,
      })),
    )
    await setTags(tx, { kind: 'backup', project, resource: ids.item }, description.tags)
    await setAdmission(tx, record, 'registered')
    return null
  })
  return refusal === null ? { ok: true, ...ids } : refused(refusal)
}

function checkpointOf(
  { resource_id, resource_name, resource_type }: ReplicaDescription,
  id: string,
  project: string,
  provider: string,
  now: number,
): CheckpointRow {
  return {
    id,
    project,
    provider,
    plan: null,
    plan_snapshot: toJson({
      id: `fake_${id}`,
      name: `server protect plan for ${resource_id}`,
      provider_id: provider,
      resources: [{ id: resource_id, type: resource_type, name: resource_name, extra_info: {} }],
    }),
    status: 'available',
    scheduled: 0,
    extra_info: null,
    created_at: now,
    updated_at: now,
  }
}

function itemOf(
  of: ReplicaDescription,
  ids: { readonly checkpoint: string; readonly item: string },
  project: string,
  now: number,
): CheckpointItemRow {
  return {
    id: ids.item,
    checkpoint: ids.checkpoint,
    project,
    name: of.name,
    description: of.description,
    status: 'available',
    resource_type: of.resource_type,
    resource: of.resource_id,
    resource_name: of.resource_name,
    resource_az: of.resource_az,
    // It is nobody's policy here: nothing removes it but a person.
    policy: null,
    scheduled: bit(of.scheduled),
    replica: 1,
    copy_from: of.source_region,
    incremental: bit(of.incremental),
    progress: 100,
    size_mb: of.size_mb,
    average_speed: of.average_speed,
    space_saving: of.space_saving,
    copy_status: 'na',
    fail_op: null,
    fail_code: null,
    fail_reason: null,
    backup_data: toJson(of.backup_data),
    address: of.address,
    images: toJson([]),
    periodic_type: null,
    expires_at: null,
    vault_checkpoint: of.checkpoint,
    operation: '',
    stall_us: null,
    attachment: null,
    source_policy: of.source_policy ?? null,
    taken_at: of.taken_at,
    finished_at: now,
    created_at: now,
    updated_at: now,
  }
}
