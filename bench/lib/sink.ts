import { closeSync, constants, fdatasyncSync, openSync } from 'node:fs'
import { connect } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { readWholeSync, writeWholeSync } from '#base/system/whole-io.ts'

/* Takes bytes from a port until they end: the other end of `streamBytesPerSecond`. Dials, as a replica does. Does nothing with the bytes, or writes them to a
 * file as they come and makes them durable at the end.
 * Argument: {"port", "tls"?: {"ca","cert","key"}, "into"?: {"path", "kept"?}}. Says how many bytes it took when the stream has ended. */

/** What the stream is written to. `kept`: a file that each stretch of `path` is preserved in, durably, before it is overwritten. */
export interface Into {
  readonly path: string
  readonly kept?: string
}

interface Arguments {
  readonly port: number
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string }
  readonly into?: Into
}

/** What one step of a kept copy preserves at a time. */
const PRESERVED_BYTES = 8 * 1024 * 1024

const { port, tls, into } = JSON.parse(process.argv[2] ?? '{}') as Arguments
const opened = (path: string) => openSync(path, constants.O_RDWR | constants.O_CREAT)
const file = into === undefined ? null : opened(into.path)
const kept = into?.kept === undefined ? null : opened(into.kept)
const stretch = Buffer.alloc(kept === null ? 0 : PRESERVED_BYTES)
let bytes = 0
let preservedBytes = 0

function preserve(fd: number, keptFd: number, end: number): void {
  for (; preservedBytes < end; preservedBytes += PRESERVED_BYTES) {
    const got = readWholeSync(fd, stretch, preservedBytes)
    writeWholeSync(keptFd, stretch, preservedBytes, 0, got)
    fdatasyncSync(keptFd)
  }
}

function take(chunk: Uint8Array): void {
  if (file !== null) {
    if (kept !== null) preserve(file, kept, bytes + chunk.length)
    writeWholeSync(file, chunk, bytes)
  }
  bytes += chunk.length
}

const host = '127.0.0.1'
const memory = Buffer.alloc(1024 * 1024)
const socket =
  tls === undefined
    ? connect({
        host,
        port,
        onread: {
          buffer: memory,
          callback(length) {
            take(memory.subarray(0, length))
            return true
          },
        },
      })
    : connectTls({ ...tls, host, port, servername: '' })
if (tls !== undefined) socket.on('data', take)
socket.on('end', () => {
  if (file !== null) {
    fdatasyncSync(file)
    closeSync(file)
  }
  process.send?.(bytes, () => process.exit(0))
})
