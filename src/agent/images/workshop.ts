import { Worker } from 'node:worker_threads'
import type { ImageRecord } from './record.ts'

/* Making images takes seconds of computing and minutes of waiting for packages. It is done in a thread of its own, so that the agent's
 * loop, which answers for disks, is not held up. A thread per image; the lock in the directory lets one work at a time, also among processes. */

export interface WorkshopTask {
  readonly directory: string
  readonly image: string
  /** False: the file is there, its checksum is not. */
  readonly builtIn: boolean
}

export type WorkshopMessage =
  | { readonly kind: 'said'; readonly text: string }
  | { readonly kind: 'made'; readonly record: ImageRecord }
  | { readonly kind: 'failed'; readonly reason: string }

export interface WorkshopJob {
  /** The record of the finished image, or why there is none. Never rejects. */
  readonly result: Promise<ImageRecord | { readonly failed: string }>
  /** Ends it, its programs included; a later one begins anew. */
  stop(): Promise<void>
}

export function startWorkshop(task: WorkshopTask, say: (text: string) => void): WorkshopJob {
  const thread = new Worker(new URL('./workshop-thread.ts', import.meta.url), {
    workerData: task,
    execArgv: [], // flags of the main thread (profiling, input types) are not meant for this one
  })
  const ended = new Promise<void>((resolve) => thread.once('exit', () => resolve()))
  const result = new Promise<ImageRecord | { readonly failed: string }>((resolve) => {
    thread.on('message', (message: WorkshopMessage) => {
      if (message.kind === 'said') say(message.text)
      else if (message.kind === 'made') resolve(message.record)
      else resolve({ failed: message.reason })
    })
    thread.once('error', (error) => resolve({ failed: String(error) }))
    thread.once('exit', () => resolve({ failed: 'the thread that made it ended' }))
  })
  return {
    result,
    async stop() {
      thread.postMessage('stop')
      await ended
    },
  }
}
