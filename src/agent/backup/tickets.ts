import { createHmac, timingSafeEqual } from 'node:crypto'
import { Fault } from '#base/fault.ts'
import { TICKET_TOO_LARGE } from './faults.ts'

/* The right to send one replica here: what it is for, until when, and a proof that this agent said so. Nothing is kept but the key. A ticket is as good
 * as its holder, so it goes over TLS only, ends soon, and is in no log. */

export interface Ticket {
  readonly replica: string
  readonly labels: Readonly<Record<string, string>>
  /** ms since 1970. */
  readonly expiresMs: number
}

const VERSION = 1
/** It travels in a header, of which a server takes 16 KiB in all. */
export const TICKET_CHARS_MAX = 4096

/** Throws TICKET_TOO_LARGE. */
export function makeTicket(key: Buffer, { replica, labels, expiresMs }: Ticket): string {
  const content = { v: VERSION, replica, labels, expires_ms: expiresMs }
  const text = Buffer.from(JSON.stringify(content)).toString('base64url')
  const ticket = `${text}.${proofOf(key, text).toString('base64url')}`
  if (ticket.length > TICKET_CHARS_MAX) {
    throw new Fault(TICKET_TOO_LARGE, `admitting replica ${replica}`)
  }
  return ticket
}

/** undefined: not of this agent, or over. */
export function readTicket(key: Buffer, ticket: string, nowMs: number): Ticket | undefined {
  if (ticket.length > TICKET_CHARS_MAX) return undefined
  const [text = '', proof = '', ...rest] = ticket.split('.')
  const told = Buffer.from(proof, 'base64url')
  const right = proofOf(key, text)
  if (rest.length > 0 || told.length !== right.length || !timingSafeEqual(told, right)) {
    return undefined
  }
  const content = JSON.parse(Buffer.from(text, 'base64url').toString()) as {
    readonly replica: string
    readonly labels: Record<string, string>
    readonly expires_ms: number
  }
  if (content.expires_ms <= nowMs) return undefined
  return { replica: content.replica, labels: content.labels, expiresMs: content.expires_ms }
}

const proofOf = (key: Buffer, text: string): Buffer =>
  createHmac('sha256', key).update(`holdfast replica ticket ${text}`).digest()
