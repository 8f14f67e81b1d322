import { parentPort, workerData } from 'node:worker_threads'
import koffi from 'koffi'

/* The thread of an acceptor: waits for connections and tells the main thread their descriptors. See acceptor.ts. */

const CLOSE_ON_EXEC_NON_BLOCKING = 0o2004000
const POLL_IN = 1
/** A thread that waits in the kernel cannot be ended, and the process waits for its threads when it exits: this is the
 *  longest that an exit, also one after a broken invariant, is delayed. */
const POLL_MS = 100
/** Pause after the process or the machine ran out of descriptors or memory. */
const SHORTAGE_MS = 100

const { fd } = workerData as { readonly fd: number }
const libc = koffi.load(null)
const poll = libc.func('int poll(void *fds, unsigned long count, int timeoutMs)')
const accept4 = libc.func('int accept4(int fd, void *address, void *length, int flags)')
const { errno } = koffi.os

const entry = Buffer.alloc(8)
entry.writeInt32LE(fd, 0)
entry.writeInt16LE(POLL_IN, 4)
const never = new Int32Array(new SharedArrayBuffer(4))

/** One wait. Returns to the event loop each time, because only there a thread notices that it has been ended. */
function step(): void {
  const ready = poll(entry, 1, POLL_MS) as number
  if (ready < 0 && koffi.errno() !== errno['EINTR']) return
  if (ready > 0) {
    const accepted = accept4(fd, null, null, CLOSE_ON_EXEC_NON_BLOCKING) as number
    if (accepted >= 0) parentPort?.postMessage(accepted)
    else if (!mayGoOn(koffi.errno())) return
  }
  setImmediate(step)
}

/** False when the listener was shut down. */
function mayGoOn(problem: number): boolean {
  const isOneOf = (...names: string[]) => names.some((name) => errno[name] === problem)
  if (isOneOf('EMFILE', 'ENFILE', 'ENOMEM', 'ENOBUFS')) {
    Atomics.wait(never, 0, 0, SHORTAGE_MS)
    return true
  }
  return isOneOf('EINTR', 'EAGAIN', 'ECONNABORTED')
}

step()
