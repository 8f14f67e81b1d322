import { createServer, type Socket } from 'node:net'
import { chmod } from 'node:fs/promises'
import { canAccept, type ListenAddress, startAcceptor } from '#base/system/acceptor.ts'
import { type ByteStream, fromDescriptor, fromDuplex } from '#base/system/byte-stream.ts'
import { Fault } from '#base/fault.ts'
import { NBD_LISTEN_FAILED } from './faults.ts'

/* Two ways to take connections, told apart by what their bytes cost; docs/decisions/0021 has the measurements. */

export type Arrival = ByteStream & { readonly duplex: Socket }

export interface Door {
  /** TCP only. */
  readonly port: number | undefined
  /** Takes no further connections; the open ones go on. Resolves when the address is free. */
  close(): Promise<void>
}

/** A dead client's host is noticed by TCP keep-alive after this long without traffic (then nine probes of the kernel). */
const KEEP_ALIVE_MS = 60_000

/** Opens the door at `where`. `bulk`: the bytes go from the socket to the data path as they are, without TLS in between. */
export async function openDoorAt(
  where: ListenAddress,
  { bulk }: { readonly bulk: boolean },
  onArrival: (arrival: Arrival) => void,
): Promise<Door> {
  try {
    return bulk && canAccept()
      ? await acceptDescriptors(where, onArrival)
      : await acceptSockets(where, onArrival)
  } catch (error) {
    throw new Fault(NBD_LISTEN_FAILED, `listening at ${JSON.stringify(where)}`, {}, error)
  }
}

function acceptDescriptors(
  where: ListenAddress,
  onArrival: (arrival: Arrival) => void,
): Promise<Door> {
  return startAcceptor(where, (fd) => {
    const arrival = fromDescriptor(fd)
    if ('port' in where) {
      arrival.duplex.setNoDelay(true)
      arrival.duplex.setKeepAlive(true, KEEP_ALIVE_MS)
    }
    onArrival(arrival)
  })
}

async function acceptSockets(
  where: ListenAddress,
  onArrival: (arrival: Arrival) => void,
): Promise<Door> {
  const server = createServer({
    allowHalfOpen: true,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: KEEP_ALIVE_MS,
  })
  server.on('connection', (socket) => onArrival({ ...fromDuplex(socket), duplex: socket }))
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(where, resolve)
  })
  if ('mode' in where) await chmod(where.path, where.mode)
  const address = server.address()
  return {
    port: typeof address === 'object' ? address?.port : undefined,
    close: () => {
      // Its callback would wait for the connections; the address is free at once.
      server.close()
      return Promise.resolve()
    },
  }
}
