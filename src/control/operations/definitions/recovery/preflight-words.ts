import type { GroupRefusal } from '#domain/protection-group.ts'
import type { CreateDrillRefusal } from '../drills/drill-decision.ts'
import { DRILL_WORDS } from '../drills/drill-words.ts'
import type { PausedFailoverRefusal } from '../protection/paused-failover-requests.ts'
import type { PreflightRefusal } from './preflight.ts'

/* What a preflight says about each code, and what to do about it. */

/** A typed fact with a sentence about it, and what to do. */
export interface Finding {
  readonly code: string
  readonly message: string
  readonly action: string
}

export type PreflightCode =
  | GroupRefusal
  | PreflightRefusal
  | PausedFailoverRefusal
  | CreateDrillRefusal
  | 'GROUP_BUSY'

export const finding = (code: PreflightCode): Finding => ({ code, ...WORDS[code] })

/** Shared with the short form of the answer. */
export const refusalMessage = (code: PreflightCode): string => WORDS[code].message

const WORDS: Readonly<Record<PreflightCode, Omit<Finding, 'code'>>> = {
  GROUP_STATE: {
    message: 'The state of the group does not allow it.',
    action: 'Show the group; wait for a running job, or repeat the action that failed.',
  },
  GROUP_BUSY: {
    message: 'An operation on the group is under way.',
    action: 'Wait for its end; `holdfast group show` says what it is.',
  },
  GROUP_WITHOUT_PAIRS: {
    message: 'The group has no replication pair with two usable disks.',
    action: 'Create a pair, or protect a server.',
  },
  GROUP_BUSY_PAIRS: {
    message: 'A replication pair of the group is being changed.',
    action: 'Wait for the end of its job.',
  },
  GROUP_BUSY_INSTANCES: {
    message: 'A protected instance of the group is being changed.',
    action: 'Wait for the end of its job.',
  },
  GROUP_BROKEN_INSTANCES: {
    message: 'A server of a protected instance is gone.',
    action: 'Delete the protected instance that is shown as invalid.',
  },
  GROUP_PRODUCTION_RUNS: {
    message: 'A protected server at the production site runs.',
    action: 'Shut the production servers down first.',
  },
  GROUP_DR_RUNS: {
    message: 'A protected server at the DR site runs.',
    action: 'Shut the servers of the DR site down first.',
  },
  GROUP_HAS_INSTANCES: {
    message: 'The group has protected instances.',
    action: 'Delete them first.',
  },
  GROUP_HAS_DRILLS: { message: 'The group has drills.', action: 'Delete them first.' },
  GROUP_HAS_PAIRS: { message: 'The group has replication pairs.', action: 'Delete them first.' },
  GROUP_STATION: {
    message: 'That site is production already.',
    action: 'Nothing is to be done.',
  },
  GROUP_COPYING: {
    message: 'The DR side does not hold everything yet.',
    action: 'Wait for the copy; a failover may give up the rest with force.',
  },
  GROUP_LINK_DOWN: {
    message: 'The replication link is down while production works.',
    action: 'Repair the link. A failover now would end production that works.',
  },
  GROUP_PRODUCTION_SILENT: {
    message: 'Nothing is heard from the production site.',
    action: 'Fail over, or bring the production site back.',
  },
  GROUP_PREFERRED_MAY_RUN: {
    message:
      'The preferred site of this static-priority group, of which nothing is heard, may be writing alone.',
    action: 'Make sure that it is off, then state that: force and preferred_off.',
  },
  DR_SITE_SILENT: {
    message: 'Nothing is heard from the DR site.',
    action: 'Start its agent, or find out why the control plane does not hear it.',
  },
  DR_COPY_FAILED: {
    message: 'The disk of the DR side has failed.',
    action: 'Replace it and rebuild the pair from production.',
  },
  DR_SIDE_EMPTY: {
    message: 'No disk of the group was ever copied to the DR side in full.',
    action: 'Bring the production site back: there is nothing to fail over to.',
  },
  DR_SIDE_NOT_IN_SYNC: {
    message: 'Some disks of the group were never copied to the DR side in full.',
    action: 'Wait for their first copy, or leave them behind with force.',
  },
  GROUP_NOT_EQUAL: {
    message:
      'The group was paused before both sides were equal, or pairs came into it since: its DR disks are of no one moment.',
    action: 'Bring production back, and start (sync) the group.',
  },
  FORCE_NEEDED: {
    message: 'Everything that production wrote since the group was paused would be given up.',
    action: 'Start (sync) the group again; or accept the loss with force.',
  },
  RECORD_IN_DOUBT: {
    message: 'The witness grants nothing for the group until its record is settled.',
    action: 'Wait until both sites have reported, or `holdfast group vouch` for one that is off.',
  },
  ...DRILL_WORDS,
}
