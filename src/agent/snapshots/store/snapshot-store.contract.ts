/** Snapshot stores for tests: on a folder of any file system. */
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { SnapshotWorld } from '../snapshots.contract.ts'
import { openSnapshots, type SnapshotStoreOptions } from './snapshot-store.ts'

const log = createLog('test', process.env['LOG_LEVEL'] ?? 'silent')

export interface StoreWorld extends SnapshotWorld {
  readonly directory: string
}

export async function worldIn(
  parent: string,
  options: Partial<SnapshotStoreOptions> = {},
): Promise<StoreWorld> {
  const directory = await mkdtemp(join(parent, 'holdfast-snapshots-'))
  let { volumes, snapshots } = await openBoth(directory, options)
  return {
    directory,
    get volumes() {
      return volumes
    },
    get snapshots() {
      return snapshots
    },
    async restart() {
      await snapshots.close()
      await volumes.close()
      ;({ volumes, snapshots } = await openBoth(directory, options))
    },
    async clean() {
      await snapshots.close()
      await volumes.close()
      await rm(directory, { recursive: true, force: true })
    },
  }
}

export async function openBoth(directory: string, options: Partial<SnapshotStoreOptions> = {}) {
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
    ...options,
  })
  return { volumes, snapshots }
}
