import { mkdir, readdir, rename, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import { syncDirectory } from '#base/system/files.ts'
import { EpochFile } from './epoch-file.ts'
import { type MembersFile, NO_MEMBERS, readMembers } from '../members-file.ts'
import { RunFile } from '../run-file.ts'

/* The folder of one session: what is found in it at the start, and what is left of it at the end.
 *
 *     DIR/sessions/ID/epoch         record and what is known about this copy (epoch-file.ts)
 *                     run           last number, exact within one boot (run-file.ts)
 *                     members.json  members and the peer's address (members-file.ts, written by members.ts)
 *                     intent-INDEX  dirty regions of each member (intent-bitmap.ts, opened by members.ts)
 *                     changes-INDEX changed blocks of each member (change-map.ts, opened by members.ts)
 *
 * Damaged state is set aside as a whole, since nothing may be concluded from what is left of it.
 */

/** Name of the epoch file in the folder of its session. */
const EPOCH_FILE = 'epoch'

export interface SessionFilesParts {
  readonly id: string
  readonly dataDir: string
  readonly bootId: string
  readonly clock: Clock
  readonly log: Log
}

export class SessionFiles {
  readonly directory: string
  readonly epoch: EpochFile
  readonly run: RunFile
  /** Members as they were found. */
  readonly members: MembersFile

  private constructor(directory: string, epoch: EpochFile, run: RunFile, members: MembersFile) {
    this.directory = directory
    this.epoch = epoch
    this.run = run
    this.members = members
  }

  /** Opens or creates the session's folder; that it exists is durable when this resolves. */
  static async open(parts: SessionFilesParts): Promise<SessionFiles> {
    const { id, dataDir, bootId, clock, log } = parts
    const directory = join(dataDir, 'sessions', id)
    await mkdir(directory, { recursive: true, mode: 0o700 })
    let epoch = await EpochFile.open(join(directory, EPOCH_FILE))
    let members = await readMembers(directory)
    if (epoch.damaged || members === 'damaged') {
      // Nothing may be concluded from what is left. The control plane opens the session again; everything is compared.
      log.error({ session: id, directory }, 'state of the session is damaged, set aside')
      await epoch.close()
      const aside = `${directory}.damaged-${clock.wallMs()}`
      await rename(directory, aside)
      await mkdir(directory, { recursive: true, mode: 0o700 })
      epoch = await EpochFile.open(join(directory, EPOCH_FILE))
      members = null
    }
    try {
      await syncDirectory(directory)
      await syncDirectory(join(dataDir, 'sessions'))
      const run = new RunFile(join(directory, 'run'), bootId)
      return new SessionFiles(directory, epoch, run, members ?? NO_MEMBERS)
    } catch (error) {
      await epoch.close()
      throw error
    }
  }

  /** Room on this file system for ordinary users, bytes. The volumes lie on the same. */
  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.directory)
    return bavail * bsize
  }

  async close(): Promise<void> {
    await this.epoch.close()
    this.run.close()
  }

  /**
   * Everything of the session goes, but the epoch under which it was closed stays: a command that was sent before the close and
   * comes late must be refused, or it would bring an epoch back that nobody may act under any more. A crash in between is
   * mended at the next start, which ends a closed session once more.
   */
  async forgetButEpoch(): Promise<void> {
    for (const name of await readdir(this.directory)) {
      if (name === EPOCH_FILE) continue
      await rm(join(this.directory, name), { recursive: true, force: true })
    }
    await syncDirectory(this.directory)
  }

  /** For a session that never came into being. */
  async removeAll(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true })
  }
}
