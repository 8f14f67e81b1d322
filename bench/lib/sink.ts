import { connect } from 'node:net'
import { connect as connectTls } from 'node:tls'

/* Takes bytes from a port until they end, and does nothing with them: the other end of `streamBytesPerSecond`. Dials, as a replica does.
 * Argument: {"port", "tls"?: {"ca","cert","key"}}. Says {"bytes"} when the stream has ended. */

interface Arguments {
  readonly port: number
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string }
}

const { port, tls } = JSON.parse(process.argv[2] ?? '{}') as Arguments
let bytes = 0
const host = '127.0.0.1'
const socket =
  tls === undefined
    ? connect({
        host,
        port,
        onread: {
          buffer: Buffer.alloc(1024 * 1024),
          callback(length) {
            bytes += length
            return true
          },
        },
      })
    : connectTls({ ...tls, host, port, servername: '' })
if (tls !== undefined) {
  socket.on('data', (chunk: Buffer) => {
    bytes += chunk.length
  })
}
socket.on('end', () => {
  process.send?.(bytes, () => process.exit(0))
})
