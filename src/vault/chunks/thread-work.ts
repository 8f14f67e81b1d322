import { createHasher, createSealer, openRecordInto } from '../format/record.ts'
import { findSlot } from './known-table.ts'
import {
  type BatchMemory,
  type BatchViews,
  KNOWN,
  RESULT_BYTES,
  STORED,
  type ThreadRequest,
  type ThreadSetup,
  viewsOf,
  writeResult,
  ZERO,
} from './thread-protocol.ts'

/* The work of a thread of the vault. Backup: looks for zeroes, hashes, and makes records of what the vault does not hold. Restore: opens records.
 * All bulk data lies in shared memory; messages only say which batch. For a few batches the main thread does this itself: starting threads takes longer. */

export interface ThreadWork {
  addBatch(memory: BatchMemory): void
  seal(batch: number, lengths: readonly number[]): void
  /** Numbers of the items that did not open. */
  open(request: Extract<ThreadRequest, { kind: 'open' }>): number[]
  replaceKnown(memory: SharedArrayBuffer): void
}

export function createThreadWork(setup: ThreadSetup): ThreadWork {
  const batches = setup.batches.map(viewsOf)
  const hasher = setup.naming === undefined ? undefined : createHasher(Buffer.from(setup.naming))
  const sealer =
    setup.recordKey === undefined
      ? undefined
      : createSealer(Buffer.from(setup.recordKey), setup.thread, setup.level)
  let known = new Uint32Array(setup.known ?? new SharedArrayBuffer(1024 * 32))
  const zeroes = Buffer.alloc(setup.blockBytes)

  function sealBatch({ input, output, results }: BatchViews, lengths: readonly number[]): void {
    if (hasher === undefined || sealer === undefined) return
    let end = 0
    for (const [i, length] of lengths.entries()) {
      const block = input.subarray(i * setup.blockBytes, i * setup.blockBytes + length)
      if (block.equals(zeroes.subarray(0, length))) {
        writeResult(results, i, { state: ZERO, flags: 0, offset: 0, length: 0 })
        continue
      }
      const id = hasher.id(block)
      id.copy(results, i * RESULT_BYTES)
      if (findSlot(known, id) >= 0) {
        writeResult(results, i, { state: KNOWN, flags: 0, offset: 0, length: 0 })
        continue
      }
      const record = sealer.sealInto(id, block, 0, output.subarray(end))
      writeResult(results, i, { state: STORED, offset: end, ...record })
      end += record.length
    }
  }

  function openBatch(request: Extract<ThreadRequest, { kind: 'open' }>): number[] {
    const views = batches[request.batch]
    const damaged: number[] = []
    if (views === undefined) return damaged
    for (const [i, item] of request.items.entries()) {
      const piece = request.pieces[item.piece]
      if (piece === undefined) continue
      const record = Buffer.from(piece.buffer, piece.byteOffset + item.offset, item.length)
      const at = item.block * setup.blockBytes
      const target = views.input.subarray(at, at + setup.blockBytes)
      const id = Buffer.from(item.id.buffer, item.id.byteOffset, item.id.byteLength)
      const key = keyOf(request.keys[item.key])
      const length = openRecordInto(key, id, item.flags, record, target)
      if (length === undefined) damaged.push(i)
      else target.fill(0, length)
    }
    return damaged
  }

  return {
    addBatch: (memory) => void batches.push(viewsOf(memory)),
    seal(batch, lengths) {
      const views = batches[batch]
      if (views !== undefined) sealBatch(views, lengths)
    },
    open: openBatch,
    replaceKnown(memory) {
      known = new Uint32Array(memory)
    },
  }
}

const keyOf = (bytes: Uint8Array = new Uint8Array(0)): Buffer =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
