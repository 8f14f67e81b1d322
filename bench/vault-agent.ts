/* node bench/vault-agent.ts DIRECTORY IMAGE: what an agent does that tracks changes, in one JSON object: a backup of a volume of which 10 MiB in a row have changed, from the request to the checkpoint, the snapshot and its
 * flush included; and how long 4 KiB writes wait while a backup takes its snapshot, with a writer that writes as fast as it may.
 *
 * The writer is in the agent's own process, behind its device: what a client of the agent sees is this and a socket. */
import { randomBytes, randomUUID } from 'node:crypto'
import {
  closeSync,
  globSync,
  mkdirSync,
  openSync,
  readSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { openBackupPart } from '#agent/backup/backup-part.ts'
import { openChangeTracking } from '#agent/backup/change-tracking.ts'
import { ExportTable } from '#agent/nbd/exports.ts'
import { openSnapshots } from '#agent/snapshots/store/snapshot-store.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import type { BackupInfo } from '#wire/site/backups.ts'
import { diskAtRest } from './lib/disk-at-rest.ts'

const MIB = 1024 * 1024
const CHANGED_BYTES = 10 * MIB
/** Writes on their way at a time. */
const WRITERS = 4
const WRITE_BYTES = 4096

export interface AgentTold {
  /** First backup of all, and of 10 MiB that changed. */
  readonly firstSeconds: number
  readonly seconds: number
  readonly cpuSeconds: number
  readonly stored: number
  /** Largest resident memory of the process, in MiB. */
  readonly memoryMib: number
  /** Latencies of writes while a backup took its snapshot and read it, ms. */
  readonly stallP99Ms: number
  readonly stallMaxMs: number
  readonly writes: number
}

/** `image`: a file that the volume begins with. */
async function measureAgent(directory: string, image: string): Promise<AgentTold> {
  mkdirSync(directory)
  const log = createLog('bench', 'silent')
  const clock = systemClock
  const keyFile = join(directory, 'vault.key')
  writeFileSync(keyFile, randomBytes(32))
  const backup = join(directory, 'backup')
  const tracking = await openChangeTracking({ directory: join(backup, 'changes'), log })
  const volumes = await openFileVolumeStore({
    directory: join(directory, 'volumes'),
    log,
    wallMs: () => clock.wallMs(),
    watcher: tracking,
  })
  const snapshots = await openSnapshots({
    directory: join(directory, 'snapshots'),
    volumes,
    clock,
    log,
  })
  const place = join(directory, 'vault')
  const part = await openBackupPart({
    directory: backup,
    vault: { place, keyFile },
    env: process.env,
    replicaListen: undefined,
    advertiseHost: '127.0.0.1',
    tls: { ca: '', cert: '', key: '' },
    volumes,
    snapshots,
    exports: new ExportTable(),
    tracking,
    statuses: () => [],
    roleAt: () => undefined,
    refuseWhileHalf: () => undefined,
    clock,
    log,
  })
  await part.start()
  await volumes.create('image', statSync(image).size, { mode: 'standalone' })
  const volume = await volumes.open('image')
  await fill(volume, image)

  async function backUp(parent: string | null): Promise<BackupInfo> {
    const request = {
      backup: randomUUID(),
      volumes: ['image'],
      names: ['image'],
      parent,
      labels: {},
      rate_bytes: 0,
    }
    for (;;) {
      const info = (await part.commands.command('backup.start', request)) as BackupInfo
      if (info.state === 'done') return info
      if (info.state !== 'running') throw new Error(`the backup ended: ${info.reason}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  const timed = async (parent: string | null) => {
    const cpu = process.cpuUsage()
    const began = performance.now()
    const info = await backUp(parent)
    const used = process.cpuUsage(cpu)
    return {
      info,
      seconds: (performance.now() - began) / 1000,
      cpuSeconds: (used.user + used.system) / 1e6,
    }
  }

  const first = await timed(null)
  for (let at = 0; at < CHANGED_BYTES; at += MIB) {
    await write(volume, volume.sizeBytes / 4 + 12_288 + at, randomBytes(MIB))
  }
  await volume.flush()
  await diskAtRest()
  const before = bytesIn(place)
  const second = await timed(first.info.checkpoint)
  const stored = bytesIn(place) - before
  if (second.info.manner !== 'changes') throw new Error('changes were not tracked')

  const load = startLoad(volume)
  await new Promise((resolve) => setTimeout(resolve, 500))
  load.begin()
  await backUp(second.info.checkpoint)
  const latencies = await load.end()
  await part.close()
  await snapshots.close()
  await volumes.close()
  return {
    firstSeconds: first.seconds,
    seconds: second.seconds,
    cpuSeconds: second.cpuSeconds,
    stored,
    memoryMib: Math.round(process.resourceUsage().maxRSS / 1024),
    stallP99Ms: latencies[Math.floor(latencies.length * 0.99)] ?? 0,
    stallMaxMs: latencies.at(-1) ?? 0,
    writes: latencies.length,
  }
}

async function fill(volume: Volume, image: string): Promise<void> {
  const fd = openSync(image, 'r')
  const piece = Buffer.alloc(MIB)
  const zeroes = Buffer.alloc(MIB)
  for (let at = 0; at < volume.sizeBytes; at += MIB) {
    const bytes = readSync(fd, piece, 0, MIB, at)
    if (!piece.equals(zeroes)) volume.writeSync(piece, 0, bytes, at)
  }
  closeSync(fd)
  await volume.flush()
}

async function write(volume: Volume, offset: number, bytes: Buffer): Promise<void> {
  for (let wait = volume.guard(offset, bytes.length); wait !== null; ) {
    await wait
    wait = volume.guard(offset, bytes.length)
  }
  volume.writeSync(bytes, 0, bytes.length, offset)
}

function startLoad(volume: Volume): { begin(): void; end(): Promise<number[]> } {
  let latencies: number[] = []
  let ended = false
  const bytes = randomBytes(WRITE_BYTES)
  const writer = async () => {
    while (!ended) {
      const offset = Math.floor((Math.random() * volume.sizeBytes) / WRITE_BYTES) * WRITE_BYTES
      const began = performance.now()
      await new Promise((resolve) => setImmediate(resolve))
      await write(volume, offset, bytes)
      latencies.push(performance.now() - began)
    }
  }
  const writers = Array.from({ length: WRITERS }, writer)
  return {
    begin: () => (latencies = []),
    async end() {
      ended = true
      await Promise.all(writers)
      return latencies.toSorted((a, b) => a - b)
    },
  }
}

const bytesIn = (directory: string): number =>
  globSync('**/*', { cwd: directory })
    .map((path) => statSync(join(directory, path)))
    .reduce((sum, facts) => sum + (facts.isFile() ? facts.size : 0), 0)

const [directory = '', image = ''] = process.argv.slice(2)
process.stdout.write(`${JSON.stringify(await measureAgent(directory, image))}\n`)
