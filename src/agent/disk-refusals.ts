import { Fault, fault } from '#base/fault.ts'
import { hasCode } from '#base/system/files.ts'
import { hasNoRoom } from '#base/system/whole-io.ts'
import { VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'

export const SITE_DISK_FAILED = fault({
  code: 'SITE_DISK_FAILED',
  retry: 'later',
  text: 'The disk that the site keeps its state on does not take the change, or cannot be read.',
  hint: 'Look at the kernel log of the site; a file system that was made read-only has to be repaired and mounted anew. Then start the agent again.',
})

/** What a command is refused with when something on its way met the system's error of a disk; any other error as it is. */
export function asDiskRefusal(error: unknown, doing: string): unknown {
  if (error instanceof Fault) return error
  if (hasNoRoom(error)) return new Fault(VOLUME_NO_SPACE, doing, {}, error)
  if (hasCode(error, 'EIO') || hasCode(error, 'EROFS')) {
    return new Fault(SITE_DISK_FAILED, doing, {}, error)
  }
  return error
}
