import { isFault } from '#base/fault.ts'
import { type Device, type Io, IO_ERRORS, type IoError } from '#agent/nbd/device.ts'
import type { ExportTable } from '#agent/nbd/exports.ts'
import type { Snapshots, SnapshotView } from '#agent/snapshots/snapshots.ts'

/* Snapshots over NBD: `snapshot/ID/VOLUME`, read-only, there as soon as somebody opens it and until the snapshot ends. */

const PREFIX = 'snapshot/'
const NAME = /^snapshot\/([0-9a-zA-Z-]{1,64})\/([0-9a-zA-Z-]{1,64})$/
/** Most extents told in one reply; clients ask again for the rest. */
const EXTENTS_COUNT_MAX = 4096

export interface SnapshotOfExport {
  readonly snapshot: string
  readonly volume: string
}

/** What an export's name says; undefined: it is not the name of a snapshot. */
export function snapshotOfExport(name: string): SnapshotOfExport | undefined {
  const [, snapshot, volume] = NAME.exec(name) ?? []
  return snapshot === undefined || volume === undefined ? undefined : { snapshot, volume }
}

export function offerSnapshots(exports: ExportTable, snapshots: Snapshots): void {
  exports.offer(PREFIX, (name) => {
    const wanted = snapshotOfExport(name)
    const found = wanted === undefined ? undefined : snapshots.show(wanted.snapshot)
    const part = found?.volumes.find(({ volume }) => volume === wanted?.volume)
    if (found === undefined || part === undefined) return 'this site has no such snapshot'
    if (found.state === 'failed') return `the snapshot failed: ${found.reason ?? 'unknown reason'}`
    return snapshotDevice(part.sizeBytes, snapshots.open(found.id, part.volume))
  })
}

/** Drops the connections to a snapshot that is gone or has become something else. */
export function endSnapshotExports(exports: ExportTable, snapshot: string): void {
  for (const name of exports.names()) {
    if (snapshotOfExport(name)?.snapshot === snapshot) exports.remove(name, 'the snapshot ended')
  }
}

function snapshotDevice(sizeBytes: number, opening: Promise<SnapshotView>): Device {
  let view: SnapshotView | undefined
  const opened = opening.then((found) => (view = found))
  // A failure shows in every request.
  opened.catch(() => undefined)
  return {
    sizeBytes,
    readOnly: true,
    submit(batch, count) {
      for (let i = 0; i < count; i++) {
        const io = batch[i] as Io
        if (view !== undefined && answeredAtOnce(view, io)) continue
        opened
          .then((from) => carryOut(from, io))
          .then(
            () => io.complete(0),
            (error: unknown) => io.complete(errorOf(error)),
          )
      }
    },
  }
}

function answeredAtOnce(view: SnapshotView, io: Io): boolean {
  if (io.kind === 'flush') io.complete(0)
  else if (io.kind === 'write' || io.kind === 'zero') io.complete(IO_ERRORS.EPERM)
  else if (io.kind !== 'read' || io.slab === undefined) return false
  else if (view.readCached(io.slab.bytes, io.at, io.length, io.offset)) io.complete(0)
  else return false
  return true
}

async function carryOut(view: SnapshotView, io: Io): Promise<void> {
  switch (io.kind) {
    case 'read':
      if (io.slab !== undefined) await view.read(io.slab.bytes, io.at, io.length, io.offset)
      return
    case 'extents':
      io.extents = await view.extents(io.offset, io.length, EXTENTS_COUNT_MAX)
      return
    case 'flush':
      return
    case 'write':
    case 'zero':
      throw new ReadOnly()
  }
}

class ReadOnly extends Error {}

function errorOf(error: unknown): IoError {
  if (error instanceof ReadOnly) return IO_ERRORS.EPERM
  if (isFault(error)) return IO_ERRORS.EIO
  // Anything else is a broken belief about our own code.
  throw error
}
