import { unreachable } from '#base/assert.ts'
import type { GroupRequestRefusal } from '#control/operations/definitions/protection/group-requests.ts'
import type { PausedFailoverRefusal } from '#control/operations/definitions/protection/paused-failover-requests.ts'
import type { PreflightRefusal } from '#control/operations/definitions/recovery/preflight.ts'
import type {
  ConsistencyGroupChangeRefusal,
  GrowthRefusal,
  LonePairRefusal,
  NewConsistencyGroupRefusal,
  NewLonePairRefusal,
} from '#control/operations/definitions/protection/replication-requests.ts'
import { PAIRS_OF_GROUP_MAX } from '#domain/replication-pair.ts'
import { SYSTEM_DISK_GB_MAX, VOLUME_GB_MAX } from '#domain/volume.ts'
import { Refusal } from '../http/refusal.ts'
import { evsTime } from './codec.ts'
import { refuse } from './errors.ts'

/* How refusals about pairs and groups are spelled. No code is published for their states: 409 with EVS.5400 and a sentence that says what to
 * do. What clients know as a `failure_detail` is named in the sentence when it is known at once. */

export const conflict = (message: string): Refusal => new Refusal(409, 'EVS.5400', message)
const input = (message: string): Refusal => refuse('EVS.5400', message)

const FOREIGN =
  'The replication pair belongs to a protection group of SDRS and is managed there (/v1/{project_id}/replications).'

export function pairCreationRefusal(refusal: NewLonePairRefusal): Refusal {
  switch (refusal) {
    case 'VOLUME_UNKNOWN':
      return refuse('EVS.5404', 'volume_ids: there is no such disk (37100048, 37100050).')
    case 'STATION_UNKNOWN':
      return input('priority_station: must be the availability zone of one of the two disks.')
    case 'DOMAIN_UNKNOWN':
      return input('volume_ids: the zones of the two disks do not replicate to each other.')
    case 'DISKS_OF_ONE_SITE':
      return input('volume_ids: the two disks must be in different availability zones.')
    case 'DISK_TYPES_DIFFER':
      return input('volume_ids: the two disks must have the same type, and be shareable alike.')
    case 'DISK_SIZES_DIFFER':
      return input('volume_ids: the two disks must have the same size (37100041).')
    case 'DISK_OF_DRILL':
      return conflict('A disk of a drill is never replicated.')
    case 'PRODUCTION_DISK_PAIRED':
      return refuse('EVS.2089', 'The production disk is in a replication pair already (37100053).')
    case 'DR_DISK_PAIRED':
      return refuse('EVS.2089', 'The DR disk is in a replication pair already (37100054).')
    case 'PRODUCTION_DISK_STATE':
      return conflict('The production disk must be available or in-use. Wait for it (37000216).')
    case 'DR_DISK_STATE':
      return conflict('The DR disk must be available, or in-use by a stopped server (37000216).')
    case 'DR_DISK_READ_ONLY':
      return conflict(
        'The DR disk is read-only, and replication would overwrite it. Lift that first (os-update_readonly_flag), or pair another disk.',
      )
    case 'DR_DISK_RUNS':
      return conflict(
        'The DR disk is attached to a server that runs, or to one elsewhere of which nothing is known. Stop that server or detach the disk (37100058).',
      )
    case 'QUOTA_PAIRS':
      return conflict('The quota of replication pairs is used up.')
    default:
      return unreachable(refusal)
  }
}

export function pairRefusal(refusal: LonePairRefusal): Refusal {
  switch (refusal) {
    case 'PAIR_UNKNOWN':
      return refuse('EVS.5404', 'There is no such replication pair.')
    case 'PAIR_FOREIGN':
      return conflict(FOREIGN)
    case 'PAIR_IN_GROUP':
      return conflict(
        'The replication pair is in a consistency group. Pause the group and remove the pair from it first.',
      )
    case 'PAIR_STATE':
      return conflict(
        'The replication pair is being changed, or its state does not allow this. Wait until its status is available or error.',
      )
    default:
      return unreachable(refusal)
  }
}

export function groupCreationRefusal(refusal: NewConsistencyGroupRefusal): Refusal {
  switch (refusal) {
    case 'PAIR_UNKNOWN':
      return refuse('EVS.5404', 'replication_ids: there is no such replication pair.')
    case 'PAIR_FOREIGN':
      return conflict(FOREIGN)
    case 'PAIR_IN_GROUP':
      return conflict('A replication pair is in another consistency group already.')
    case 'PAIR_STATE':
      return conflict(
        'Every replication pair must be available and neither switched nor changed at this moment.',
      )
    case 'PAIR_OTHER_STATION':
      return input(
        'All replication pairs of a group must join the same two availability zones, with priority_station as the zone of their production disks.',
      )
    case 'DOMAIN_UNKNOWN':
      return input('The zones of the pairs do not replicate to each other any more.')
    case 'QUOTA_GROUPS':
      return conflict('The quota of groups is used up (37100017). Have it raised.')
    default:
      return unreachable(refusal)
  }
}

export function groupChangeRefusal(refusal: ConsistencyGroupChangeRefusal): Refusal {
  switch (refusal) {
    case 'GROUP_UNKNOWN':
      return groupUnknown()
    case 'GROUP_STATE':
      return conflict('The status of the group does not allow this. It must be available.')
    case 'GROUP_NOT_PAUSED':
      return conflict(
        'Pause the group first (os-stop-replication-consistency-group), and sync it afterwards.',
      )
    case 'GROUP_BUSY_PAIRS':
      return conflict('A replication pair of the group is being changed. Wait for it.')
    case 'GROUP_FULL':
      return conflict(
        `A group has at most ${PAIRS_OF_GROUP_MAX} replication pairs (37100017). Make another group.`,
      )
    case 'PAIR_NOT_IN_GROUP':
      return input('remove_replication_ids: the group has no such replication pair.')
    case 'PAIR_UNKNOWN':
    case 'PAIR_FOREIGN':
    case 'PAIR_IN_GROUP':
    case 'PAIR_STATE':
    case 'PAIR_OTHER_STATION':
      return groupCreationRefusal(refusal)
    default:
      return unreachable(refusal)
  }
}

export const groupUnknown = (): Refusal => refuse('EVS.5404', 'There is no such consistency group.')

export function growthRefusal(refusal: GrowthRefusal): Refusal {
  switch (refusal) {
    case 'GROUP_UNKNOWN':
      return groupUnknown()
    case 'GROUP_STATE':
      return conflict('Disks are extended while the status of the group is available.')
    case 'PAIR_NOT_IN_GROUP':
      return input('id: the group has no such replication pair.')
    case 'PAIR_STATE':
      return conflict('A replication pair is being changed, or its replication is broken.')
    case 'PAIR_SIZE':
      return refuse('EVS.1015', 'new_size: must be larger than the present size.')
    case 'VOLUME_EXTEND_STATE':
      return refuse('EVS.1048')
    case 'VOLUME_SHARED_EXTEND_STATE':
      return refuse('EVS.1065')
    case 'VOLUME_TOO_LARGE':
      return refuse(
        'EVS.1010',
        `new_size: at most ${VOLUME_GB_MAX} GB, for a bootable disk ${SYSTEM_DISK_GB_MAX}.`,
      )
    case 'SERVER_STATE':
      return refuse('EVS.1066')
    case 'QUOTA_GIGABYTES':
      return conflict('The quota of gigabytes is used up.')
    default:
      return unreachable(refusal)
  }
}

const FORCE = '{"os-failover-replication-consistency-group":{"force":true}}'

/** `pausedAt`: wall clock, ms. */
export function pausedFailoverRefusal(
  refusal: PausedFailoverRefusal,
  pausedAt: number | null,
): Refusal {
  const since = pausedAt === null ? 'it was paused' : `${evsTime(pausedAt)} (UTC)`
  switch (refusal) {
    case 'GROUP_UNKNOWN':
      return groupUnknown()
    case 'GROUP_STATE':
      return groupActionRefusal('GROUP_STATE', 'failover')
    case 'GROUP_WITHOUT_PAIRS':
      return groupActionRefusal('GROUP_WITHOUT_PAIRS', 'failover')
    case 'GROUP_BUSY_PAIRS':
      return groupActionRefusal('GROUP_BUSY_PAIRS', 'failover')
    case 'GROUP_HAS_INSTANCES':
      return groupActionRefusal('GROUP_HAS_INSTANCES', 'failover')
    case 'GROUP_NOT_EQUAL':
      return conflict(
        'The group was paused before both sides were equal, or pairs came into it since: its DR disks are of no one moment. Sync it.',
      )
    case 'FORCE_NEEDED':
      return conflict(
        `The group is paused: everything that production wrote since ${since} would be given up. Sync it; or, to accept the loss, send ${FORCE}.`,
      )
    case 'GROUP_PREFERRED_MAY_RUN':
      return groupActionRefusal('GROUP_PREFERRED_MAY_RUN', 'failover')
    case 'DR_SITE_SILENT':
      return groupActionRefusal('DR_SITE_SILENT', 'failover')
    default:
      return unreachable(refusal)
  }
}

export function groupActionRefusal(
  refusal: GroupRequestRefusal | PreflightRefusal,
  action: string,
): Refusal {
  const forced = action === 'failover' ? ` To accept the loss, send ${FORCE}.` : ''
  switch (refusal) {
    case 'GROUP_UNKNOWN':
      return groupUnknown()
    case 'GROUP_STATE':
      return conflict(`The status of the group does not allow ${action}.`)
    case 'GROUP_WITHOUT_PAIRS':
      return conflict('The group has no replication pair with two usable disks.')
    case 'GROUP_HAS_PAIRS':
      return conflict('The group still has replication pairs. Remove them first.')
    case 'GROUP_BUSY_PAIRS':
      return conflict('A replication pair of the group is being changed. Wait for it.')
    case 'GROUP_STATION':
      return conflict('The switch that failed aimed at the other zone. Repeat that one.')
    case 'GROUP_COPYING':
      return conflict(`The two sides are not known to be equal: wait for the copy.${forced}`)
    case 'GROUP_LINK_DOWN':
      return conflict(
        `The replication link is down while production works (fault_level 5).${forced}`,
      )
    case 'GROUP_PRODUCTION_SILENT':
      return conflict('Nothing is heard from the production site (fault_level 2). Fail over.')
    case 'GROUP_PREFERRED_MAY_RUN':
      return conflict(
        'The preferred site of this static-priority group may be writing alone. Make sure that it is off, then send {"os-failover-replication-consistency-group":{"force":true,"preferred_site_is_off":true}}.',
      )
    case 'DR_SITE_SILENT':
      return conflict('Nothing is heard from the site to fail over to.')
    case 'DR_COPY_FAILED':
      return conflict('The disk of the DR side has failed: it cannot become production.')
    case 'DR_SIDE_EMPTY':
      return conflict(
        'No disk of the group was copied to the DR side in full since it came into the group, or since the last sync began.',
      )
    case 'DR_SIDE_NOT_IN_SYNC':
      return conflict(`Disks of the group were never copied to the DR side in full.${forced}`)
    case 'RECORD_IN_DOUBT':
      return conflict(
        'The control plane was restored and has not heard both sites yet. Wait, or vouch for the group (holdfast group vouch).',
      )
    case 'GROUP_BUSY_INSTANCES':
    case 'GROUP_BROKEN_INSTANCES':
    case 'GROUP_PRODUCTION_RUNS':
    case 'GROUP_DR_RUNS':
    case 'GROUP_HAS_INSTANCES':
    case 'GROUP_HAS_DRILLS':
      return conflict('Servers or drills of the group stand against it.')
    default:
      return unreachable(refusal)
  }
}
