import { BLOCKS_PER_REGION, CHANGES_REGIONS_MAX } from '#wire/link/changes.ts'
import type { OpenMember } from '../members.ts'
import type { PeerQueries } from '../peer-queries.ts'
import { regionCount } from './regions.ts'
import type { WriterMember } from '../writer/writer.ts'

/* What a delta resync has to look at: the union of what both sides have changed since the last rise that both took part in.
 *
 *     writer's change map, same boot               each set bit                          sent
 *     writer's change map of another boot          all blocks of its intent regions      compared
 *     replica's change map, same boot              each set bit                          sent
 *     replica's intent regions                     all their blocks                      compared
 *     replica lost power while in step (`regions`) all blocks of the writer's intent regions   compared
 *     a map that is damaged                        everything of that member             compared: a full resync
 */

export interface PlanParts {
  readonly member: WriterMember
  readonly own: OpenMember
  readonly queries: PeerQueries
  /** Epoch of the last rise that both sides took part in. */
  readonly baseEpoch: number
  readonly regions: boolean
  /** The replica can say what it has changed. */
  readonly asks: boolean
}

/** Fills the member's `todo`, which is empty. False: nothing is known, everything is compared. Throws QueryFailed. */
export async function planDelta(parts: PlanParts): Promise<boolean> {
  const { member, own, queries, baseEpoch, regions, asks } = parts
  const { todo } = member
  const trust = own.changes.trust(baseEpoch)
  if (trust === 'damaged' || !asks) {
    todo.compareAll()
    return false
  }
  // What a map of another boot names may be long past: it is not made durable when it is cleared. The intent regions hold all of it.
  if (trust === 'exact') own.changes.addTo(todo.send)
  if (trust === 'other_boot' || regions) compareIntent(parts)
  const count = regionCount(member.volume.sizeBytes)
  for (let first = 0; first < count; first += CHANGES_REGIONS_MAX) {
    const asked = Math.min(CHANGES_REGIONS_MAX, count - first)
    const changes = await queries.changes(member.index, first, asked)
    if (changes === null) {
      todo.compareAll()
      return false
    }
    todo.addBits(first * BLOCKS_PER_REGION, changes.send, changes.compare)
  }
  return true
}

/** All blocks of the writer's set intent regions. */
function compareIntent({ member, own }: Pick<PlanParts, 'member' | 'own'>): void {
  const { intent } = own
  for (let region = 0; region < intent.regions; region++) {
    if (intent.has(region)) member.todo.compareRegion(region)
  }
}

/** Where the replica is one hole, only data has to be looked at; all else reads as zeroes on both sides. */
export async function planBlank(member: WriterMember): Promise<void> {
  const { volume, todo } = member
  for (let at = 0; at < volume.sizeBytes; ) {
    const found = await volume.extents(at, volume.sizeBytes - at, EXTENTS_PER_CALL)
    for (const { offset, length, hole } of found) {
      if (!hole) todo.compareRange(offset, length)
      at = offset + length
    }
    if (found.length === 0) break
  }
}

const EXTENTS_PER_CALL = 256
