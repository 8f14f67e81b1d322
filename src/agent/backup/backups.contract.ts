/** Backups for tests: volumes, snapshots and a vault in a folder, that can be stopped in order, and cut off as by a crash. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { readTextIfPresent } from '#base/system/files.ts'
import { ExportTable } from '#agent/nbd/exports.ts'
import { openSnapshots, type SnapshotStoreOptions } from '#agent/snapshots/store/snapshot-store.ts'
import type { Snapshots } from '#agent/snapshots/snapshots.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import { openVault, type Vault } from '#vault/vault.ts'
import { openDirStore } from '#vault/dir/dir-store.ts'
import type { CommandAnswer, CommandRequest } from '#wire/site/commands.ts'
import { type BackupPart, openBackupPart } from './backup-part.ts'
import { openChangeTracking } from './change-tracking.ts'
import type { BackupCommandName } from './commands.ts'

const log = createLog('test', process.env['LOG_LEVEL'] ?? 'silent')

export interface BackupWorldOptions {
  readonly snapshots?: Partial<SnapshotStoreOptions>
  /** Of the authority and of the agent, PEM: the door for replicas is open then. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string }
  /** Default: one in the folder. */
  readonly vault?: string
}

export class BackupWorld {
  readonly directory: string
  readonly #options: BackupWorldOptions
  volumes!: VolumeStore
  snapshots!: Snapshots
  exports!: ExportTable
  part!: BackupPart
  /** What else may have volumes half written. */
  half: (volumes: readonly string[]) => void = () => undefined
  /** From the next start on: false, the agent has none. */
  hasVault = true
  #save: () => Promise<void> = async () => undefined

  private constructor(directory: string, options: BackupWorldOptions) {
    this.directory = directory
    this.#options = options
  }

  static async open(directory: string, options: BackupWorldOptions = {}): Promise<BackupWorld> {
    const world = new BackupWorld(directory, options)
    await mkdir(directory, { recursive: true })
    if ((await readTextIfPresent(world.keyFile)) === undefined) {
      await writeFile(world.keyFile, randomBytes(32))
    }
    await world.start()
    return world
  }

  get keyFile(): string {
    return join(this.directory, 'vault.key')
  }

  get place(): string {
    return this.#options.vault ?? join(this.directory, 'vault')
  }

  async start(): Promise<void> {
    const directory = join(this.directory, 'backup')
    const tracking = await openChangeTracking({ directory: join(directory, 'changes'), log })
    this.volumes = await openFileVolumeStore({
      directory: join(this.directory, 'volumes'),
      log,
      wallMs: () => systemClock.wallMs(),
      watcher: tracking,
    })
    await tracking.confirm(this.volumes)
    this.snapshots = await openSnapshots({
      directory: join(this.directory, 'snapshots'),
      volumes: this.volumes,
      clock: systemClock,
      log,
      reserveBytes: 0,
      ...this.#options.snapshots,
    })
    this.exports = new ExportTable()
    const { tls } = this.#options
    this.part = await openBackupPart({
      directory,
      vault: this.hasVault ? { place: this.place, keyFile: this.keyFile } : undefined,
      env: process.env,
      replicaListen: tls === undefined ? undefined : { host: '127.0.0.1', port: 0 },
      advertiseHost: '127.0.0.1',
      tls: tls ?? { ca: '', cert: '', key: '' },
      volumes: this.volumes,
      snapshots: this.snapshots,
      exports: this.exports,
      tracking,
      statuses: () => [],
      roleAt: () => undefined,
      refuseWhileHalf: (volumes) => this.half(volumes),
      clock: systemClock,
      log,
    })
    this.#save = () => tracking.save(this.volumes)
    await this.part.start()
  }

  /** `crash`: nothing is said to the next start that a killed process could not have said. */
  async stop(how: 'stop' | 'crash' = 'stop'): Promise<void> {
    await this.part.close()
    await this.snapshots.close()
    if (how === 'stop') await this.#save()
    await this.volumes.close()
  }

  async command<N extends BackupCommandName>(
    name: N,
    request: CommandRequest<N>,
  ): Promise<CommandAnswer<N>> {
    return (await this.part.commands.command(name, request)) as CommandAnswer<N>
  }

  /** With a process of its own, as it were: nothing but the vault and its key. */
  async vault(): Promise<Vault> {
    return await openVaultAt(this.place, this.keyFile)
  }

  /** Repeats the request until its work has ended. */
  async ended<
    N extends 'backup.start' | 'restore.start' | 'replica.start' | 'vault.collect' | 'vault.verify',
  >(name: N, request: CommandRequest<N>): Promise<CommandAnswer<N>> {
    return await repeated(() => this.command(name, request))
  }
}

export async function openVaultAt(place: string, keyFile: string): Promise<Vault> {
  const { readFile } = await import('node:fs/promises')
  const secret = { kind: 'key-file', content: await readFile(keyFile) } as const
  return await openVault({ store: await openDirStore(place), clock: systemClock }, secret)
}

/** Asks until the work has ended. Where nothing tells of it but an answer, asking is all there is. */
export async function repeated<A extends { readonly state: string }>(
  ask: () => Promise<A>,
): Promise<A> {
  for (let waits = 0; waits < 3000; waits++) {
    const answer = await ask()
    if (answer.state !== 'running') return answer
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return assert.fail('the work does not end')
}

/** A volume of a checkpoint, as the vault gives it back. */
export async function restoredImage(
  vault: Vault,
  checkpoint: string,
  volume: string,
): Promise<Buffer> {
  const found = await vault.checkpoint(checkpoint)
  const size = found.manifest.volumes.find(({ id }) => id === volume)?.sizeBytes ?? 0
  const image = Buffer.alloc(size)
  const write = async (offset: number, data: Buffer) => void data.copy(image, offset)
  await found.restore(volume, { write }, { threads: 1 })
  return image
}
