import { setPriority } from 'node:os'
import { parentPort, workerData } from 'node:worker_threads'
import { systemClock } from '#base/system/clock.ts'
import { Engine, type NicCounters, type Paths } from './engine.ts'
import type { Pace } from './pace.ts'
import type { Asked } from './questions.ts'
import type { Nic } from './table.ts'
import type { Question } from './tcp-client.ts'

/* The thread of the switch: waits for frames and, between turns, for the main thread's requests. See switchboard.ts. */

export interface ThreadData {
  readonly pace: Pace
}

export type ToThread = { readonly id: number } & (
  | { readonly kind: 'plug'; readonly nic: Nic; readonly paths: Paths }
  | { readonly kind: 'unplug'; readonly key: string }
  | { readonly kind: 'counters' }
  | { readonly kind: 'prod'; readonly key: string }
  /** Answered when the outcome is known. `endMs` is CLOCK_BOOTTIME, as in all threads. */
  | { readonly kind: 'ask'; readonly key: string; readonly question: Question }
  /** Ending the thread does not close its descriptors. */
  | { readonly kind: 'close' }
)

/** One answer for each request. */
export type FromThread = { readonly id: number } & (
  | { readonly kind: 'done'; readonly counters?: ReadonlyMap<string, NicCounters> }
  | { readonly kind: 'asked'; readonly asked: Asked }
  | { readonly kind: 'failed'; readonly code: string; readonly text: string }
)

/** A thread that waits in the kernel hears nothing else, and the process waits for its threads when it exits: so much later is a NIC
 *  plugged at worst, and so much later does the process end. */
const WAIT_MS = 50

/** Below the disks and the replication of the agent (0), above its guests (5): frames wait for disks, and guests for their frames. */
const NICE = 3
// On Linux this is the thread's own, not the process's.
setPriority(NICE)

const { pace } = workerData as ThreadData
const engine = new Engine(pace, () => systemClock.bootMs())
let running = false

// The descriptors are the process's and outlive the thread; the next one begins with descriptors of its own.
process.on('uncaughtExceptionMonitor', () => engine.close())

/** Returns to the event loop each time, because only there requests arrive and the thread notices that it has been ended. */
function step(): void {
  engine.turn(WAIT_MS)
  running = !engine.idle
  if (running) setImmediate(step)
}

parentPort?.on('message', (message: ToThread) => {
  if (message.kind === 'ask') ask(message)
  else parentPort?.postMessage(carryOut(message))
  if (running || engine.idle) return
  running = true
  setImmediate(step)
})

function ask({ id, key, question }: Extract<ToThread, { kind: 'ask' }>): void {
  const send = Buffer.from(question.send) // it comes as plain bytes
  engine.ask(key, { ...question, send }, (asked) => {
    parentPort?.postMessage({ id, kind: 'asked', asked } satisfies FromThread)
  })
}

function carryOut(message: Exclude<ToThread, { kind: 'ask' }>): FromThread {
  const { id } = message
  try {
    switch (message.kind) {
      case 'plug':
        engine.plug(message.nic, message.paths)
        return { id, kind: 'done' }
      case 'unplug':
        engine.unplug(message.key)
        return { id, kind: 'done' }
      case 'prod':
        engine.prod(message.key)
        return { id, kind: 'done' }
      case 'close':
        engine.close()
        return { id, kind: 'done' }
      case 'counters':
        return { id, kind: 'done', counters: engine.counters() }
    }
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'UNKNOWN'
    return { id, kind: 'failed', code, text: String(error) }
  }
}
