import { availableParallelism } from 'node:os'
import type { Worker } from 'node:worker_threads'
import { assert } from '#base/assert.ts'
import {
  BATCH_BYTES,
  BATCHES_PER_THREAD,
  FETCH_ROOM_BYTES,
  INLINE_BATCHES,
  KNOWN_AT_REST_BYTES_MAX,
  THREADS_MAX,
} from '../limits.ts'
import { RECORD_OVERHEAD } from '../format/record.ts'
import { restingShared } from './resting-memory.ts'
import { endThread, restThread, takeThread } from './resting-threads.ts'
import { createThreadWork } from './thread-work.ts'
import {
  type BatchMemory,
  type BatchViews,
  RESULT_BYTES,
  type ThreadReply,
  type ThreadRequest,
  type ThreadSetup,
  viewsOf,
} from './thread-protocol.ts'

/* The threads, and the batches of shared memory that go round between them and the caller. Memory is bounded by the number of
 * batches: who finds none free waits. */

export interface Batch extends BatchViews {
  readonly number: number
}

export interface ThreadPool {
  readonly blocksPerBatch: number
  /** So many callers may each keep a batch; then one is always left to go round. */
  readonly writersMax: number
  /** Waits until one is free; to be given back by `release`. */
  acquire(): Promise<Batch>
  release(batch: Batch): void
  /** Results are in `batch.results` when it settles. */
  seal(batch: Batch, lengths: readonly number[]): Promise<void>
  /** Opens records into `batch.input`; answers the numbers of items that did not open. */
  open(
    batch: Batch,
    request: Omit<Extract<ThreadRequest, { kind: 'open' }>, 'kind' | 'batch'>,
  ): Promise<readonly number[]>
  replaceKnown(memory: SharedArrayBuffer): void
  /**
   * The threads finish what they were asked for, and end; nobody has to wait for it. `clean`: everything went well, so nobody can be reading into a batch
   * any more: its memory and the threads may serve the next pool. Whoever asks this one for something afterwards is refused: threads that begin anew
   * would use numbers, and with them nonces, a second time.
   */
  close(clean?: boolean): void
}

export interface PoolSetup {
  readonly blockBytes: number
  readonly level: number
  readonly naming?: Buffer
  readonly recordKey?: Buffer
  readonly known?: SharedArrayBuffer
  /** Default: one per core, four at most. */
  readonly threads?: number
  /** Batches that the main thread does itself before threads are started. */
  readonly inlineBatches?: number
  /** There is much to do: the threads are started at once, and do all of it. */
  readonly eager?: boolean
}

interface Waiting {
  resolve(reply: ThreadReply): void
  reject(error: Error): void
}

export function createPool(setup: PoolSetup): ThreadPool {
  const threads = setup.threads ?? Math.max(1, Math.min(THREADS_MAX, availableParallelism()))
  const blocksPerBatch = Math.max(1, Math.floor(BATCH_BYTES / setup.blockBytes))
  const inputBytes = blocksPerBatch * setup.blockBytes
  const outputBytes = inputBytes + blocksPerBatch * RECORD_OVERHEAD + FETCH_ROOM_BYTES
  const batchesMax = threads * BATCHES_PER_THREAD
  const memories: BatchMemory[] = []
  const free: Batch[] = []
  const queue: ((batch: Batch) => void)[] = []
  const waiting = new Map<number, Waiting>()
  const load = Array.from({ length: threads }, () => 0)
  let failed: Error | undefined
  let closing = false

  let known = setup.known
  const setupOf = (thread: number): ThreadSetup => ({
    thread,
    level: setup.level,
    blockBytes: setup.blockBytes,
    batches: memories,
    ...(setup.naming === undefined ? {} : { naming: setup.naming }),
    ...(setup.recordKey === undefined ? {} : { recordKey: setup.recordKey }),
    ...(known === undefined ? {} : { known }),
  })
  // Thread numbers go into nonces, so each is used once; 0 is the caller's own.
  const inline = createThreadWork(setupOf(1))
  let asked = 0
  let workers: Worker[] = []
  if (setup.eager === true) startThreads()

  /** Made when it is first needed: a small backup would take longer for memory that it does not use than for its work. */
  function makeBatch(): Batch {
    const memory = {
      input: restingShared.take(inputBytes),
      output: restingShared.take(outputBytes),
      results: restingShared.take(blocksPerBatch * RESULT_BYTES),
    }
    const number = memories.push(memory) - 1
    inline.addBatch(memory)
    for (const worker of workers) worker.postMessage({ kind: 'batch', memory })
    return { number, ...viewsOf(memory) }
  }

  function startThread(i: number): Worker {
    const worker = takeThread()
    const begin: ThreadRequest = { kind: 'begin', setup: setupOf(i + 2) }
    worker.postMessage(begin)
    worker.on('message', (reply: ThreadReply) => {
      load[i] = (load[i] ?? 1) - 1
      waiting.get(reply.batch)?.resolve(reply)
      waiting.delete(reply.batch)
    })
    const fail = (error: Error) => {
      failed ??= error
      for (const one of waiting.values()) one.reject(failed)
      waiting.clear()
    }
    worker.on('error', fail)
    worker.on('exit', (code) => {
      if (!closing) fail(new Error(`a thread of the vault ended with ${code}`))
    })
    return worker
  }

  function startThreads(): void {
    workers = Array.from({ length: threads }, (_, i) => startThread(i))
  }

  /** True: the main thread does this one itself. */
  function isInline(): boolean {
    asked++
    if (asked <= (setup.inlineBatches ?? INLINE_BATCHES) && setup.eager !== true) return true
    if (workers.length === 0) startThreads()
    return false
  }

  function ask(
    request: Extract<ThreadRequest, { kind: 'seal' | 'open' }>,
    transfer: ArrayBuffer[],
  ) {
    return new Promise<ThreadReply>((resolve, reject) => {
      if (failed !== undefined) return reject(failed)
      waiting.set(request.batch, { resolve, reject })
      const least = load.indexOf(Math.min(...load))
      load[least] = (load[least] ?? 0) + 1
      const worker = workers[least]
      worker?.ref()
      worker?.postMessage(request, transfer)
    })
  }

  return {
    blocksPerBatch,
    writersMax: batchesMax - 1,
    async acquire() {
      const batch = free.pop()
      if (batch !== undefined) return batch
      if (memories.length < batchesMax) return makeBatch()
      return await new Promise<Batch>((resolve) => queue.push(resolve))
    },
    release(batch) {
      const next = queue.shift()
      if (next === undefined) free.push(batch)
      else next(batch)
    },
    async seal(batch, lengths) {
      assert(!closing, 'a pool that is closed makes no records')
      if (isInline()) inline.seal(batch.number, lengths)
      else await ask({ kind: 'seal', batch: batch.number, lengths }, [])
    },
    async open(batch, request) {
      assert(!closing, 'a pool that is closed opens no records')
      if (isInline()) return inline.open({ kind: 'open', batch: batch.number, ...request })
      // What was read into the batch is there already.
      const transfer = request.pieces.flatMap(({ buffer }) =>
        buffer instanceof ArrayBuffer ? [buffer] : [],
      )
      const reply = await ask({ kind: 'open', batch: batch.number, ...request }, transfer)
      return reply.damaged ?? []
    },
    replaceKnown(memory) {
      known = memory
      inline.replaceKnown(memory)
      for (const worker of workers) worker.postMessage({ kind: 'known', memory })
    },
    close(clean = false) {
      closing = true
      const still = free.length === memories.length && load.every((asked) => asked === 0)
      const reusable = clean && still && failed === undefined
      if (reusable) {
        for (const { input, output, results } of memories) {
          for (const piece of [input, output, results]) restingShared.rest(piece)
        }
      }
      // Threads at rest do not collect garbage: what they were shown of a large vault would stay.
      const small = (known?.byteLength ?? 0) <= KNOWN_AT_REST_BYTES_MAX
      for (const worker of workers) {
        if (reusable && small) restThread(worker)
        else endThread(worker)
      }
      workers = []
    },
  }
}
