import { BLOCK_BYTES } from '#wire/link/frame.ts'
import type { VolumeWriter } from '#vault/backup/volume-writer.ts'
import { blockCount, type BlockSet } from '#agent/replication/copy/block-set.ts'
import type { SnapshotView } from '#agent/snapshots/snapshots.ts'

/* Reads a snapshot into the vault. Holes are not read; what has not changed is not even looked at. */

/** One read. It occupies a thread of the pool that flushes of clients need as well. */
const READ_BYTES = 1024 * 1024
/** Shorter runs are read without asking for holes: an answer costs about as much as reading a block. */
const ASK_BYTES = 1024 * 1024
/** Holes and data told at a time: the map of a volume in shreds is long. */
const EXTENTS_AT_A_TIME = 512

export interface ReadVolume {
  readonly view: SnapshotView
  readonly writer: VolumeWriter
  /** Of the vault. */
  readonly blockBytes: number
  /** What may have changed since the base; left out: all of it. */
  readonly changed?: BlockSet
  /** The writer begins with a base: holes must be told. */
  readonly hasBase: boolean
  readonly onRead: (bytes: number) => Promise<void>
  /** Bytes of the volume that were dealt with. */
  readonly onDone: (bytes: number) => void
  readonly signal: AbortSignal
}

export async function readVolume(parts: ReadVolume): Promise<void> {
  const { view, onDone } = parts
  for (const [offset, end] of runsOf(parts)) {
    if (end - offset <= ASK_BYTES) await readData(parts, offset, end)
    else await readExtents(parts, offset, end)
    onDone(end)
  }
  onDone(view.sizeBytes)
}

/** What is told to the vault is whole blocks of it, and of what was tracked. */
const alignOf = ({ blockBytes }: ReadVolume): number => Math.max(BLOCK_BYTES, blockBytes)
const up = (offset: number, align: number): number => Math.ceil(offset / align) * align
const down = (offset: number, align: number): number => Math.floor(offset / align) * align

/** Ranges in bytes, whole blocks, in order and apart from each other. */
function* runsOf(parts: ReadVolume): Generator<[number, number]> {
  const { sizeBytes } = parts.view
  const { changed } = parts
  if (changed === undefined) {
    yield [0, sizeBytes]
    return
  }
  const align = alignOf(parts)
  const blocks = blockCount(sizeBytes)
  let run: [number, number] | undefined
  for (let from = changed.next(0); from >= 0 && from < blocks; ) {
    const last = changed.runEnd(from, blocks)
    const start = down(from * BLOCK_BYTES, align)
    const end = Math.min(sizeBytes, up(last * BLOCK_BYTES, align))
    if (run !== undefined && start <= run[1]) run[1] = Math.max(run[1], end)
    else {
      if (run !== undefined) yield run
      run = [start, end]
    }
    from = changed.next(last)
  }
  if (run !== undefined) yield run
}

async function readExtents(parts: ReadVolume, from: number, end: number): Promise<void> {
  const { view, writer, hasBase, onDone, signal } = parts
  for (let at = from; at < end; ) {
    signal.throwIfAborted()
    const extents = await view.extents(at, end - at, EXTENTS_AT_A_TIME)
    for (const { length, hole } of joined(extents, at, end, alignOf(parts))) {
      if (!hole) await readData(parts, at, at + length)
      // Where nothing is given there is nothing.
      else if (hasBase) await writer.zero(at, length)
      at += length
      onDone(at)
    }
  }
}

interface Piece {
  length: number
  readonly hole: boolean
}

/** Extents cut to whole blocks of the vault, from `at` on: a block that is a hole in part counts as data. */
function joined(
  extents: readonly { readonly offset: number; readonly length: number; readonly hole: boolean }[],
  at: number,
  end: number,
  align: number,
): Piece[] {
  const pieces: Piece[] = []
  let done = at
  const add = (to: number, hole: boolean) => {
    if (to <= done) return
    const last = pieces.at(-1)
    if (last?.hole === hole) last.length += to - done
    else pieces.push({ length: to - done, hole })
    done = to
  }
  for (const { offset, length, hole } of extents) {
    const stop = offset + length
    // Up to its first whole block a hole belongs to the data before it.
    const from = up(offset, align)
    const to = stop >= end ? end : down(stop, align)
    if (!hole || to <= from) add(Math.min(end, up(stop, align)), false)
    else {
      add(Math.min(end, from), false)
      add(to, true)
    }
  }
  return pieces
}

async function readData(parts: ReadVolume, from: number, end: number): Promise<void> {
  const { view, writer, onRead, signal } = parts
  const step = Math.max(READ_BYTES, alignOf(parts))
  for (let at = from; at < end; at += step) {
    signal.throwIfAborted()
    const length = Math.min(step, end - at)
    await writer.writeFrom(at, length, (target, offset) =>
      view.read(target, 0, target.length, offset),
    )
    await onRead(length)
  }
}
