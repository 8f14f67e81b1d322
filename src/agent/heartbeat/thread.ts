import { parentPort, workerData } from 'node:worker_threads'
import { systemClock } from '#base/system/clock.ts'
import type { BeatGreeting } from '#wire/link/beat.ts'
import { MomentCell, PeerCells } from './board.ts'
import { type Address, type BeatSecurity, Exchange } from './exchange.ts'

/* The heartbeat thread: real clock and sockets for an exchange, and the messages of the main thread. See heartbeats.ts. */

export interface ThreadData {
  readonly listen: Address
  readonly security: BeatSecurity
  readonly self: BeatGreeting
  readonly heartbeatMs: number
  readonly silenceMs: number
  readonly moved: SharedArrayBuffer
}

export type ToThread =
  | {
      readonly kind: 'watch'
      readonly run: string
      readonly memory: SharedArrayBuffer
      readonly dial: Address | null
    }
  | { readonly kind: 'end'; readonly run: string }

export type FromThread =
  | { readonly kind: 'listening'; readonly port: number }
  | { readonly kind: 'refused'; readonly code: string; readonly text: string }
  | { readonly kind: 'note'; readonly text: string; readonly about: Record<string, unknown> }

const { moved, ...data } = workerData as ThreadData
const tell = (message: FromThread): void => parentPort?.postMessage(message)

const exchange = new Exchange({
  ...data,
  moved: new MomentCell(moved),
  clock: systemClock,
  note: (text, about) => tell({ kind: 'note', text, about }),
})
parentPort?.on('message', (message: ToThread) => {
  if (message.kind === 'end') exchange.end(message.run)
  else exchange.watch(message.run, new PeerCells(message.memory), message.dial)
})
exchange.start().then(
  (port) => tell({ kind: 'listening', port }),
  (error: unknown) => {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'UNKNOWN'
    tell({ kind: 'refused', code, text: String(error) })
  },
)
