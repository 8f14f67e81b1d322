import { type Duplex, duplexPair } from 'node:stream'
import { fromDuplex } from '#base/system/byte-stream.ts'
import { type NbdClient, openNbd } from '#client/nbd/client.ts'
import { OPT } from '#wire/nbd/constants.ts'
import { encodeClientFlags, encodeExportRequest, encodeOption } from '#wire/nbd/handshake.ts'
import { emptyRequest, REQUEST_BYTES, writeRequest } from '#wire/nbd/transmission.ts'
import { MemoryBudget } from './budget.ts'
import { Connection } from './connection.ts'
import { type Device, type Io, IO_ERRORS, type IoError } from './device.ts'
import { ExportTable } from './exports.ts'
import { shakeHands } from './handshake.ts'
import { ReceiveSlabs } from './receive-slabs.ts'

/* What tests of a connection stand on: a device in memory, and both ends of a stream between a client and the server. */

const MIB = 1024 * 1024

/** Keeps its bytes in memory, remembers what it was asked, and can hold requests back or fail them. */
export class MemoryDevice implements Device {
  readonly bytes: Buffer
  readonly seen: (Pick<Io, 'kind' | 'offset' | 'length' | 'fua' | 'mayUnmap' | 'more'> & {
    readonly batch: number
  })[] = []
  held: Io[] = []
  hold = false
  error: IoError = IO_ERRORS.ok
  #batches = 0

  constructor(sizeBytes: number) {
    this.bytes = Buffer.alloc(sizeBytes)
  }

  get sizeBytes(): number {
    return this.bytes.length
  }

  submit(batch: readonly Io[], count: number): void {
    this.#batches++
    for (const io of batch.slice(0, count)) {
      const { kind, offset, length, fua, mayUnmap, more } = io
      this.seen.push({ kind, offset, length, fua, mayUnmap, more, batch: this.#batches })
      if (this.hold) this.held.push(io)
      else this.finish(io)
    }
  }

  finish(io: Io): void {
    const { offset, length, slab, at } = io
    if (this.error === 0) {
      if (io.kind === 'write') slab?.bytes.copy(this.bytes, offset, at, at + length)
      if (io.kind === 'read')
        this.bytes.copy(slab?.bytes ?? Buffer.alloc(0), at, offset, offset + length)
      if (io.kind === 'zero') this.bytes.fill(0, offset, offset + length)
      if (io.kind === 'extents') io.extents = [{ offset, length, hole: false }]
    }
    io.complete(this.error)
  }

  finishAll(): void {
    for (const io of this.held.splice(0)) this.finish(io)
  }
}

/** The server's side of one connection over any stream. */
export async function serve(
  stream: Duplex,
  exports: ExportTable,
  slabs: ReceiveSlabs,
): Promise<void> {
  try {
    const established = await shakeHands(fromDuplex(stream), {
      tls: 'none',
      secure: () => Promise.reject(new Error('no TLS here')),
      open: (name) => exports.open(name),
      names: () => exports.names(),
    })
    if (established === undefined) return
    new Connection({ ...established, slabs, budget: new MemoryBudget(), onClosed: () => {} })
  } catch {
    stream.destroy()
  }
}

/** Two ends of a connection; the death of one is seen by the other, as with sockets. */
export function socketPair(): [Duplex, Duplex] {
  const [near, far] = duplexPair({ allowHalfOpen: true })
  near.once('close', () => far.destroy())
  far.once('close', () => near.destroy())
  return [near, far]
}

export async function connectTo(exports: ExportTable, slabs: ReceiveSlabs): Promise<NbdClient> {
  const [near, far] = socketPair()
  void serve(far, exports, slabs)
  return openNbd(near, 'vol')
}

/** What a client sends until its requests begin. */
export const handshakeBytes = (name: string): Buffer =>
  Buffer.concat([
    encodeClientFlags(3),
    encodeOption(OPT.GO, encodeExportRequest({ name, infos: [] })),
  ])

export function setUp(device = new MemoryDevice(64 * MIB)) {
  const exports = new ExportTable()
  exports.serve('vol', device)
  const slabs = new ReceiveSlabs()
  const open = () => connectTo(exports, slabs)
  return { device, exports, slabs, open }
}

/** Lets everything that is on its way arrive. */
export const settle = async () => {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve))
}

/** One request of a client, as it is on the wire. */
export const request = (fields: Partial<ReturnType<typeof emptyRequest>>): Buffer => {
  const bytes = Buffer.alloc(REQUEST_BYTES)
  writeRequest(bytes, 0, { ...emptyRequest(), ...fields })
  return bytes
}

/** A raw stream whose other end is the server. Collects what comes back. */
export function raw(
  exports: ExportTable,
  slabs: ReceiveSlabs,
): { stream: Duplex; received: Buffer[] } {
  const [stream, other] = socketPair()
  const received: Buffer[] = []
  stream.on('data', (chunk: Buffer) => received.push(chunk))
  stream.on('error', () => {}) // hostile tests end streams in every way
  void serve(other, exports, slabs)
  return { stream, received }
}
