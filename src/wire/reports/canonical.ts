/* One byte sequence for one value, so that a signature means the same to everybody: UTF-8 JSON without spaces, members in the order of
 * their names by UTF-16 code units, whole numbers only. It is RFC 8785 for the values that reports are made of. */

export type Canonical =
  | null
  | boolean
  | number
  | string
  | readonly Canonical[]
  | { readonly [name: string]: Canonical }

/** Throws for numbers that are not whole or beyond 2^53, and for text that is no Unicode: they have no one form. */
export function canonicalText(value: Canonical): string {
  if (value === null || typeof value === 'boolean') return String(value)
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value)) throw new TypeError(`${value} is no whole number`)
    return String(value)
  }
  if (typeof value === 'string') {
    if (!value.isWellFormed()) throw new TypeError('a text is no Unicode')
    return JSON.stringify(value)
  }
  if (isList(value)) return `[${value.map(canonicalText).join(',')}]`
  const members = Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${canonicalText(name)}:${canonicalText(member)}`)
  return `{${members.join(',')}}`
}

const isList = (value: Canonical): value is readonly Canonical[] => Array.isArray(value)
