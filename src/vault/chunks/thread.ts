import { MessagePort, parentPort, workerData } from 'node:worker_threads'
import { assert } from '#base/assert.ts'
import { closeCodec } from '../format/record.ts'
import type { ThreadRequest } from './thread-protocol.ts'
import { createThreadWork, type ThreadWork } from './thread-work.ts'

/* A thread of the vault: works for one pool after the other (resting-threads.ts). */

let work: ThreadWork | undefined

// Everything is loaded; see resting-threads.ts.
if (workerData instanceof MessagePort) workerData.postMessage(null)

parentPort?.on('message', (request: ThreadRequest) => {
  if (request.kind === 'begin') {
    work = createThreadWork(request.setup)
    return
  }
  if (request.kind === 'rest' || request.kind === 'end') {
    // With it its memory and its keys are forgotten.
    work = undefined
    closeCodec()
    if (request.kind === 'end') parentPort?.close()
    return
  }
  assert(work !== undefined, 'a thread is told what it works for before anything else')
  switch (request.kind) {
    case 'batch':
      work.addBatch(request.memory)
      return
    case 'known':
      work.replaceKnown(request.memory)
      return
    case 'seal':
      work.seal(request.batch, request.lengths)
      parentPort?.postMessage({ batch: request.batch })
      return
    case 'open':
      parentPort?.postMessage({ batch: request.batch, damaged: work.open(request) })
  }
})
