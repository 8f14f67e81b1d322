import { DRILLS_PER_PROJECT_MAX } from '#domain/drill.ts'
import type { CreateDrillRefusal } from './drill-decision.ts'

/* Why a drill cannot be made, and what to do, for the API, the preflight and schedules. */

export interface RefusalWords {
  readonly message: string
  readonly action: string
}

const QUOTA = 'Delete some, or have the quota raised.'

export const DRILL_WORDS: Readonly<Record<CreateDrillRefusal, RefusalWords>> = {
  GROUP_UNKNOWN: {
    message: 'There is no such group.',
    action: 'List the groups.',
  },
  DRILL_GROUP_STATE: {
    message: 'The group is being changed, or could not be made.',
    action: 'Wait until it has settled.',
  },
  DRILL_NO_PAIRS: {
    message: 'The group has no pair, so there is nothing to try.',
    action: 'Add a pair.',
  },
  DRILL_GROUP_BUSY: {
    message: 'A pair or an instance of the group is being changed.',
    action: 'Repeat when that has ended.',
  },
  DRILL_INSTANCE_BROKEN: {
    message: 'A server or a disk of a protected instance is gone.',
    action: 'Delete the instance and protect the server anew.',
  },
  DRILL_NO_DATA: {
    message: 'The disks at the DR site do not hold a whole state of production.',
    action: 'Start the protection, and wait until the pairs are in sync.',
  },
  DRILL_VPC_UNKNOWN: {
    message: 'There is no such VPC.',
    action: 'List the VPCs, or name none.',
  },
  DRILL_VPC_OF_GROUP: {
    message: 'The VPC is that of the group: drill servers would meet production.',
    action: 'Name another one, or none.',
  },
  DRILL_VPC_IN_USE: {
    message: 'Another drill uses the VPC.',
    action: 'Delete that drill first.',
  },
  DRILL_VPC_NO_SUBNETS: {
    message: 'The VPC has no subnet.',
    action: 'Make one with the range of production.',
  },
  DRILL_VPC_NO_RANGE: {
    message: 'The VPC has no subnet with the range of a protected server.',
    action: 'Make one with the same CIDR, or name no VPC.',
  },
  DRILL_ADDRESS_TAKEN: {
    message: 'An address of a protected server is taken in the VPC.',
    action: 'Delete the port that has it, or name no VPC.',
  },
  DRILL_NIC_MISSING: {
    message: 'A protected server has no NIC in the VPC of the group.',
    action: 'Look at its NICs.',
  },
  DRILL_PROBES_UNKNOWN: {
    message: 'Probes are named for an instance that the group has not.',
    action: 'Use ids of protected instances, or `*`.',
  },
  QUOTA_DRILLS: {
    message: `The project has ${DRILLS_PER_PROJECT_MAX} drills already.`,
    action: 'Delete one first.',
  },
  QUOTA_VPCS: {
    message: 'The quota of VPCs is used up.',
    action: 'Name an existing VPC.',
  },
  QUOTA_SUBNETS: {
    message: 'The quota of subnets is used up.',
    action: 'Name an existing VPC.',
  },
  QUOTA_INSTANCES: {
    message: 'The quota of servers is used up.',
    action: QUOTA,
  },
  QUOTA_VOLUMES: {
    message: 'The quota of volumes is used up.',
    action: QUOTA,
  },
  QUOTA_GIGABYTES: {
    message: 'The quota of gigabytes is used up.',
    action: QUOTA,
  },
  QUOTA_PORTS: {
    message: 'The quota of ports is used up.',
    action: QUOTA,
  },
  DRILL_SITE_SILENT: {
    message: 'Nothing is heard from the DR site.',
    action: 'Start its agent, or find out why the control plane does not hear it.',
  },
  DRILL_COPY_FAILED: {
    message: 'A disk of the group has failed at the DR site.',
    action: 'Replace it, and rebuild its pair from production.',
  },
}
