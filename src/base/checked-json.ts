import { crc32c } from '@node-rs/crc32'

/* JSON that stands under a checksum, and is JSON for everybody who does not care: the last member of the object is `crc32c`, of the text before it.
 *
 *     {
 *       "format": 2,
 *       "size_bytes": 1048576,
 *       "crc32c": "f71f9869"
 *     }
 *
 * A record that is replaced as a whole is never half written. But a bit that changes by itself turns one size into another, and that reads like
 * a size. Who edits such a file by hand takes the member away and sets the format to the one without (1). */

const MEMBER = 'crc32c'
const TAIL = /,\s*"crc32c": ?"([0-9a-f]{8})"\s*\}\s*$/

/** `indent`: spaces for each level. */
export function encodeChecked(value: Readonly<Record<string, unknown>>, indent: 0 | 1 | 2): string {
  const body = JSON.stringify(value, null, indent).replace(/\s*\}$/, '')
  return `${body},\n${' '.repeat(indent)}"${MEMBER}": "${checksum(body)}"\n}\n`
}

export interface Checked {
  readonly value: unknown
  /** It stood under a checksum, which is right. */
  readonly checked: boolean
}

/** null: no JSON, or not what was written. */
export function decodeChecked(text: string): Checked | null {
  const tail = TAIL.exec(text)
  if (tail !== null && tail[1] !== checksum(text.slice(0, tail.index))) return null
  try {
    const value: unknown = JSON.parse(text)
    if (tail === null || typeof value !== 'object' || value === null)
      return { value, checked: false }
    const { [MEMBER]: _, ...rest } = value as Record<string, unknown>
    return { value: rest, checked: true }
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}

/** Of the text in UTF-8. */
const checksum = (text: string): string => crc32c(text).toString(16).padStart(8, '0')
