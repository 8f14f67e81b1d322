import type { DiskStanding, DiskStandings } from '#agent/compute/driver.ts'
import type { ExportTable } from '#agent/nbd/exports.ts'
import type { SessionHost } from '#agent/replication/types.ts'
import type { VolumeRecord, VolumeStore } from '#agent/volumes/volume-store.ts'

/* Whether guests of this site may use a volume, from what the agent knows anyway:
 *
 *     volume               session's role here       export    standing
 *     not known            -                         -         unknown
 *     standalone           -                         open      served
 *     standby              -                         -         denied
 *     of a session         replica, fenced           -         denied
 *     of a session         not loaded, or none       -         waiting: it begins or ends
 *     of a session         writer                    open      served
 *     any other            -                         refused   waiting: it starts, takes over, is frozen, rolled back, or failed
 *
 * A writer whose group is frozen keeps its guests: nobody else may write until somebody decides. A failed copy is no reason to stop a guest: its disk
 * answers nothing, and where the server runs is not for its disk to decide.
 */

export interface DiskStandingsParts {
  readonly volumes: VolumeStore
  readonly exports: ExportTable
  readonly sessions: Pick<SessionHost, 'roleAt'>
}

export function diskStandings({ volumes, exports, sessions }: DiskStandingsParts): DiskStandings {
  return {
    of(volume) {
      const record = volumes.record(volume)
      if (record === undefined) return { kind: 'unknown' }
      return withoutAuthority(record, sessions) ?? asExported(volume, exports)
    },
    watch(changed) {
      exports.watch(changed)
    },
  }
}

function withoutAuthority(
  { serving }: VolumeRecord,
  sessions: DiskStandingsParts['sessions'],
): DiskStanding | undefined {
  if (serving.mode === 'standalone') return undefined
  if (serving.mode === 'standby') return { kind: 'denied', reason: serving.reason }
  const here = sessions.roleAt(serving.session)
  // none: it begins or ends here, and the volume is about to be told how it is served then.
  if (here === undefined || here.role === 'none') {
    return { kind: 'waiting', reason: 'its replication session is not ready at this site' }
  }
  if (here.role === 'writer') return undefined
  return { kind: 'denied', reason: `another site may write it (epoch ${here.epoch})` }
}

function asExported(volume: string, exports: ExportTable): DiskStanding {
  const open = exports.open(volume)
  return 'device' in open ? { kind: 'served' } : { kind: 'waiting', reason: open.reason }
}
