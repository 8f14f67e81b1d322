import { fault } from '#base/fault.ts'

export const SNAPSHOT_UNKNOWN = fault({
  code: 'SNAPSHOT_UNKNOWN',
  retry: 'never',
  text: 'There is no such snapshot of that volume at this site, or it has been deleted or sealed meanwhile.',
  hint: 'List the snapshots of the site.',
})

export const SNAPSHOT_EXISTS = fault({
  code: 'SNAPSHOT_EXISTS',
  retry: 'never',
  text: 'A snapshot of this id exists with other volumes or another purpose.',
  hint: 'Use another id.',
})

export const SNAPSHOT_FAILED = fault({
  code: 'SNAPSHOT_FAILED',
  retry: 'never',
  text: 'The snapshot is not whole: a block it needed could not be preserved.',
  hint: 'Delete it, free space at the site, and take another one.',
})

export const SNAPSHOT_SEALED = fault({
  code: 'SNAPSHOT_SEALED',
  retry: 'never',
  text: 'The snapshot holds only some ranges and is not a whole image.',
  hint: 'Export its ranges instead.',
})

export const SNAPSHOT_BUSY = fault({
  code: 'SNAPSHOT_BUSY',
  retry: 'later',
  text: 'The snapshot is being rolled back.',
  hint: 'Wait until that is done.',
})

export const SNAPSHOT_LIMIT = fault({
  code: 'SNAPSHOT_LIMIT',
  retry: 'later',
  text: 'The volume has as many snapshots as it may have.',
  hint: 'Delete one first.',
})

export const SNAPSHOT_NO_SPACE = fault({
  code: 'SNAPSHOT_NO_SPACE',
  retry: 'later',
  text: 'The file system of the site has no space for what a snapshot has to preserve.',
  hint: 'Free space at the site, or delete the snapshot. Nothing that was acknowledged is lost.',
})

export const SNAPSHOT_BROKEN = fault({
  code: 'SNAPSHOT_BROKEN',
  retry: 'never',
  text: 'What a snapshot needs could not be read or stored.',
  hint: 'Look at the kernel log of the site. The snapshot has to be deleted before the volume can be written again.',
})

export const VOLUME_HAS_SNAPSHOTS = fault({
  code: 'VOLUME_HAS_SNAPSHOTS',
  retry: 'never',
  text: 'The volume has snapshots that live from it.',
  hint: 'Delete its snapshots first.',
})
