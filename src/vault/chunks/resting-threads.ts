import { MessageChannel, Worker } from 'node:worker_threads'
import { REST_MS, THREADS_MAX } from '../limits.ts'
import type { ThreadRequest } from './thread-protocol.ts'

/* Threads that have nothing to do. Starting one takes 60 ms, as long as a small backup, and an agent makes one small backup after the other: so whoever is done
 * lets its threads rest here for a while, where they have forgotten keys and batches, and the next one takes them. They do not keep the process. */

interface Resting {
  readonly thread: Worker
  readonly end: NodeJS.Timeout
}

const resting: Resting[] = []

/** One that rests, or a new one. It has no listeners and does not keep the process. */
export function takeThread(): Worker {
  const found = resting.pop()
  if (found !== undefined) {
    clearTimeout(found.end)
    forgetListeners(found.thread)
    return found.thread
  }
  // A process that ends while one of its threads loads native code dies of it, so it is kept until that is over, and no longer.
  const { port1: loaded, port2: port } = new MessageChannel()
  loaded.once('message', () => loaded.close())
  const made = new Worker(new URL('./thread.ts', import.meta.url), {
    workerData: port,
    transferList: [port],
  })
  made.unref()
  return made
}

/** Takes a thread that owes nobody an answer: the next one would take that for his. Beyond so many, or after a while, it ends. */
export function restThread(thread: Worker): void {
  forgetListeners(thread)
  if (resting.length >= THREADS_MAX) {
    endThread(thread)
    return
  }
  send(thread, { kind: 'rest' })
  thread.unref()
  const forget = () => {
    const at = resting.findIndex((one) => one.thread === thread)
    const found = at < 0 ? undefined : resting.splice(at, 1)[0]
    if (found !== undefined) clearTimeout(found.end)
  }
  // One that dies while it rests is only not there any more.
  thread.on('error', forget)
  thread.on('exit', forget)
  const end = setTimeout(() => {
    forget()
    endThread(thread)
  }, REST_MS)
  end.unref()
  resting.push({ thread, end })
}

/** When it has done what it was asked for. */
export function endThread(thread: Worker): void {
  // Nobody waits for what it still fails at.
  thread.on('error', () => undefined)
  send(thread, { kind: 'end' })
  thread.unref()
}

const send = (thread: Worker, request: ThreadRequest): void => thread.postMessage(request)

/** Those of the pool; Node has some of its own. */
function forgetListeners(thread: Worker): void {
  for (const event of ['message', 'error', 'exit']) thread.removeAllListeners(event)
}
