import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import { snapshotsContract, type SnapshotWorld } from '../snapshots.contract.ts'
import { openSnapshots } from './snapshot-store.ts'

const log = createLog('test', process.env['LOG_LEVEL'] ?? 'silent')

export async function worldIn(parent: string): Promise<SnapshotWorld> {
  const directory = await mkdtemp(join(parent, 'holdfast-snapshots-'))
  const open = async () => {
    const volumes = await openFileVolumeStore({
      directory: join(directory, 'volumes'),
      log,
      wallMs: () => systemClock.wallMs(),
    })
    const snapshots = await openSnapshots({
      directory: join(directory, 'snapshots'),
      volumes,
      clock: systemClock,
      log,
      reserveBytes: 0,
    })
    return { volumes, snapshots }
  }
  let { volumes, snapshots } = await open()
  return {
    get volumes() {
      return volumes
    },
    get snapshots() {
      return snapshots
    },
    async restart() {
      await snapshots.close()
      await volumes.close()
      ;({ volumes, snapshots } = await open())
    },
    async clean() {
      await snapshots.close()
      await volumes.close()
      await rm(directory, { recursive: true, force: true })
    },
  }
}

snapshotsContract('before-images', 'before_image', () => worldIn(tmpdir()))
