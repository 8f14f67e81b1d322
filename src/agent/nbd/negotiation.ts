import { BASE_ALLOCATION, INFO, OPT, REP, TRANSMISSION } from '#wire/nbd/constants.ts'
import {
  decodeExportName,
  decodeExportRequest,
  decodeMetaContextRequest,
  encodeExportNameReply,
  encodeInfo,
  encodeMetaContext,
  encodeOptionReply,
  encodeServer,
  type OptionHeader,
} from '#wire/nbd/handshake.ts'
import { Export, type OpenRefusal } from './exports.ts'

/* The option phase of one connection, without its socket: takes one option, answers with bytes and what happens next.
 *
 *     options ──► tls ──► options ──► serve
 *        └──────────────────────────────┘        or close at any point
 *
 * Everything that was agreed before TLS is forgotten when TLS begins: it could have come from somebody in between.
 */

/** Requests may have any offset and length; 4 KiB is what page cache and disk like. */
const BLOCK_MINIMUM = 1
const BLOCK_PREFERRED = 4096
/** Largest READ or WRITE. What clients assume when nothing is said, so none is surprised. Larger: the connection ends. */
export const REQUEST_BYTES_MAX = 32 * 1024 * 1024
export const ALLOCATION_CONTEXT_ID = 1

const TRANSMISSION_FLAGS =
  TRANSMISSION.HAS_FLAGS |
  TRANSMISSION.SEND_FLUSH |
  TRANSMISSION.SEND_FUA |
  TRANSMISSION.SEND_TRIM |
  TRANSMISSION.SEND_WRITE_ZEROES |
  TRANSMISSION.CAN_MULTI_CONN

const flagsOf = ({ device }: Export): number =>
  device.readOnly === true ? TRANSMISSION_FLAGS | TRANSMISSION.READ_ONLY : TRANSMISSION_FLAGS

export interface NegotiationSettings {
  /** none: no encryption here · required: nothing but STARTTLS before it */
  readonly tls: 'none' | 'required'
  /** The export, or why this client may not have it. */
  open(name: string): Export | OpenRefusal
  names(): readonly string[]
}

export interface Agreement {
  readonly export: Export
  readonly structured: boolean
  readonly allocation: boolean
}

export type Answer =
  | { readonly next: 'option' | 'tls' | 'close'; readonly bytes: Buffer }
  | { readonly next: 'serve'; readonly bytes: Buffer; readonly agreement: Agreement }

const NOTHING = Buffer.alloc(0)

export class Negotiation {
  readonly #settings: NegotiationSettings
  readonly #noZeroes: boolean
  #secure = false
  #structured = false
  /** The export for which base:allocation was selected last. */
  #allocationOf: string | undefined

  constructor(settings: NegotiationSettings, { noZeroes }: { readonly noZeroes: boolean }) {
    this.#settings = settings
    this.#noZeroes = noZeroes
  }

  /** The TLS handshake succeeded. */
  becameSecure(): void {
    this.#secure = true
    this.#structured = false
    this.#allocationOf = undefined
  }

  answer({ option }: OptionHeader, data: Buffer): Answer {
    if (this.#settings.tls === 'required' && !this.#secure) {
      if (option === OPT.EXPORT_NAME) return { next: 'close', bytes: NOTHING }
      if (option !== OPT.STARTTLS && option !== OPT.ABORT) {
        return refuse(option, REP.ERR_TLS_REQD, 'this address is for TLS only')
      }
    }
    switch (option) {
      case OPT.EXPORT_NAME:
        return this.#exportName(data)
      case OPT.ABORT:
        return { next: 'close', bytes: encodeOptionReply(option, REP.ACK) }
      case OPT.LIST:
        return this.#list(data)
      case OPT.STARTTLS:
        return this.#startTls(data)
      case OPT.INFO:
      case OPT.GO:
        return this.#infoOrGo(option, data)
      case OPT.STRUCTURED_REPLY:
        if (data.length > 0) return refuse(option, REP.ERR_INVALID, 'this option has no data')
        this.#structured = true
        return { next: 'option', bytes: encodeOptionReply(option, REP.ACK) }
      case OPT.LIST_META_CONTEXT:
      case OPT.SET_META_CONTEXT:
        return this.#metaContext(option, data)
      default:
        return refuse(option, REP.ERR_UNSUP, 'unknown option')
    }
  }

  #startTls(data: Buffer): Answer {
    const option = OPT.STARTTLS
    if (data.length > 0) return refuse(option, REP.ERR_INVALID, 'this option has no data')
    if (this.#secure) return refuse(option, REP.ERR_INVALID, 'the connection is encrypted already')
    if (this.#settings.tls === 'none') {
      return refuse(option, REP.ERR_POLICY, 'this address is without TLS')
    }
    return { next: 'tls', bytes: encodeOptionReply(option, REP.ACK) }
  }

  #list(data: Buffer): Answer {
    const option = OPT.LIST
    if (data.length > 0) return refuse(option, REP.ERR_INVALID, 'this option has no data')
    const servers = this.#settings
      .names()
      .map((name) => encodeOptionReply(option, REP.SERVER, encodeServer(name)))
    return {
      next: 'option',
      bytes: Buffer.concat([...servers, encodeOptionReply(option, REP.ACK)]),
    }
  }

  /** The old way to open an export. It has no way to say no but to hang up. */
  #exportName(data: Buffer): Answer {
    const name = decodeExportName(data)
    const found = name === undefined ? undefined : this.#settings.open(name)
    if (!(found instanceof Export)) return { next: 'close', bytes: NOTHING }
    const bytes = encodeExportNameReply(found.device.sizeBytes, flagsOf(found), this.#noZeroes)
    return { next: 'serve', bytes, agreement: this.#agreement(found) }
  }

  #infoOrGo(option: number, data: Buffer): Answer {
    const request = decodeExportRequest(data)
    if (request === undefined) return refuse(option, REP.ERR_INVALID, 'malformed request')
    const found = this.#settings.open(request.name)
    if (!(found instanceof Export)) return refuseOpen(option, found)
    const infos = [
      encodeInfo({
        kind: 'export',
        sizeBytes: found.device.sizeBytes,
        flags: flagsOf(found),
      }),
      encodeInfo({
        kind: 'block_size',
        minimum: BLOCK_MINIMUM,
        preferred: BLOCK_PREFERRED,
        maximum: REQUEST_BYTES_MAX,
      }),
    ]
    if (request.infos.includes(INFO.NAME)) {
      infos.push(encodeInfo({ kind: 'name', name: found.name }))
    }
    const bytes = Buffer.concat([
      ...infos.map((info) => encodeOptionReply(option, REP.INFO, info)),
      encodeOptionReply(option, REP.ACK),
    ])
    if (option === OPT.INFO) return { next: 'option', bytes }
    return { next: 'serve', bytes, agreement: this.#agreement(found) }
  }

  #metaContext(option: number, data: Buffer): Answer {
    const setting = option === OPT.SET_META_CONTEXT
    // Whatever comes of it, a new attempt replaces the earlier selection.
    if (setting) this.#allocationOf = undefined
    const request = decodeMetaContextRequest(data)
    if (request === undefined) return refuse(option, REP.ERR_INVALID, 'malformed request')
    if (!this.#structured) {
      return refuse(option, REP.ERR_INVALID, 'structured replies must be agreed on first')
    }
    const found = this.#settings.open(request.name)
    if (!(found instanceof Export)) return refuseOpen(option, found)
    const { queries } = request
    const wanted =
      queries.includes(BASE_ALLOCATION) ||
      (!setting && (queries.length === 0 || queries.includes('base:')))
    const replies: Buffer[] = []
    if (wanted) {
      // Listing does not select, and says so with id 0.
      const id = setting ? ALLOCATION_CONTEXT_ID : 0
      const context = encodeMetaContext(id, BASE_ALLOCATION)
      replies.push(encodeOptionReply(option, REP.META_CONTEXT, context))
      if (setting) this.#allocationOf = request.name
    }
    replies.push(encodeOptionReply(option, REP.ACK))
    return { next: 'option', bytes: Buffer.concat(replies) }
  }

  #agreement(found: Export): Agreement {
    return {
      export: found,
      structured: this.#structured,
      allocation: this.#structured && this.#allocationOf === found.name,
    }
  }
}

function refuse(option: number, type: number, reason: string): Answer {
  return { next: 'option', bytes: encodeOptionReply(option, type, Buffer.from(reason)) }
}

function refuseOpen(option: number, refusal: OpenRefusal): Answer {
  const type = refusal.refusal === 'unknown' ? REP.ERR_UNKNOWN : REP.ERR_POLICY
  return refuse(option, type, refusal.reason)
}
