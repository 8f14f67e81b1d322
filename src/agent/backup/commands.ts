import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { unreachable } from '#base/assert.ts'
import { CHECKPOINT_UNKNOWN } from '#vault/faults.ts'
import type { Manifest } from '#vault/format/manifest.ts'
import type { Vault } from '#vault/vault.ts'
import type { VaultCheckpoint, VaultList, VaultListRequest } from '#wire/site/backups.ts'
import type { CommandAnswer, CommandName, CommandRequest } from '#wire/site/commands.ts'
import { backupInfo } from './backup-record.ts'
import type { Backups } from './backups.ts'
import type { CheckpointExports } from './checkpoint-exports.ts'
import { NO_VAULT } from './faults.ts'
import type { RegionVault } from './region-vault.ts'
import { type Replicas, replicaInfo } from './replicas.ts'
import type { ReplicaDoor } from './replica-door.ts'
import { type Restores, restoreInfo } from './restores.ts'
import {
  collectInfo,
  type CollectRecord,
  newCollect,
  newVerify,
  verifyInfo,
  type VerifyRecord,
} from './vault-work.ts'
import type { Works } from './works.ts'

/** The commands of this module, by their names. */
export type BackupCommandName = Extract<
  CommandName,
  `backup.${string}` | `restore.${string}` | `replica.${string}` | `vault.${string}`
>

export interface BackupCommands {
  command(name: BackupCommandName, request: unknown): Promise<CommandAnswer<BackupCommandName>>
}

/** Of an agent without a vault. A restore that was cut off may be given up there: its disks are as it left them. */
export const withoutVault = ({ works }: Restores, clock: Clock): BackupCommands => ({
  async command(name, request) {
    if (name === 'restore.cancel') {
      const { restore } = request as CommandRequest<typeof name>
      return restoreInfo(await works.cancel(restore), clock)
    }
    throw new Fault(NO_VAULT, `taking ${name}`)
  },
})

export interface BackupCommandsParts {
  readonly vault: RegionVault
  readonly backups: Backups
  readonly restores: Restores
  readonly replicas: Replicas
  readonly door: ReplicaDoor
  readonly attached: CheckpointExports
  readonly collects: Works<CollectRecord>
  readonly verifies: Works<VerifyRecord>
  readonly clock: Clock
}

/** Manifests read at a time; a bucket answers each in some ten milliseconds. */
const READS_AT_A_TIME = 32

export function backupCommands(parts: BackupCommandsParts): BackupCommands {
  const { vault, backups, restores, replicas, door, attached, collects, verifies, clock } = parts
  const as = <N extends CommandName>(request: unknown) => request as CommandRequest<N>

  return {
    async command(name, request) {
      switch (name) {
        case 'backup.start':
          return backupInfo(await backups.start(as<typeof name>(request)), clock)
        case 'backup.show':
          return backupInfo(backups.works.show(as<typeof name>(request).backup), clock)
        case 'backup.cancel':
          return backupInfo(await backups.works.cancel(as<typeof name>(request).backup), clock)
        case 'restore.start':
          return restoreInfo(await restores.start(as<typeof name>(request)), clock)
        case 'restore.show':
          return restoreInfo(restores.works.show(as<typeof name>(request).restore), clock)
        case 'restore.cancel':
          return restoreInfo(await restores.works.cancel(as<typeof name>(request).restore), clock)
        case 'replica.admit':
          return await door.admit(as<typeof name>(request))
        case 'replica.start':
          return replicaInfo(await replicas.start(as<typeof name>(request)), clock)
        case 'replica.show':
          return replicaInfo(replicas.works.show(as<typeof name>(request).replica), clock)
        case 'replica.cancel':
          return replicaInfo(await replicas.works.cancel(as<typeof name>(request).replica), clock)
        case 'vault.list':
          return await list(await vault.open(), as<typeof name>(request))
        case 'vault.forget':
          return await forget(as<typeof name>(request).checkpoint)
        case 'vault.lock': {
          const { checkpoint, until } = as<typeof name>(request)
          return { locked_until: await (await vault.open()).lock(checkpoint, until) }
        }
        case 'vault.attach': {
          const { checkpoint, owner, attachment } = as<typeof name>(request)
          return await attached.attach(checkpoint, owner, attachment)
        }
        case 'vault.detach': {
          const { checkpoint, attachment } = as<typeof name>(request)
          await attached.detach(checkpoint, attachment)
          return {}
        }
        case 'vault.collect': {
          const { collect } = as<typeof name>(request)
          return collectInfo(await collects.begin(collect, () => newCollect(collect, clock)), clock)
        }
        case 'vault.verify': {
          const verify = as<typeof name>(request)
          const begun = await verifies.begin(verify.verify, () => newVerify(verify, clock))
          return verifyInfo(begun, clock)
        }
        default:
          return unreachable(name)
      }
    },
  }

  async function forget(checkpoint: string): Promise<Record<string, never>> {
    try {
      await (await vault.open()).forget(checkpoint)
    } catch (error) {
      if (!isFault(error, CHECKPOINT_UNKNOWN)) throw error
    }
    await attached.detach(checkpoint)
    return {}
  }
}

async function list(
  vault: Vault,
  { checkpoint, after, ids, limit }: VaultListRequest,
): Promise<VaultList> {
  const asked = await idsOf(vault, checkpoint)
  const rest = asked.filter((id) => after === undefined || id > after)
  const page = rest.slice(0, limit)
  const more = rest.length > page.length
  if (ids === true) return { checkpoints: [], ids: page, damaged: [], more }
  const checkpoints: VaultCheckpoint[] = []
  const damaged: string[] = []
  for (let at = 0; at < page.length; at += READS_AT_A_TIME) {
    const some = page.slice(at, at + READS_AT_A_TIME)
    for (const one of await Promise.all(some.map((id) => describe(vault, id)))) {
      if ('damaged' in one) damaged.push(one.damaged)
      else if ('manifest' in one) checkpoints.push(checkpointOf(one.manifest, one.lockedMs))
    }
  }
  return { checkpoints, damaged, more }
}

async function idsOf(vault: Vault, checkpoint: string | undefined): Promise<string[]> {
  if (checkpoint === undefined) return await vault.checkpointIds()
  return (await vault.holds(checkpoint)) ? [checkpoint] : []
}

type Described =
  | { readonly manifest: Manifest; readonly lockedMs: number }
  | { readonly damaged: string }
  | { readonly gone: true }

async function describe(vault: Vault, id: string): Promise<Described> {
  try {
    const { manifest } = await vault.checkpoint(id)
    return { manifest, lockedMs: await vault.lockedUntil(id) }
  } catch (error) {
    if (isFault(error, CHECKPOINT_UNKNOWN)) return { gone: true }
    if (!isFault(error)) throw error
    return { damaged: id }
  }
}

const checkpointOf = (manifest: Manifest, lockedMs: number): VaultCheckpoint => ({
  checkpoint: manifest.id,
  created_at: manifest.createdMs,
  labels: { ...manifest.labels },
  volumes: manifest.volumes.map(({ id, sizeBytes }) => ({ name: id, size_bytes: sizeBytes })),
  stored_bytes: manifest.storedBytes,
  locked_until: lockedMs,
})
