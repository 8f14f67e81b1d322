import { isFault } from '#base/fault.ts'
import { readItem, recordsOf, updateRecord } from '#control/resources/checkpoints.ts'
import type { RegionClient } from '#control/sites/regions.ts'
import type { Queries } from '#control/store/store.ts'
import { PresenceAnswer } from '#wire/replica.ts'
import type { BackupServices } from './backup-rows.ts'
import { replicaItemId } from './replica-arrivals.ts'

/* Whether a copy that was made is still in the other region: somebody may have deleted it there, and want it again. */

const GOING: ReadonlySet<string> = new Set(['waiting_delete', 'deleting'])

/** At the destination. */
export async function hasReplica(db: Queries, project: string, record: string): Promise<boolean> {
  const item = await readItem(db, replicaItemId(record))
  return item !== undefined && item.project === project && !GOING.has(item.status)
}

/** At the source, before one backup is copied again. A region that does not answer is taken to have what it had. */
export async function noteGoneReplicas(
  services: BackupServices & { readonly otherRegions?: Pick<RegionClient, 'call'> | undefined },
  { sourceProject, item, region }: { sourceProject: string; item: string; region: string },
): Promise<void> {
  const { store, clock, otherRegions } = services
  if (otherRegions === undefined) return
  const records = ((await recordsOf(store.db, [item])).get(item) ?? []).filter(
    (one) =>
      one.project === sourceProject &&
      one.destination_region === region &&
      one.status === 'success' &&
      one.gone_at === null,
  )
  for (const { id, destination_project: project } of records) {
    try {
      const { present } = await otherRegions.call({
        region,
        project,
        method: 'POST',
        path: `/api/v1/replicas/${id}/presence`,
        body: {},
        answer: PresenceAnswer,
      })
      if (present) continue
    } catch (error) {
      if (!isFault(error)) throw error
      continue
    }
    const now = clock.wallMs()
    await store.write((tx) => updateRecord(tx, id, { gone_at: now }, now))
  }
}
