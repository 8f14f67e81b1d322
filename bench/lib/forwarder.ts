import { connect, createServer, type Socket } from 'node:net'

/* A link with latency: forwards TCP connections and hands every chunk on after a fixed time, in a process of its own.
 *
 *     forwarder.ts DELAY_MS PORT...      prints the ports where it listens, in the order of the targets
 *
 * Timers of the event loop have whole milliseconds, so while something is on its way the loop naps for at most SLICE_MS at a time and looks
 * for new bytes in between. The napping makes a delay up to 0.1 ms longer; whoever measures must therefore hold a figure against
 * a ping-pong through the same forwarder, not against the delay asked for. Bandwidth is not limited, and nothing is lost. */

const SLICE_MS = 0.04

interface OnItsWay {
  readonly dueMs: number
  readonly to: Socket
  /** null: the other end has ended. */
  readonly chunk: Buffer | null
}

const [delay = '', ...targets] = process.argv.slice(2)
const delayMs = Number(delay)
// Every chunk waits equally long, so they leave in the order in which they came.
const queue: OnItsWay[] = []
const cell = new Int32Array(new SharedArrayBuffer(4))
let turning = false

function turn(): void {
  const now = performance.now()
  for (let first = queue[0]; first !== undefined && first.dueMs <= now; first = queue[0]) {
    queue.shift()
    if (first.chunk === null) first.to.end()
    else first.to.write(first.chunk)
  }
  const next = queue[0]
  turning = next !== undefined
  if (next === undefined) return
  Atomics.wait(cell, 0, 0, Math.max(0, Math.min(SLICE_MS, next.dueMs - performance.now())))
  setImmediate(turn)
}

function send(to: Socket, chunk: Buffer | null): void {
  queue.push({ dueMs: performance.now() + delayMs, to, chunk })
  if (turning) return
  turning = true
  setImmediate(turn)
}

function forward(from: Socket, to: Socket): void {
  from.on('data', (chunk: Buffer) => send(to, chunk))
  from.on('end', () => send(to, null))
  from.on('error', () => to.destroy())
  from.on('close', () => to.destroy())
}

const ports = await Promise.all(
  targets.map(
    (port) =>
      new Promise<number>((resolve) => {
        const server = createServer({ noDelay: true, allowHalfOpen: true }, (near) => {
          const far = connect({
            host: '127.0.0.1',
            port: Number(port),
            noDelay: true,
            allowHalfOpen: true,
          })
          forward(near, far)
          forward(far, near)
        })
        server.listen(0, '127.0.0.1', () => {
          const address = server.address()
          resolve(typeof address === 'object' && address !== null ? address.port : 0)
        })
      }),
  ),
)
console.log(JSON.stringify(ports))
