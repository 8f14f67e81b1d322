import type { FileHandle } from 'node:fs/promises'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { FileRanges } from '#base/system/libc.ts'
import { hasCode } from '#base/system/files.ts'
import type { Volume } from '#agent/volumes/volume.ts'

/* Copying an image into a volume, beside everything else the agent does: small steps with turns of the loop between them, and never more
 * dirty pages than a flush takes off again in a moment. What is a hole or zeroes in the image becomes a hole in the volume. */

/** One write; takes the loop some 50 us. */
const STEP_BYTES = 128 * 1024
/** Read at a time, off the loop. */
const READ_BYTES = 1024 * 1024
/** Written between two flushes. */
const FLUSH_BYTES = 32 * 1024 * 1024
const ZEROES = Buffer.alloc(STEP_BYTES)

export interface CopyImage {
  readonly source: FileHandle
  readonly volume: Volume
  readonly from: number
  readonly end: number
  readonly ranges: FileRanges
  readonly signal: AbortSignal
  /** Everything before `doneBytes` is durable in the volume; awaited. */
  onDurable(doneBytes: number): Promise<void>
}

/** Resolves when [from, end) of the volume is what the source holds there, durably. Rejects with a Fault of the volume, a system error of
 *  the source, or the signal's reason. */
export async function copyImage(copy: CopyImage): Promise<void> {
  const { source, volume, end, ranges, signal } = copy
  const buffer = Buffer.alloc(READ_BYTES)
  let dirty = 0
  for (let at = copy.from; at < end; ) {
    signal.throwIfAborted()
    const data = Math.min(nextData(ranges, source.fd, at) ?? end, end)
    if (data > at) {
      await volume.zero(at, data - at, true)
      at = data
      continue
    }
    const wanted = Math.min(READ_BYTES, end - at)
    const { bytesRead } = await source.read(buffer, 0, wanted, at)
    if (bytesRead === 0) {
      const text = 'ENODATA: the image became shorter while it was copied'
      throw Object.assign(new Error(text), { code: 'ENODATA' })
    }
    await writeSteps(volume, buffer, bytesRead, at, signal)
    at += bytesRead
    dirty += bytesRead
    if (dirty < FLUSH_BYTES || at >= end) continue
    await volume.flush()
    await copy.onDurable(at)
    dirty = 0
  }
  await volume.flush()
}

async function writeSteps(
  volume: Volume,
  buffer: Buffer,
  length: number,
  offset: number,
  signal: AbortSignal,
): Promise<void> {
  for (let done = 0; done < length; ) {
    const step = Math.min(STEP_BYTES, length - done)
    await nextTurn()
    signal.throwIfAborted()
    // Asked and written in the same step of the loop, as snapshots demand.
    const wait = volume.guard(offset + done, step)
    if (wait !== null) {
      await wait
      continue
    }
    const isZero = ZEROES.compare(buffer, done, done + step, 0, step) === 0
    if (isZero) volume.zeroSync(offset + done, step, true)
    else volume.writeSync(buffer, done, step, offset + done)
    done += step
  }
}

/** A file system that cannot tell has data everywhere. */
function nextData(ranges: FileRanges, fd: number, at: number): number | undefined {
  try {
    return ranges.seekData(fd, at)
  } catch (error) {
    if (hasCode(error, 'EOPNOTSUPP') || hasCode(error, 'EINVAL')) return at
    throw error
  }
}
