import { productionAz, readGroup, readPair } from '#control/resources/groups.ts'
import { serversOfVolume } from '#control/resources/servers.ts'
import { attachmentsOf } from '#control/resources/volumes.ts'
import type { Transaction } from '#control/store/store.ts'
import type { VolumeRow } from '#control/store/tables/resources.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'

export type AttachableRefusal = 'VOLUME_OTHER_AZ' | 'VOLUME_NOT_AVAILABLE'

/** Whether a server may get a volume now; null: it may. */
export async function attachable(
  tx: Transaction,
  server: Pick<ServerRow, 'id' | 'az'>,
  volume: VolumeRow,
): Promise<AttachableRefusal | null> {
  if (volume.az !== server.az) return 'VOLUME_OTHER_AZ'
  if (!isFree(volume)) return 'VOLUME_NOT_AVAILABLE'
  const disks = await serversOfVolume(tx, volume.id)
  if (disks.some((disk) => disk.server === server.id)) return 'VOLUME_NOT_AVAILABLE'
  return (await isWritable(tx, volume)) ? null : 'VOLUME_NOT_AVAILABLE'
}

const SHARED: ReadonlySet<string> = new Set(['available', 'attaching', 'in-use', 'detaching'])

function isFree(volume: VolumeRow): boolean {
  if (volume.multiattach === 1) return SHARED.has(volume.status)
  if (attachmentsOf(volume).length > 0) return false
  // Reserved by hand: for this attachment, as clients of the volume API do it.
  return volume.status === 'available' || volume.status === 'attaching'
}

/** False: it is the copy at the site that is not production. A guest could do nothing with it. */
export async function isWritable(tx: Transaction, { az, pair: id }: VolumeRow): Promise<boolean> {
  const pair = id === null ? undefined : await readPair(tx, id)
  const group = pair === undefined ? undefined : await readGroup(tx, pair.group_id)
  return group === undefined || productionAz(group) === az
}
