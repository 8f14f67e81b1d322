import { groupStatus, readGroup, readPair } from '#control/resources/groups.ts'
import { servedBy } from '#control/resources/surroundings.ts'
import { readOwnership } from '#control/resources/sync.ts'
import { readVolumes } from '#control/resources/volumes.ts'
import { trusted } from '#control/sites/history.ts'
import { readMeta } from '#control/store/meta.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { SiteChoreRow } from '#control/store/tables/resources.ts'
import { GROUP_TRANSIENT } from '#domain/protection-group.ts'

/**
 * Whether a chore that has a disk served is still right: it may be days old when its site is heard again. A disk that is in a pair is opened only
 * where its group is written.
 *
 * - `now`: carry it out. Chores of other kinds too.
 * - `later`: an operation of the group is at work, and may be taking the disk out of service; or its record is in doubt
 * - `never`: the other site writes, and two writable sites would be two truths; or a session serves it
 */
export async function diskChore(
  db: Queries | Transaction,
  chore: Pick<SiteChoreRow, 'site' | 'command' | 'request'>,
): Promise<'now' | 'later' | 'never'> {
  const volume = servedBy(chore)
  if (volume === null) return 'now'
  const id = (await readVolumes(db, [volume])).get(volume)?.pair ?? null
  const pair = id === null ? undefined : await readPair(db, id)
  const group = pair === undefined ? undefined : await readGroup(db, pair.group_id)
  if (pair === undefined || group === undefined) return 'now'
  if (GROUP_TRANSIENT.has(groupStatus(group))) return 'later'
  if (pair.in_session === 1) return 'never'
  const record = (await readOwnership(db, [group.id])).get(group.id)
  // Restored, and not confirmed by the sites: who writes may have changed since, also outside of any session.
  if (record !== undefined && !trusted(record, (await readMeta(db)).history_mark)) return 'later'
  return record === undefined || record.writer === chore.site ? 'now' : 'never'
}
