/** One of several workers of a campaign: runs the batches of seeds that it is given, and answers with what they showed. */
import { parentPort } from 'node:worker_threads'
import { assert } from '#base/assert.ts'
import { type Batch, runBatch, type Work } from './campaign.ts'

const port = parentPort
assert(port !== null, 'started by a campaign')
port.on('message', (work: Work) => {
  const batch: Batch = runBatch(work)
  port.postMessage(batch)
})
