import type { SharedPiece } from '#base/system/direct-io.ts'

/* What the main thread and the threads of the vault say to each other. */

/** Shared memory of one batch: blocks, the records that are made of them or that they come from, and a result of 48 bytes per block. */
export interface BatchMemory {
  readonly input: SharedPiece
  readonly output: SharedPiece
  readonly results: SharedPiece
}

export interface BatchViews {
  readonly input: Buffer
  readonly output: Buffer
  readonly results: Buffer
}

export const viewsOf = ({ input, output, results }: BatchMemory): BatchViews => ({
  input: viewOf(input),
  output: viewOf(output),
  results: viewOf(results),
})

const viewOf = ({ memory, offset, length }: SharedPiece): Buffer =>
  Buffer.from(memory, offset, length)

export interface ThreadSetup {
  readonly thread: number
  readonly level: number
  readonly blockBytes: number
  readonly batches: readonly BatchMemory[]
  readonly naming?: Uint8Array
  readonly recordKey?: Uint8Array
  readonly known?: SharedArrayBuffer
}

export interface OpenItem {
  readonly id: Uint8Array
  /** Number in the list of keys. */
  readonly key: number
  readonly flags: number
  /** Where the record lies. */
  readonly piece: number
  readonly offset: number
  readonly length: number
  /** Where the block goes. */
  readonly block: number
}

export type ThreadRequest =
  | { readonly kind: 'seal'; readonly batch: number; readonly lengths: readonly number[] }
  | {
      readonly kind: 'open'
      readonly batch: number
      readonly pieces: readonly Uint8Array[]
      readonly keys: readonly Uint8Array[]
      readonly items: readonly OpenItem[]
    }
  | { readonly kind: 'known'; readonly memory: SharedArrayBuffer }
  | { readonly kind: 'begin'; readonly setup: ThreadSetup }
  /** One more; it has the next number. */
  | { readonly kind: 'batch'; readonly memory: BatchMemory }
  | { readonly kind: 'rest' }
  | { readonly kind: 'end' }

export interface ThreadReply {
  readonly batch: number
  readonly damaged?: readonly number[]
}

export const RESULT_BYTES = 48
const STATE = 32
const FLAGS = 33
const OFFSET = 36
const LENGTH = 40

/** The block is all zeroes. */
export const ZERO = 1
/** The vault seems to hold it; nothing was made. */
export const KNOWN = 2
/** A record was made. */
export const STORED = 3

export interface BlockResult {
  readonly state: number
  readonly flags: number
  /** Of the record, in the output. */
  readonly offset: number
  readonly length: number
}

export function writeResult(results: Buffer, i: number, result: BlockResult): void {
  const at = i * RESULT_BYTES
  results[at + STATE] = result.state
  results[at + FLAGS] = result.flags
  results.writeUInt32LE(result.offset, at + OFFSET)
  results.writeUInt32LE(result.length, at + LENGTH)
}

export function readResult(results: Buffer, i: number): BlockResult & { readonly id: Buffer } {
  const at = i * RESULT_BYTES
  return {
    id: Buffer.from(results.subarray(at, at + 32)),
    state: results[at + STATE] ?? 0,
    flags: results[at + FLAGS] ?? 0,
    offset: results.readUInt32LE(at + OFFSET),
    length: results.readUInt32LE(at + LENGTH),
  }
}
