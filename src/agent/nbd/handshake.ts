import { ByteReader } from '#base/system/byte-reader.ts'
import type { ByteStream } from '#base/system/byte-stream.ts'
import { HANDSHAKE, NAME_BYTES_MAX } from '#wire/nbd/constants.ts'
import {
  CLIENT_FLAGS_BYTES,
  decodeClientFlags,
  decodeOptionHeader,
  encodeGreeting,
  OPTION_HEADER_BYTES,
} from '#wire/nbd/handshake.ts'
import { type Agreement, Negotiation } from './negotiation.ts'
import type { Export, OpenRefusal } from './exports.ts'

/** Longest data of one option: a name and a few queries. Longer: the connection ends, because skipping it would cost more
 *  than the client is owed. */
const OPTION_BYTES_MAX = 4 * NAME_BYTES_MAX
/** Options of one handshake. Real clients send fewer than ten. Beyond it the connection ends. */
const OPTIONS_MAX = 64

export interface HandshakeSettings {
  readonly tls: 'none' | 'required'
  /** Upgrades the raw stream; resolves with the encrypted one and the common name of the client's certificate. */
  secure(
    stream: ByteStream,
  ): Promise<{ readonly stream: ByteStream; readonly client: string | undefined }>
  /** `client`: common name of the certificate, undefined without TLS. */
  open(name: string, client: string | undefined): Export | OpenRefusal
  names(client: string | undefined): readonly string[]
}

export interface Established {
  readonly stream: ByteStream
  readonly early: Buffer
  readonly agreement: Agreement
}

/** Negotiates until the transmission phase begins. Undefined: the client ended it properly. Rejects with the reason when it
 *  did not, or spoke nonsense; the caller then closes the stream. Time is limited by the caller too. */
export async function shakeHands(
  raw: ByteStream,
  settings: HandshakeSettings,
): Promise<Established | undefined> {
  let stream = raw
  let client: string | undefined
  let reader = new ByteReader(stream)
  stream.duplex.write(encodeGreeting(HANDSHAKE.FIXED_NEWSTYLE | HANDSHAKE.NO_ZEROES))
  const flags = decodeClientFlags(await reader.take(CLIENT_FLAGS_BYTES))
  if (flags === undefined) throw new Error('unknown client flags')
  const negotiation = new Negotiation(
    {
      tls: settings.tls,
      open: (name) => settings.open(name, client),
      names: () => settings.names(client),
    },
    { noZeroes: (flags & HANDSHAKE.NO_ZEROES) !== 0 },
  )
  for (let count = 0; count < OPTIONS_MAX; count++) {
    const header = decodeOptionHeader(await reader.take(OPTION_HEADER_BYTES))
    if (header === undefined) throw new Error('an option had the wrong magic')
    if (header.length > OPTION_BYTES_MAX) {
      throw new Error(`an option of ${header.length} bytes, at most ${OPTION_BYTES_MAX} are read`)
    }
    const answer = negotiation.answer(header, await reader.take(header.length))
    if (answer.bytes.length > 0) stream.duplex.write(answer.bytes)
    switch (answer.next) {
      case 'option':
        break
      case 'close':
        reader.detach()
        stream.duplex.end()
        return undefined
      case 'serve':
        return { stream, early: reader.detach(), agreement: answer.agreement }
      case 'tls': {
        // Bytes behind STARTTLS but before the encryption could come from somebody in between.
        if (reader.detach().length > 0) throw new Error('data between STARTTLS and TLS')
        const secured = await settings.secure(stream)
        stream = secured.stream
        client = secured.client
        reader = new ByteReader(stream)
        negotiation.becameSecure()
        break
      }
    }
  }
  throw new Error(`more than ${OPTIONS_MAX} options`)
}
