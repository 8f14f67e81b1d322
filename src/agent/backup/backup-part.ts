import { join } from 'node:path'
import { mkdir } from 'node:fs/promises'
import type { Address } from '#base/config.ts'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import type { ExportTable } from '#agent/nbd/exports.ts'
import type { SessionHost } from '#agent/replication/types.ts'
import type { Snapshots } from '#agent/snapshots/snapshots.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import { openBackups } from './backups.ts'
import type { ChangeTracking } from './change-tracking.ts'
import { openCheckpointExports } from './checkpoint-exports.ts'
import { type BackupCommands, backupCommands, withoutVault } from './commands.ts'
import { regionVault } from './region-vault.ts'
import { NO_VAULT } from './faults.ts'
import { openReplicaDoor } from './replica-door.ts'
import { openReplicas } from './replicas.ts'
import { openRestores } from './restores.ts'
import { openCollects, openVerifies } from './vault-work.ts'

/* Backups at one agent: between its volumes and the vault of its region.
 *
 *     backup.*   ──► backups.ts ──► snapshot, change-tracking.ts ──► read-volume.ts ──► the vault
 *     restore.*  ──► restores.ts ──► volume-target.ts ──► a volume, or the session that serves it
 *     replica.*  ──► replicas.ts ──► send-volume.ts ──(HTTPS)──► replica-door.ts ──► incoming-transfer.ts ──► another region's vault
 *     vault.*    ──► checkpoint-exports.ts, vault-work.ts
 *
 *     DIR/backups  restores  replicas  collects  verifies     a note per work, works.ts
 *     DIR/incoming        the key of tickets, and a note per replica that came in
 *     DIR/attached.json   checkpoints that are exported
 *     DIR/changes         between a stop and the next start: what has changed since the backups
 */

export interface BackupPartParts {
  readonly directory: string
  /** undefined: this agent has no vault. */
  readonly vault: { readonly place: string; readonly keyFile: string } | undefined
  readonly env: Readonly<Record<string, string | undefined>>
  readonly replicaListen: Address | undefined
  readonly advertiseHost: string
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string }
  readonly volumes: VolumeStore
  readonly snapshots: Snapshots
  readonly exports: ExportTable
  readonly tracking: ChangeTracking
  readonly statuses: () => readonly SessionStatus[]
  readonly roleAt: SessionHost['roleAt']
  /** Throws while something else has one of the volumes half written: it is filled, or set back to a snapshot. */
  readonly refuseWhileHalf: (volumes: readonly string[]) => void
  readonly clock: Clock
  readonly log: Log
}

export interface BackupPart {
  readonly commands: BackupCommands
  /** Goes on with what was cut off. After the sessions have been loaded. */
  start(): Promise<void>
  /** Throws VOLUME_BUSY while one of the volumes is being restored. */
  refuseWhileRestoring(volumes: readonly string[]): void
  /** As whose an export of a checkpoint may be opened; undefined: the name is of something else. */
  ownerOf(exportName: string): string | undefined
  /** Stops what runs; it goes on at the next start. */
  close(): Promise<void>
}

/** Keeps clients out of what is half restored, from here on: before they can open anything. */
export async function openBackupPart(parts: BackupPartParts): Promise<BackupPart> {
  const { directory, clock, log } = parts
  await mkdir(directory, { recursive: true, mode: 0o700 })
  if (parts.vault === undefined) return await partWithoutVault(parts)
  const place = { ...parts.vault, usedFile: join(directory, 'used-vault.json') }
  const vault = regionVault({ ...place, env: parts.env, clock, log })
  const at = (name: string) => ({ ...parts, vault, directory: join(directory, name) })
  const restores = await openRestores(at('restores'))
  const refuseWhileHalf = (volumes: readonly string[]): void => {
    parts.refuseWhileHalf(volumes)
    restores.refuseWhileRestoring(volumes)
  }
  const backups = await openBackups({ ...at('backups'), refuseWhileHalf })
  const replicas = await openReplicas(at('replicas'))
  const upkeep = (name: string) => ({ ...at(name), vault: place })
  const collects = await openCollects(upkeep('collects'))
  const verifies = await openVerifies(upkeep('verifies'))
  const file = join(directory, 'attached.json')
  const attached = await openCheckpointExports({ file, vault, exports: parts.exports, log })
  restores.reserve()
  const door = await openReplicaDoor({ ...at('incoming'), listen: parts.replicaListen })
  const works = [backups.works, restores.works, replicas.works, collects, verifies]
  return {
    commands: backupCommands({
      vault,
      backups,
      restores,
      replicas,
      door,
      attached,
      collects,
      verifies,
      clock,
    }),
    async start() {
      for (const one of works) await one.start()
      await removeStraySnapshots(parts.snapshots, backups.works.list())
    },
    refuseWhileRestoring: (volumes) => restores.refuseWhileRestoring(volumes),
    ownerOf: (name) => attached.ownerOf(name),
    async close() {
      await Promise.all(works.map((one) => one.close()))
      await door.close()
      vault.close()
    },
  }
}

/** Of backups of which nothing is known any more: they would be kept for ever. */
async function removeStraySnapshots(
  snapshots: Snapshots,
  backups: readonly { readonly id: string; readonly state: string }[],
): Promise<void> {
  const running = new Set(backups.filter(({ state }) => state === 'running').map(({ id }) => id))
  for (const { id, purpose } of snapshots.list()) {
    if (purpose === 'backup' && !running.has(id)) await snapshots.delete(id)
  }
}

/** A restore that was cut off goes on when there is a vault again; what it left half written is closed until then, or until it is cancelled. */
async function partWithoutVault(parts: BackupPartParts): Promise<BackupPart> {
  const restores = await openRestores({
    ...parts,
    directory: join(parts.directory, 'restores'),
    vault: {
      open: () => Promise.reject(new Fault(NO_VAULT, 'restoring')),
      close: () => undefined,
    },
  })
  restores.reserve()
  return {
    commands: withoutVault(restores, parts.clock),
    start: async () => undefined,
    refuseWhileRestoring: (volumes) => restores.refuseWhileRestoring(volumes),
    ownerOf: () => undefined,
    close: () => restores.works.close(),
  }
}
