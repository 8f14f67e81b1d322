import { parentPort, workerData } from 'node:worker_threads'
import { closeCodec } from '../format/record.ts'
import type { ThreadRequest, ThreadSetup } from './thread-protocol.ts'
import { createThreadWork } from './thread-work.ts'

/* A thread of the vault. */

const work = createThreadWork(workerData as ThreadSetup)

parentPort?.on('message', (request: ThreadRequest) => {
  switch (request.kind) {
    case 'known':
      work.replaceKnown(request.memory)
      return
    case 'seal':
      work.seal(request.batch, request.lengths)
      parentPort?.postMessage({ batch: request.batch })
      return
    case 'open':
      parentPort?.postMessage({ batch: request.batch, damaged: work.open(request) })
      return
    case 'end':
      closeCodec()
      parentPort?.close()
  }
})
