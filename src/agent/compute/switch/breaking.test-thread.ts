import { parentPort } from 'node:worker_threads'
import type { ToThread } from './thread.ts'

/* The switch's thread with a mistake in it: it breaks when it is asked for its counters. */

parentPort?.on('message', ({ kind }: ToThread) => {
  if (kind === 'counters') throw new Error('a mistake, made for a test')
})
// Not before the listener above: nothing is missed.
await import('./thread.ts')
