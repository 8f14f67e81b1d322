/* From the bytes of a body to a JSON value, tolerant of what real clients send and of nothing else.
 *
 * Tolerated: any content type (JSON with a charset, none, a wrong one), an empty body, white space and line breaks around
 * the value, a byte order mark. Refused: bytes that are not UTF-8, nesting deeper than any contract needs (a
 * hostile body could otherwise exhaust the stack of whatever walks it), and characters that a text column cannot hold.
 */

/** The deepest body of the contracts has 7 levels. */
export const BODY_DEPTH_MAX = 32

export type ParsedBody =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly reason: string }

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** An empty body gives `undefined`. */
export function parseBody(bytes: Uint8Array): ParsedBody {
  let text: string
  try {
    text = utf8.decode(bytes).trim()
  } catch {
    return refuse('The body is not UTF-8 text.')
  }
  if (text === '') return { ok: true, value: undefined }
  if (isDeeperThan(text, BODY_DEPTH_MAX)) {
    return refuse(`The body is nested deeper than ${BODY_DEPTH_MAX} levels.`)
  }
  let value: unknown
  try {
    value = JSON.parse(text, SUSPICIOUS_NAME.test(text) ? withoutPrototype : undefined)
  } catch {
    return refuse('The body is not valid JSON.')
  }
  return isStorable(value)
    ? { ok: true, value }
    : refuse('The body contains characters that are no text (NUL or half of a surrogate pair).')
}

const refuse = (reason: string): ParsedBody => ({ ok: false, reason })

/** `__proto__`, however escaped: dropped like any unknown member, before a copy of the object can obey it. */
const SUSPICIOUS_NAME = /__proto__|\\u005f/i

const withoutPrototype = (name: string, value: unknown): unknown =>
  name === '__proto__' ? undefined : value

/** Counts brackets outside of strings; nothing is built. */
export function isDeeperThan(text: string, most: number): boolean {
  let depth = 0
  let inString = false
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (inString) {
      if (code === BACKSLASH) at++
      else if (code === QUOTE) inString = false
    } else if (code === QUOTE) inString = true
    else if (code === OPEN_BRACKET || code === OPEN_BRACE) {
      if (++depth > most) return true
    } else if (code === CLOSE_BRACKET || code === CLOSE_BRACE) depth--
  }
  return false
}

const BACKSLASH = 0x5c
const QUOTE = 0x22
const OPEN_BRACKET = 0x5b
const CLOSE_BRACKET = 0x5d
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d

/** Text that both database engines keep as it is. */
export const isStorableText = (text: string): boolean => !text.includes('\0') && text.isWellFormed()

function isStorable(value: unknown): boolean {
  if (typeof value === 'string') return isStorableText(value)
  if (typeof value !== 'object' || value === null) return true
  if (Array.isArray(value)) return value.every(isStorable)
  return Object.entries(value).every(([name, member]) => isStorableText(name) && isStorable(member))
}
