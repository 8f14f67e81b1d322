import { assert } from '#base/assert.ts'
import { Fault } from '#base/fault.ts'
import type { Batch } from '../chunks/pool.ts'
import { BACKUP_MISUSED } from '../faults.ts'
import { NODE_ENTRIES } from '../limits.ts'
import type { TreeBuilder } from '../tree/tree-builder.ts'
import type { SessionCore } from './session.ts'

/** Fills `target` with the volume's bytes from `offset` on; the last call may be for less than a block. */
export type ReadInto = (target: Buffer, offset: number) => Promise<void>

/** Takes the blocks of one volume, best in rising order. One call at a time. */
export interface VolumeWriter {
  /** Blocks of the volume from `offset`, whole ones except at its end. Copied before it settles; it waits while too much is on its way. */
  write(offset: number, data: Uint8Array): Promise<void>
  /** The same for `length` bytes that `read` puts straight into the vault's memory. */
  writeFrom(offset: number, length: number, read: ReadInto): Promise<void>
  /** These blocks read as zeroes. */
  zero(offset: number, length: number): Promise<void>
  /** Takes a block that the vault holds under this name already; false when it does not. */
  reference(offset: number, id: Buffer): Promise<boolean>
  /** Settles when everything given so far has been taken over: the session knows its chunks. */
  drain(): Promise<void>
  /** Settles when all blocks have been taken over. Blocks that were never given are as in the parent, or zero. */
  finish(): Promise<void>
}

const REFERENCES_QUEUED_MAX = 256

export function createVolumeWriter(
  core: SessionCore,
  builder: TreeBuilder,
  sizeBytes: number,
  finished: (root: Buffer) => void,
): VolumeWriter {
  const { blockBytes, pool } = core
  let batch: Batch | undefined
  let blocks: number[] = []
  let lengths: number[] = []
  let done = false
  let references = 0
  let released: Promise<void> = Promise.resolve()

  function refuse(offset: number, length: number): void {
    core.check()
    assert(!done, 'the volume is not finished')
    const end = offset + length
    const whole = offset % blockBytes === 0 && (length % blockBytes === 0 || end === sizeBytes)
    if (!whole || offset < 0 || end > sizeBytes) {
      throw new Fault(BACKUP_MISUSED, `writing ${length} bytes at ${offset} of ${sizeBytes}`)
    }
  }

  async function send(): Promise<void> {
    if (batch === undefined) return
    const sent = { batch, blocks, lengths }
    batch = undefined
    blocks = []
    lengths = []
    const sealed = pool.seal(sent.batch, sent.lengths)
    // Whoever waits in line learns of it; until then it is not unhandled.
    sealed.catch(() => undefined)
    const applied = core.inOrder(async () => {
      await sealed
      await core.apply(builder, sent.batch, sent.blocks, sent.lengths)
    })
    released = applied.finally(() => pool.release(sent.batch))
  }

  async function writeFrom(offset: number, length: number, read: ReadInto): Promise<void> {
    refuse(offset, length)
    let at = offset
    while (at < offset + length) {
      batch ??= await pool.acquire()
      core.check()
      const first = blocks.length
      const room = (pool.blocksPerBatch - first) * blockBytes
      const bytes = Math.min(room, offset + length - at)
      const target = batch.input.subarray(first * blockBytes, first * blockBytes + bytes)
      await read(target, at)
      // The session may have ended meanwhile.
      core.check()
      for (let done = 0; done < bytes; done += blockBytes) {
        blocks.push((at + done) / blockBytes)
        lengths.push(Math.min(blockBytes, bytes - done))
      }
      at += bytes
      if (blocks.length === pool.blocksPerBatch) await send()
    }
  }

  return {
    writeFrom,
    async write(offset, data) {
      await writeFrom(offset, data.byteLength, async (target, at) => {
        target.set(data.subarray(at - offset, at - offset + target.length))
      })
    },
    async zero(offset, length) {
      refuse(offset, length)
      await send()
      await core.inOrder(() =>
        builder.zeroRun(offset / blockBytes, Math.ceil((offset + length) / blockBytes)),
      )
      core.check()
    },
    async drain() {
      core.check()
      await send()
      await core.inOrder(async () => undefined)
      core.check()
    },
    async reference(offset, id) {
      refuse(offset, Math.min(blockBytes, sizeBytes - offset))
      const found = core.find(id)
      if (found === undefined) return false
      const block = offset / blockBytes
      // What waits in the batch lies in another node: it goes first, so that nodes are closed once.
      const waiting = blocks[0]
      const page = (one: number) => Math.floor(one / NODE_ENTRIES)
      if (waiting !== undefined && (page(waiting) !== page(block) || blocks.includes(block))) {
        await send()
      }
      const applied = core.inOrder(async () => {
        await builder.seek(block)
        if (!builder.holds(block, id)) builder.set(block, found)
      })
      // Not each time: that would wait for all batches that are on their way.
      if (++references % REFERENCES_QUEUED_MAX === 0) await applied
      return true
    },
    async finish() {
      core.check()
      await send()
      done = true
      await core.inOrder(async () => finished(await builder.finish()))
      await released
      core.check()
    },
  }
}
