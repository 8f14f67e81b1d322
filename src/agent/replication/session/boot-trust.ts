import { hasCode } from '#base/system/files.ts'
import type { Log } from '#base/log.ts'
import type { SessionMarks } from '../types.ts'

/* Whether what a session's files say of this boot may be believed.
 *
 * The run file and the change maps count only within the boot of the host that wrote them, because they live in the page cache. But they
 * can lose their end within a boot as well: a disk that fails throws away pages that were not written yet, and after it was mended or mounted
 * anew the files are those of some time before, under the same boot id. Nothing in them tells.
 *
 * So when the disk of a session's files fails, a mark of that goes to a place that lives exactly as long as the boot and lies on no disk
 * (decisions 0104 and 0139). With a mark, the session's files count for a boot of their own: the next start does what it does after a loss of
 * power. A later failure makes another mark, and so another boot. A reboot of the host takes the marks along, and needs none.
 *
 * What this does not see: a file system that was taken away and mounted anew without any call of the agent having failed.
 */

/** Errors after which nothing that the kernel had accepted is gone. */
const HARMLESS = [
  'ENOSPC',
  'EDQUOT',
  'EFBIG',
  'EMFILE',
  'ENFILE',
  'ENOMEM',
  'ENOENT',
  'EACCES',
] as const

/** Whether `error`, or what it was caused by, is a disk's word that it may have lost something. */
export function tellsOfLoss(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (!('code' in at) || !('errno' in at)) continue
    return !HARMLESS.some((code) => hasCode(at, code))
  }
  return false
}

export class BootTrust {
  readonly #session: string
  readonly #marks: SessionMarks | undefined
  readonly #log: Log
  /** The boot that the session's files count for; at most 40 characters. */
  readonly bootId: string
  #marked = false

  constructor(session: string, bootId: string, marks: SessionMarks | undefined, log: Log) {
    this.#session = session
    this.#marks = marks
    this.#log = log
    const mark = marks?.all().get(session)
    this.bootId = mark === undefined ? bootId : `${bootId.slice(0, 22)}~${mark.createdMs ?? '?'}`
  }

  /** Something could not be read or written here. `atMs`: wall clock. */
  failed(error: unknown, atMs: number): void {
    if (this.#marked || !tellsOfLoss(error)) return
    this.#marked = true
    try {
      const reason = error instanceof Error ? error.message : 'unknown reason'
      this.#marks?.store(this.#session, { reason, createdMs: atMs })
    } catch (problem) {
      this.#log.fatal(
        { err: problem, session: this.#session },
        'no place takes the mark that this session lost track: reboot the host before its agent is started again',
      )
    }
  }

  /** The session is over, and its files are gone. */
  forget(): void {
    this.#marks?.remove(this.#session)
  }
}
