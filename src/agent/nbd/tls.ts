import type { Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { fromDuplex } from '#base/system/byte-stream.ts'
import type { HandshakeSettings } from './handshake.ts'

/* STARTTLS on the server's side. */

export interface NbdTlsSettings {
  /** PEM. Clients must show a certificate of this authority unless `clientCertificates` is false. */
  readonly ca: string
  readonly cert: string
  readonly key: string
  readonly clientCertificates?: boolean
}

/** What a listener offers when a client asks for encryption. */
export interface Upgrade {
  readonly tls: 'none' | 'required'
  readonly secure: HandshakeSettings['secure']
}

export const NO_TLS: Upgrade = {
  tls: 'none',
  secure: () => Promise.reject(new Error('TLS is not offered here')),
}

/** One TLS server without a port of its own; connections are handed to it when the client says STARTTLS. It also does
 *  the judging of client certificates, which a bare TLSSocket on the server side does not. */
export function tlsUpgrade(settings: NbdTlsSettings, handshakeMsMax: number): Upgrade {
  const { ca, cert, key, clientCertificates = true } = settings
  const server = createServer({
    ca,
    cert,
    key,
    requestCert: clientCertificates,
    rejectUnauthorized: clientCertificates,
    minVersion: 'TLSv1.2',
    allowHalfOpen: true,
    handshakeTimeout: handshakeMsMax,
  })
  // The server does not say which raw socket an encrypted one belongs to; its two addresses do.
  const waiting = new Map<string, (secured: TLSSocket) => void>()
  server.on('secureConnection', (secured) => {
    const wake = waiting.get(addressesOf(secured))
    if (wake === undefined) secured.destroy()
    else wake(secured)
  })
  server.on('tlsClientError', (_error, secured) => secured.destroy())
  return {
    tls: 'required',
    secure: (raw) => {
      const socket = raw.duplex as Socket
      const addresses = addressesOf(socket)
      return new Promise((resolve, reject) => {
        const onClose = () => {
          waiting.delete(addresses)
          reject(new Error('the TLS handshake failed'))
        }
        socket.once('close', onClose)
        waiting.set(addresses, (secured) => {
          waiting.delete(addresses)
          socket.off('close', onClose)
          secured.on('error', IGNORE)
          const client = clientCertificates ? secured.getPeerCertificate().subject?.CN : undefined
          resolve({
            stream: fromDuplex(secured),
            client: Array.isArray(client) ? client[0] : client,
          })
        })
        server.emit('connection', socket)
      })
    },
  }
}

const addressesOf = (socket: Socket): string =>
  `${socket.remoteAddress} ${socket.remotePort} ${socket.localAddress} ${socket.localPort}`

const IGNORE = () => {}
