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

for (;;) {
  const ready = poll(entry, 1, POLL_MS) as number
  if (ready < 0 && koffi.errno() !== errno['EINTR']) break
  if (ready <= 0) continue
  const accepted = accept4(fd, null, null, CLOSE_ON_EXEC_NON_BLOCKING) as number
  if (accepted >= 0) {
    parentPort?.postMessage(accepted)
    continue
  }
  const problem = koffi.errno()
  const shortage = ['EMFILE', 'ENFILE', 'ENOMEM', 'ENOBUFS'].some((name) => errno[name] === problem)
  const passing = ['EINTR', 'EAGAIN', 'ECONNABORTED'].some((name) => errno[name] === problem)
  if (shortage) Atomics.wait(never, 0, 0, SHORTAGE_MS)
  else if (!passing) break // the listener was shut down
}
