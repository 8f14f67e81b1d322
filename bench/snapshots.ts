/* Questions: how long does taking a snapshot make writers wait, and what do before-images cost the writers?
 *
 *   stall         a volume under random 4 KiB writes; flushed ahead and not, in turn. Needs `--directory` on XFS or Btrfs: before-images stop nobody
 *   before-image  the same writes without a snapshot, into blocks that have to be preserved first, and into blocks that have been
 *
 * Meaningless when other processes took much of the machine. A file system in a loop device on another one is slower than one on a disk. */
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { openSnapshots } from '#agent/snapshots/store/snapshot-store.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import { machineFacts, median } from './lib/machine.ts'

const KIB = 1024
const MIB = 1024 * KIB
const SIZE = 512 * MIB
const CHUNK = Buffer.alloc(MIB, 7)
/** Writes per second of the writer that a snapshot is taken under, and for how long it has written by then. */
const STALL_IOPS = 5000
const STALL_WARM_MS = 2000

interface Case {
  readonly name: string
  readonly bytes: number
  readonly depth: number
  readonly totalBytes: number
  readonly random: boolean
}

const CASES: readonly Case[] = [
  { name: 'seq 1 MiB QD1', bytes: MIB, depth: 1, totalBytes: 128 * MIB, random: false },
  { name: 'seq 1 MiB QD8', bytes: MIB, depth: 8, totalBytes: 256 * MIB, random: false },
  { name: 'random 64 KiB QD64', bytes: 64 * KIB, depth: 64, totalBytes: 128 * MIB, random: true },
  { name: 'random 4 KiB QD1', bytes: 4 * KIB, depth: 1, totalBytes: 2 * MIB, random: true },
  { name: 'random 4 KiB QD32', bytes: 4 * KIB, depth: 32, totalBytes: 12 * MIB, random: true },
]

export async function benchSnapshots(options: {
  readonly json: boolean
  readonly pairs: number
  readonly directory: string
}): Promise<void> {
  const say = (line: Readonly<Record<string, unknown>>): void => {
    process.stdout.write(`${JSON.stringify(line)}\n`)
  }
  say({ bench: 'snapshots', ...machineFacts(options.directory) })
  for (const flushAhead of [true, false]) {
    const stalls: number[] = []
    let kind = ''
    for (let i = 0; i < options.pairs; i++) {
      const taken = await stallOnce(options.directory, flushAhead)
      stalls.push(taken.stallMs)
      kind = taken.kind
    }
    const sorted = [...stalls].sort((a, b) => a - b)
    say({
      question: 'stall',
      kind,
      flush_ahead: flushAhead,
      stall_ms: round(median(stalls)),
      least_ms: round(sorted[0] ?? 0),
      most_ms: round(sorted.at(-1) ?? 0),
    })
    if (kind === 'before_image') return await benchBeforeImages(options.directory, say)
  }
}

const round = (value: number): number => Math.round(value * 10) / 10

async function inFolder<T>(
  parent: string,
  flushAhead: boolean,
  work: (volume: Volume, snapshots: Awaited<ReturnType<typeof openSnapshots>>) => Promise<T>,
): Promise<T> {
  const directory = mkdtempSync(join(parent, 'holdfast-bench-'))
  const log = createLog('bench', 'silent')
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
    flushAhead,
  })
  try {
    await volumes.create('v', SIZE, { mode: 'standalone' })
    const volume = await volumes.open('v')
    for (let at = 0; at < SIZE; at += MIB) volume.writeSync(CHUNK, 0, MIB, at)
    await volume.flush()
    return await work(volume, snapshots)
  } finally {
    await snapshots.close()
    await volumes.close()
    rmSync(directory, { recursive: true })
  }
}

async function guarded(volume: Volume, offset: number, bytes: number): Promise<void> {
  for (let wait = volume.guard(offset, bytes); wait !== null; ) {
    await wait
    wait = volume.guard(offset, bytes)
  }
  volume.writeSync(CHUNK, 0, bytes, offset)
}

const turn = () => new Promise((resolve) => setImmediate(resolve))
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

async function stallOnce(
  parent: string,
  flushAhead: boolean,
): Promise<{ readonly stallMs: number; readonly kind: string }> {
  return await inFolder(parent, flushAhead, async (volume, snapshots) => {
    let going = true
    const writer = (async () => {
      const startedMs = performance.now()
      for (let n = 0; going; n++) {
        const offset = Math.floor(Math.random() * (SIZE / (4 * KIB))) * 4 * KIB
        await guarded(volume, offset, 4 * KIB)
        if (n > ((performance.now() - startedMs) / 1000) * STALL_IOPS) await pause(1)
        else if (n % 16 === 0) await turn()
      }
    })()
    await pause(STALL_WARM_MS)
    const taken = await snapshots.take({ id: 's', purpose: 'user', volumes: ['v'] })
    going = false
    await writer
    return { stallMs: taken.stallMs, kind: taken.volumes[0]?.kind ?? '' }
  })
}

async function benchBeforeImages(
  parent: string,
  say: (line: Readonly<Record<string, unknown>>) => void,
): Promise<void> {
  await inFolder(parent, true, async (volume, snapshots) => {
    for (const one of CASES) {
      say({ question: 'before-image', case: one.name, how: 'plain', ...(await rate(volume, one)) })
      await snapshots.take({ id: 's', purpose: 'kept', volumes: ['v'] })
      const how = 'preserved first'
      say({ question: 'before-image', case: one.name, how, ...(await rate(volume, one)) })
      await snapshots.delete('s')
      await volume.flush()
    }
  })
}

async function rate(volume: Volume, { bytes, depth, totalBytes, random }: Case) {
  const count = totalBytes / bytes
  const waits: number[] = []
  let next = 0
  const client = async () => {
    while (next < count) {
      const slot = random ? Math.floor(Math.random() * (SIZE / bytes)) : next
      next++
      const startedMs = performance.now()
      await guarded(volume, slot * bytes, bytes)
      waits.push(performance.now() - startedMs)
      if (next % 64 === 0) await turn()
    }
  }
  const startedMs = performance.now()
  await Promise.all(Array.from({ length: depth }, client))
  const seconds = (performance.now() - startedMs) / 1000
  waits.sort((a, b) => a - b)
  return {
    mib_per_second: round(totalBytes / MIB / seconds),
    p50_ms: round(waits[Math.floor(waits.length / 2)] ?? 0),
    p99_ms: round(waits[Math.floor(waits.length * 0.99)] ?? 0),
  }
}
