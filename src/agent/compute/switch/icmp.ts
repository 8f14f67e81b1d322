import { checksum, type Ipv4 } from './ipv4.ts'

/* The messages that a gateway answers with. */

const HEADER_BYTES = 8
const ECHO_REPLY = 0
const UNREACHABLE = 3
const ECHO_REQUEST = 8
const TIME_EXCEEDED = 11
/** Of the packet that an error is about: its header and this much more. */
const QUOTED_BYTES = 8
/** Types that are questions or answers; everything else is an error, and nobody answers errors with errors. */
const QUERIES = new Set([0, 8, 9, 10, 13, 14, 15, 16, 17, 18])

/** The reply to an echo request; undefined: it is none, or damaged. */
export function echoReply(message: Buffer): Buffer | undefined {
  if (message.length < HEADER_BYTES || message[0] !== ECHO_REQUEST || message[1] !== 0) {
    return undefined
  }
  if (checksum(message) !== 0) return undefined
  const reply = Buffer.from(message)
  reply[0] = ECHO_REPLY
  return withChecksum(reply)
}

/** No way to the destination: `host` unknown in a network there is, or no such network in the domain. */
export const unreachable = (about: Ipv4, what: 'network' | 'host'): Buffer =>
  error(UNREACHABLE, what === 'network' ? 0 : 1, about)

export const timeExceeded = (about: Ipv4): Buffer => error(TIME_EXCEEDED, 0, about)

/** Whether an error about this packet may be sent: never about an error, nor about a later fragment. */
export const mayComplainAbout = (ip: Ipv4): boolean =>
  ip.fragmentOffset === 0 && (ip.protocol !== 1 || QUERIES.has(ip.payload[0] ?? -1))

function error(type: number, code: number, about: Ipv4): Buffer {
  const quoted = about.packet.subarray(0, about.headerBytes + QUOTED_BYTES)
  const message = Buffer.alloc(HEADER_BYTES + quoted.length)
  message[0] = type
  message[1] = code
  message.set(quoted, HEADER_BYTES)
  return withChecksum(message)
}

function withChecksum(message: Buffer): Buffer {
  message.writeUInt16BE(0, 2)
  message.writeUInt16BE(checksum(message), 2)
  return message
}
