import { readFileSync, statfsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { newHexId } from '#base/ids.ts'
import { createLog, type Log } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { parseCommonName } from '#base/common-name.ts'
import type { BeatSecurity } from '#agent/heartbeat/exchange.ts'
import { startHeartbeats } from '#agent/heartbeat/heartbeats.ts'
import { ExportTable } from '#agent/nbd/exports.ts'
import { type Listening, NbdServer } from '#agent/nbd/server.ts'
import { createSessionHost } from '#agent/replication/host.ts'
import type { SessionHost, SessionHostDeps } from '#agent/replication/types.ts'
import { type ServerCommands, serverCommands } from '#agent/compute/commands.ts'
import type { Fills } from '#agent/images/fills.ts'
import { openImages } from '#agent/images/images.ts'
import { openDivergences } from '#agent/divergence/divergences.ts'
import { openSnapshots } from '#agent/snapshots/store/snapshot-store.ts'
import { BootMarks, usualBootDirectories } from '#agent/volumes/file/boot-marks.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import { type BackupPart, openBackupPart } from '#agent/backup/backup-part.ts'
import { openChangeTracking } from '#agent/backup/change-tracking.ts'
import type { CommandName, CommandRequest } from '#wire/site/commands.ts'
import type { Report } from '#wire/site/witness.ts'
import { type CloneCommands, cloneCommands } from './clone-commands.ts'
import { type CommandHandler, serveCommands } from './command-server.ts'
import { openCompute } from './compute-part.ts'
import type { AgentConfig } from './config.ts'
import { type ControlClient, controlClient } from './control-client.ts'
import { LOCAL_ONLY, openLocalDoor } from './local-commands.ts'
import { type Reporter, startReporter } from './reporter.ts'
import { type DivergenceCommands, divergenceCommands } from './divergence-commands.ts'
import { type SnapshotCommands, snapshotCommands } from './snapshot-commands.ts'
import { endSnapshotExports, offerSnapshots, snapshotOfExport } from './snapshot-exports.ts'
import { type VolumeCommands, volumeCommands } from './volume-commands.ts'
import { type VolumeLimits, volumeLimits } from './volume-limits.ts'

/* The composition root of a site agent: the only place that makes real clocks, disks and sockets for it.
 *
 * Order of a start: volumes (nothing can be opened yet) → snapshots (what must be preserved is guarded, what was half rolled back is finished)
 * → divergence records → sessions load their epoch files → plain exports → NBD sockets → guests that still run are taken hold of → commands
 * → reports. So a client can reach a volume only after it is settled who serves it. A stop goes the other way: no new commands, guests let go
 * of or powered off, clients dropped, sessions drained and marked clean, volumes closed.
 */

export interface RunningAgent {
  close(): Promise<void>
}

const BOOT_ID_FILE = '/proc/sys/kernel/random/boot_id'

/** Settles when NBD exports, links and commands are served; reports to the control plane go on in the background. */
export async function startAgent(
  config: AgentConfig,
  version = 'development',
  /** Tests only: something else in the place of guests and images. */
  testing: { readonly servers?: ServerCommands } = {},
): Promise<RunningAgent> {
  const log = createLog(config.agentId, config.logLevel)
  await mkdir(config.dataDir, { recursive: true, mode: 0o700 })
  const identity = { bootId: readFileSync(BOOT_ID_FILE, 'utf8').trim(), runId: newHexId() }
  const bootDirectories = config.bootDir === undefined ? usualBootDirectories() : [config.bootDir]
  const backupDirectory = join(config.dataDir, 'backup')
  const tracking = await openChangeTracking({ directory: join(backupDirectory, 'changes'), log })
  const volumes = await openFileVolumeStore({
    directory: join(config.dataDir, 'volumes'),
    log,
    wallMs: () => systemClock.wallMs(),
    bootDirectories,
    watcher: tracking,
  })
  await tracking.confirm(volumes)
  const exports = new ExportTable()
  const limits = volumeLimits({ volumes, exports, clock: systemClock })
  const snapshots = await openSnapshots({
    directory: join(config.dataDir, 'snapshots'),
    volumes,
    clock: systemClock,
    log,
    onEnded: (id) => endSnapshotExports(exports, id),
  })
  offerSnapshots(exports, snapshots)
  const divergences = await openDivergences({
    directory: join(config.dataDir, 'divergences'),
    snapshots,
    volumes,
    clock: systemClock,
    log,
  })
  const control = controlClient({
    controlUrl: config.controlUrl,
    pki: config.pki,
    timeoutMs: config.witnessTimeoutMs,
  })
  const { bootId: boot_id, runId: run_id } = identity
  const beats = await startHeartbeats({
    listen: config.heartbeatListen,
    security: linkSecurity(config),
    self: { site: config.site, agent: config.agentId, run_id, boot_id },
    heartbeatMs: config.heartbeatMs,
    silenceMs: config.peerSilenceMs,
    clock: systemClock,
    log,
  })
  const sessions = createSessionHost({
    ...identity,
    site: config.site,
    agentId: config.agentId,
    dataDir: config.dataDir,
    clock: systemClock,
    log,
    volumes,
    exports,
    snapshots,
    divergences,
    marks: new BootMarks({
      directories: bootDirectories,
      store: join(config.dataDir, 'sessions'),
      log,
    }),
    askWitness: witnessOf(control, log),
    link: { listen: config.linkListen, security: linkSecurity(config) },
    settings: config,
    beats,
  })
  const plain = volumeCommands(volumes, exports)
  const clones = cloneCommands({ snapshots, volumes, plain, clock: systemClock })
  await plain.start()
  await sessions.start()
  const images = await openImages({
    directory: config.imageDir,
    fillDirectory: join(config.dataDir, 'fills'),
    volumes,
    exports,
    hasSnapshots: (volume) => snapshots.ofVolume(volume).length > 0,
    log,
  })
  await images.fills.start()
  const rollbacks = snapshotCommands({
    snapshots,
    volumes,
    exports,
    statuses: () => sessions.statuses(),
    refuseWhileHalf(ids) {
      images.fills.refuseWhileFilling(ids)
      backups.refuseWhileRestoring(ids)
    },
  })
  const backups = await openBackupPart({
    directory: backupDirectory,
    vault: config.vault,
    env: process.env,
    replicaListen: config.replicaListen,
    advertiseHost: config.advertiseHost,
    tls: pem(config),
    volumes,
    snapshots,
    exports,
    tracking,
    statuses: () => sessions.statuses(),
    roleAt: (session) => sessions.roleAt(session),
    refuseWhileHalf(ids) {
      rollbacks.refuseWhileRolling(ids)
      images.fills.refuseWhileFilling(ids)
    },
    clock: systemClock,
    log,
  })

  const nbd = new NbdServer({
    exports,
    log,
    clock: systemClock,
    mayOpen: ownersOnly(volumes, backups),
    memoryBytes: config.nbdMemoryBytes,
  })
  await nbd.listenUnix(config.nbdSocket)
  const tcp = await listenTcp(nbd, config)
  await backups.start()
  // After the sockets: guests that outlived an agent wait for their disks.
  const compute = await openCompute({ config, bootId: boot_id, volumes, exports, sessions, log })
  const servers = testing.servers ?? serverCommands(compute.commands, images.commands)
  const late: { reporter?: Reporter } = {}
  const commands = await serveCommands({
    listen: config.commandListen,
    pki: config.pki,
    caller: `control:${config.region}`,
    history: () => late.reporter?.history(),
    handle: handlerOf({
      plain,
      sessions,
      snapshots: rollbacks,
      volumesOf: (snapshot) => snapshots.show(snapshot)?.volumes.map(({ volume }) => volume) ?? [],
      clones,
      divergences: divergenceCommands(divergences),
      servers,
      limits,
      fills: images.fills,
      backups,
      isReplicated: (volume) => volumes.record(volume)?.serving.mode === 'session',
    }),
    log,
  })

  const at = (port: number) => `${config.advertiseHost}:${port}`
  const report = (): Report => ({
    site: config.site,
    agent: config.agentId,
    boot_id: identity.bootId,
    run_id: identity.runId,
    version,
    command_address: at(commands.port),
    link_address: at(sessions.linkAddress.port),
    nbd_unix: config.nbdSocket,
    nbd_tcp: tcp?.port === undefined ? null : at(tcp.port),
    nbd_tls: config.nbdTls,
    free_bytes: freeBytes(config.dataDir),
    sessions: sessions.statuses(),
    ...sessions.ended(),
    servers: [...servers.briefs()],
    compute: servers.status(),
  })
  const reporting = startReporter({
    control,
    report,
    clock: systemClock,
    log,
    everyMs: config.reportMs,
  })
  late.reporter = reporting
  const door = await openLocalDoor({
    dataDir: config.dataDir,
    site: config.site,
    agent: config.agentId,
    sessions,
    controlReached: () => reporting.reached(),
    log,
  })
  log.info({ site: config.site, socket: config.nbdSocket }, 'agent is ready')

  return {
    async close() {
      reporting.stop()
      await door.close()
      await commands.close()
      await backups.close()
      // While their disks are still served: a guest that powers off writes.
      await compute.close()
      await images.close()
      await clones.close()
      // Clients go first: a session that drains must not be given new work.
      await nbd.close()
      await sessions.close()
      await beats.close()
      await snapshots.close()
      // Nobody changes a volume any more.
      await tracking.save(volumes)
      await volumes.close()
      await control.close()
      log.info('agent stopped cleanly')
    },
  }
}

/** An unreachable witness is no answer, never a refusal. */
function witnessOf(control: ControlClient, log: Log): SessionHostDeps['askWitness'] {
  return async (session, ask) => {
    try {
      return await control.askWitness(session, ask)
    } catch (error) {
      log.debug({ session, ask: ask.kind, err: error }, 'no answer of the witness')
      return null
    }
  }
}

function linkSecurity(config: AgentConfig): BeatSecurity {
  if (!config.linkTls) {
    return { kind: 'keyed', secret: readFileSync(config.linkKeyFile ?? '') }
  }
  const { ca, cert, key } = pem(config)
  return { kind: 'tls', tls: { ca, cert, key } }
}

const pem = ({ pki }: AgentConfig) => ({
  ca: readFileSync(pki.ca, 'utf8'),
  cert: readFileSync(pki.cert, 'utf8'),
  key: readFileSync(pki.key, 'utf8'),
})

/** Over TLS an export is open to its owner's certificates only. A pair's name stands for its volume at this site. */
function ownersOnly(
  volumes: VolumeStore,
  backups: BackupPart,
): (client: string, exportName: string) => string | undefined {
  return (client, exportName) => {
    const identity = parseCommonName(client)
    const project = identity?.kind === 'nbd-client' ? identity.project : undefined
    const ofCheckpoint = backups.ownerOf(exportName)
    if (ofCheckpoint !== undefined) return ofCheckpoint === project ? undefined : NOT_YOURS
    const record =
      volumes.record(snapshotOfExport(exportName)?.volume ?? exportName) ??
      volumes
        .list()
        .find(({ serving }) => serving.mode === 'session' && serving.pair === exportName)
    const owns = project !== undefined && project === record?.owner
    return owns ? undefined : NOT_YOURS
  }
}

const NOT_YOURS = 'the certificate is of another project than the volume'

async function listenTcp(nbd: NbdServer, config: AgentConfig): Promise<Listening | undefined> {
  if (config.nbdListen === undefined) return undefined
  const { host, port } = config.nbdListen
  return await nbd.listenTcp(host, port, config.nbdTls ? pem(config) : undefined)
}

function freeBytes(directory: string): number {
  const { bavail, bsize } = statfsSync(directory)
  return bavail * bsize
}

interface Handlers {
  readonly plain: VolumeCommands
  readonly sessions: SessionHost
  readonly snapshots: SnapshotCommands
  readonly clones: CloneCommands
  readonly divergences: DivergenceCommands
  readonly servers: ServerCommands
  readonly limits: VolumeLimits
  readonly fills: Fills
  readonly backups: BackupPart
  /** Of a snapshot. */
  readonly volumesOf: (snapshot: string) => readonly string[]
  readonly isReplicated: (volume: string) => boolean
}

function handlerOf(handlers: Handlers): CommandHandler {
  const {
    plain,
    sessions,
    snapshots,
    clones,
    divergences,
    servers,
    limits,
    fills,
    backups,
    volumesOf,
    isReplicated,
  } = handlers
  const as = <N extends CommandName>(request: unknown) => request as CommandRequest<N>
  // What a session replicates may change its writer all the same: the restore ends then.
  const alone = (volumes: readonly string[]) => volumes.filter((volume) => !isReplicated(volume))
  const refuseHalf = (volumes: readonly string[]) => {
    snapshots.refuseWhileRolling(volumes)
    fills.refuseWhileFilling(volumes)
  }
  return async (name, request) => {
    snapshots.refuseWhileRolling(changedVolumes(name, request))
    backups.refuseWhileRestoring(alone(changedVolumes(name, request)))
    if (name !== 'volume.delete') fills.refuseWhileFilling(changedVolumes(name, request))
    switch (name) {
      case 'volume.create':
        return await plain.create(as<typeof name>(request))
      case 'volume.delete':
        return await fills.aroundDeletion(as<typeof name>(request).volume, () =>
          plain.delete(as<typeof name>(request)),
        )
      case 'volume.extend':
        return await plain.extend(as<typeof name>(request))
      case 'volume.show':
        return await plain.show(as<typeof name>(request))
      case 'volume.serve':
        return await plain.serve(as<typeof name>(request))
      case 'volume.limit':
        return await limits.set(as<typeof name>(request))
      case 'session.open':
      case 'session.hold':
      case 'session.release':
      case 'session.remove':
      case 'session.close':
      case 'session.show':
      case 'session.arbitrate':
      case 'session.rate':
      case 'session.verify':
      case 'session.verify_show':
      case 'session.verify_cancel':
        return await sessions.command(name, as<typeof name>(request))
      case 'volume.rebuild':
        return await sessions.rebuild(as<typeof name>(request))
      case 'snapshot.create':
        return await snapshots.create(as<typeof name>(request))
      case 'snapshot.list':
        return snapshots.list(as<typeof name>(request))
      case 'snapshot.delete':
        return await snapshots.delete(as<typeof name>(request))
      case 'snapshot.clone':
        return await clones.clone(as<typeof name>(request))
      case 'snapshot.rollback':
        backups.refuseWhileRestoring(volumesOf(as<typeof name>(request).snapshot))
        return await snapshots.rollback(as<typeof name>(request))
      case 'divergence.list':
        return divergences.list(as<typeof name>(request))
      case 'divergence.show':
        return divergences.show(as<typeof name>(request))
      case 'divergence.read':
        return await divergences.read(as<typeof name>(request))
      case 'divergence.delete':
        return await divergences.delete(as<typeof name>(request))
      case 'server.define':
        return await servers.define(as<typeof name>(request))
      case 'server.start':
        return await servers.start(as<typeof name>(request))
      case 'server.stop':
        return await servers.stop(as<typeof name>(request))
      case 'server.reboot':
        return await servers.reboot(as<typeof name>(request))
      case 'server.remove':
        return await servers.remove(as<typeof name>(request))
      case 'server.show':
        return await servers.show(as<typeof name>(request))
      case 'server.console':
        return await servers.console(as<typeof name>(request))
      case 'server.probe':
        return await servers.probe(as<typeof name>(request))
      case 'image.list':
        return await servers.images()
      case 'image.prepare':
        return await servers.prepareImage(as<typeof name>(request))
      case 'volume.fill':
        return await servers.fillVolume(as<typeof name>(request))
      case 'backup.start':
      case 'backup.show':
      case 'backup.cancel':
      case 'restore.start':
      case 'restore.show':
      case 'restore.cancel':
      case 'replica.admit':
      case 'replica.start':
      case 'replica.show':
      case 'replica.cancel':
      case 'vault.list':
      case 'vault.forget':
      case 'vault.lock':
      case 'vault.attach':
      case 'vault.detach':
      case 'vault.collect':
      case 'vault.verify':
        refuseHalf(volumesOfWork(name, request))
        return await backups.commands.command(name, request)
      case 'session.promote':
        throw new Fault(LOCAL_ONLY, `promoting ${as<typeof name>(request).session}`)
    }
  }
}

/** Volumes that a backup reads or a restore writes. */
function volumesOfWork(name: CommandName, request: unknown): readonly string[] {
  if (name === 'backup.start') return (request as CommandRequest<typeof name>).volumes
  if (name !== 'restore.start') return []
  return (request as CommandRequest<typeof name>).volumes.map(({ volume }) => volume)
}

/** Volumes whose content or serving a command may change, other than by a snapshot. */
function changedVolumes(name: CommandName, request: unknown): readonly string[] {
  if (name === 'session.open') {
    const { members } = request as CommandRequest<typeof name>
    return members.flatMap(({ volumes }) => Object.values(volumes))
  }
  if (name !== 'volume.serve' && name !== 'volume.extend' && name !== 'volume.delete') return []
  return [(request as CommandRequest<typeof name>).volume]
}
