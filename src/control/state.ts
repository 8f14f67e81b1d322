import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import {
  type BackupSummary,
  backupState,
  type RestoreSummary,
  restoreState,
} from '#control/store/backup.ts'
import { connectStore, type OpenStore } from '#control/store/open.ts'
import type { ControlConfig } from './config.ts'
import { storeOptions } from './plane.ts'

/* Backup and restore of the state from outside a running control plane: what `holdfast state` does. */

/** Writes the state to `file`; a control plane may be working on it. */
export async function backupTo(config: ControlConfig, file: string): Promise<BackupSummary> {
  const options = { ...storeOf(config), create: false }
  const store = connectStore(options)
  try {
    return await backupState(store, file, options.clock)
  } finally {
    await store.close()
  }
}

/** Fills an empty database from `file`. Refused while a control plane works on it, and when it is not empty. */
export async function restoreFrom(config: ControlConfig, file: string): Promise<RestoreSummary> {
  return await restoreState(storeOf(config), file)
}

const storeOf = ({ database, logLevel }: ControlConfig): OpenStore =>
  storeOptions(database, systemClock, createLog('state', logLevel))
