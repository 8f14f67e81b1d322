import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { Fault } from '#base/fault.ts'
import { newHexId } from '#base/ids.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { sizeThreadPool } from '#base/system/thread-pool.ts'
import { startHeartbeats } from '#agent/heartbeat/heartbeats.ts'
import { ExportTable } from '#agent/nbd/exports.ts'
import { localDevice } from '#agent/nbd/local-device.ts'
import { NbdServer } from '#agent/nbd/server.ts'
import { openDivergences } from '#agent/divergence/divergences.ts'
import { createSessionHost } from '#agent/replication/host.ts'
import type { SessionCommand, SessionHostDeps } from '#agent/replication/types.ts'
import { openSnapshots } from '#agent/snapshots/store/snapshot-store.ts'
import { BootMarks } from '#agent/volumes/file/boot-marks.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import type { WitnessAnswer } from '#wire/site/witness.ts'

/* The data plane of one site as a process of its own, without a control plane: the parent is the witness and gives the commands,
 * over Node's IPC channel. Killing it with SIGKILL is a crash of the site's agent. */

export interface SiteOptions {
  readonly site: string
  readonly directory: string
  readonly bootId: string
  readonly port: number
  readonly security:
    | { readonly kind: 'keyed'; readonly secret: string }
    | { readonly kind: 'tls'; readonly ca: string; readonly cert: string; readonly key: string }
  readonly settings: SessionHostDeps['settings']
  readonly logLevel: string
}

export type ToSite =
  | {
      readonly id: number
      readonly kind: 'command'
      readonly name: string
      readonly request: unknown
    }
  | {
      readonly id: number
      readonly kind: 'create'
      readonly volume: string
      readonly sizeBytes: number
      readonly standby: boolean
    }
  | { readonly id: number; readonly kind: 'statuses' | 'syncs' | 'kept' | 'close' }
  /** The main thread stands still for `ms`, right after it has said so. */
  | { readonly id: number; readonly kind: 'block'; readonly ms: number }
  | { readonly id: number; readonly kind: 'answer'; readonly answer: WitnessAnswer | null }

export type FromSite =
  | { readonly kind: 'ready'; readonly port: number; readonly socket: string }
  | { readonly kind: 'result'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: number; readonly code: string; readonly text: string }
  | { readonly kind: 'ask'; readonly id: number; readonly session: string; readonly ask: unknown }

sizeThreadPool()
setFlagsFromString('--expose-gc')
const options = JSON.parse(process.argv[2] ?? '{}') as SiteOptions
const log = createLog(options.site, options.logLevel)
const send = (message: FromSite): void => void process.send?.(message)

mkdirSync(options.directory, { recursive: true })
const store = await openFileVolumeStore({
  directory: join(options.directory, 'volumes'),
  log,
  wallMs: () => systemClock.wallMs(),
  // Beside the site's directory, which may be the mount of a disk that fails.
  bootDirectories: [`${options.directory}-boot`],
})
const syncs: Record<string, number> = {}
const volumes = countingSyncs(store)
const snapshots = await openSnapshots({
  directory: join(options.directory, 'snapshots'),
  volumes: store,
  clock: systemClock,
  log,
})
const divergences = await openDivergences({
  directory: join(options.directory, 'divergences'),
  snapshots,
  volumes: store,
  clock: systemClock,
  log,
})
const exports = new ExportTable()
for (const record of volumes.list()) {
  if (record.serving.mode === 'standalone') {
    exports.serve(record.id, localDevice(await volumes.open(record.id)))
  } else exports.refuse(record.id, 'not in use here')
}

const runId = newHexId()
const beats = await startHeartbeats({
  listen: { host: '127.0.0.1', port: 0 },
  security:
    options.security.kind === 'keyed'
      ? { kind: 'keyed', secret: Buffer.from(options.security.secret) }
      : { kind: 'tls', tls: options.security },
  self: {
    site: options.site,
    agent: `${options.site}-agent`,
    run_id: runId,
    boot_id: options.bootId,
  },
  heartbeatMs: options.settings.heartbeatMs,
  silenceMs: options.settings.peerSilenceMs,
  clock: systemClock,
  log,
})
let askId = 0
const asking = new Map<number, (answer: WitnessAnswer | null) => void>()
const host = createSessionHost({
  site: options.site,
  agentId: `${options.site}-agent`,
  dataDir: options.directory,
  bootId: options.bootId,
  runId,
  clock: systemClock,
  log,
  volumes,
  exports,
  snapshots,
  divergences,
  marks: new BootMarks({
    directories: [`${options.directory}-boot`],
    store: join(options.directory, 'sessions'),
    log,
  }),
  askWitness: (session, ask) =>
    new Promise((resolve) => {
      const id = ++askId
      asking.set(id, resolve)
      send({ kind: 'ask', id, session, ask })
      setTimeout(() => {
        if (asking.delete(id)) resolve(null)
      }, 1_000)
    }),
  link: {
    listen: { host: '127.0.0.1', port: options.port },
    security:
      options.security.kind === 'keyed'
        ? { kind: 'keyed', secret: Buffer.from(options.security.secret) }
        : { kind: 'tls', tls: options.security },
  },
  settings: options.settings,
  beats,
})
await host.start()
const nbd = new NbdServer({ exports, log, clock: systemClock })
const socket = join(options.directory, 'nbd.sock')
await nbd.listenUnix(socket)

process.on('message', (message: ToSite) => {
  if (message.kind === 'answer') {
    const resolve = asking.get(message.id)
    asking.delete(message.id)
    resolve?.(message.answer)
    return
  }
  carryOut(message).then(
    (value) => send({ kind: 'result', id: message.id, value }),
    (error: unknown) => {
      const code = error instanceof Fault ? error.code : 'BROKEN'
      send({ kind: 'error', id: message.id, code, text: String(error) })
    },
  )
})
process.on('disconnect', () => process.exit(0))
send({ kind: 'ready', port: host.linkAddress.port, socket })

async function carryOut(message: Exclude<ToSite, { kind: 'answer' }>): Promise<unknown> {
  switch (message.kind) {
    case 'command':
      if (message.name === 'volume.rebuild') return await host.rebuild(message.request as never)
      return await host.command(message.name as SessionCommand, message.request as never)
    case 'create': {
      const { volume, sizeBytes, standby } = message
      const serving = standby
        ? ({ mode: 'standby', reason: 'a standby copy' } as const)
        : ({ mode: 'standalone' } as const)
      await volumes.create(volume, sizeBytes, serving)
      if (!standby) exports.serve(volume, localDevice(await volumes.open(volume)))
      return null
    }
    case 'statuses':
      return host.statuses()
    case 'syncs':
      return syncs
    case 'block':
      setImmediate(() => {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, message.ms)
      })
      return null
    case 'kept':
      return {
        snapshots: snapshots.list(),
        divergences: divergences.list().map(({ divergence: id, state, volumes: of }) => ({
          id,
          state,
          ranges: state === 'kept' ? of.map(({ volume }) => divergences.ranges(id, volume)) : [],
        })),
      }
    case 'close':
      await nbd.close()
      await host.close()
      await beats.close()
      await snapshots.close()
      await store.close()
      return null
  }
}

/** Counts flushes per volume, so that a test can see on which side data was made durable. */
function countingSyncs(inner: VolumeStore): VolumeStore {
  const counted = new Map<Volume, Volume>()
  return new Proxy(inner, {
    get(target, key) {
      if (key !== 'open') {
        const value = Reflect.get(target, key) as unknown
        return typeof value === 'function' ? (value.bind(target) as unknown) : value
      }
      return async (id: string) => {
        const volume = await target.open(id)
        const known = counted.get(volume)
        if (known !== undefined) return known
        const flush = volume.flush.bind(volume)
        volume.flush = () => {
          syncs[id] = (syncs[id] ?? 0) + 1
          return flush()
        }
        counted.set(volume, volume)
        return volume
      }
    },
  })
}
