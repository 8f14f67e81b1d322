import { fault } from '#base/fault.ts'

export const VOLUME_FAILED = fault({
  code: 'VOLUME_FAILED',
  retry: 'never',
  text: 'This copy of the volume lost data or cannot be trusted, and refuses all I/O.',
  hint: 'Repair the disk, then rebuild the copy from the other site. The data file is kept until the volume is deleted.',
})

export const VOLUME_READ_ERROR = fault({
  code: 'VOLUME_READ_ERROR',
  retry: 'later',
  text: 'The disk could not read the volume, or a range of it.',
  hint: 'Look at the kernel log of the site. The other site still has the data.',
})

export const VOLUME_NO_SPACE = fault({
  code: 'VOLUME_NO_SPACE',
  retry: 'later',
  text: 'The file system of the site is full, or has no files of that size; the change was not carried out.',
  hint: 'Free space at the site. Nothing that was acknowledged is lost.',
})

export const VOLUME_CLOSED = fault({
  code: 'VOLUME_CLOSED',
  retry: 'never',
  text: 'The volume was closed while the request was on its way.',
  hint: 'Open it again.',
})

export const VOLUME_UNKNOWN = fault({
  code: 'VOLUME_UNKNOWN',
  retry: 'never',
  text: 'There is no such volume at this site.',
  hint: 'Check the id and the site.',
})

export const SIZE_MISMATCH = fault({
  code: 'SIZE_MISMATCH',
  retry: 'never',
  text: 'A volume of this id exists with another size.',
  hint: 'Extend it, or use another id.',
})
