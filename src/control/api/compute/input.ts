import { isStorableText } from '../http/body.ts'
import type { Refusal } from '../http/refusal.ts'

/* Members of request bodies, as clients of the server APIs write them: null counts as absent, numbers may come as text, and members that
 * nobody knows are passed over. Each dialect gives its own refusal of a wrong one. */
export type Members = Readonly<Record<string, unknown>>

export const isMembers = (value: unknown): value is Members =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Most servers of one request. */
export const SERVERS_MAX = 100
/** Characters of a metadata key or value. */
const METADATA_CHARACTERS_MAX = 255
const METADATA_ITEMS_MAX = 128

export interface Input {
  /** The object under `name`. */
  members(of: unknown, name: string): Members
  /** The same, null when absent. */
  optionalMembers(of: Members, name: string): Members | null
  text(of: Members, name: string, max?: number): string
  /** Null when absent; empty text stays empty. */
  optionalText(of: Members, name: string, max?: number): string | null
  /** Null when absent or empty. */
  filledText(of: Members, name: string, max?: number): string | null
  /** A whole number, also as text; null when absent or empty. */
  integer(of: Members, name: string): number | null
  boolean(of: Members, name: string, fallback: boolean): boolean
  /** Empty when absent. */
  list(of: Members, name: string): readonly unknown[]
  /** A list of objects; empty when absent. */
  objects(of: Members, name: string): readonly Members[]
  /** Text by text; null when absent. */
  textMap(of: Members, name: string): Record<string, string> | null
}

export function inputWith(bad: (message: string) => Refusal): Input {
  const input: Input = {
    members(of, name) {
      const value = isMembers(of) ? of[name] : undefined
      if (!isMembers(value)) throw bad(`${name}: an object is required.`)
      return value
    },
    optionalMembers(of, name) {
      const value = of[name] ?? null
      if (value === null) return null
      if (!isMembers(value)) throw bad(`${name}: must be an object.`)
      return value
    },
    text(of, name, max = 255) {
      const value = input.optionalText(of, name, max)
      if (value === null || value.trim() === '') throw bad(`${name}: text is required.`)
      return value
    },
    optionalText(of, name, max = 255) {
      const value = of[name] ?? null
      if (value === null) return null
      if (typeof value !== 'string') throw bad(`${name}: must be text.`)
      if (value.length > max) throw bad(`${name}: at most ${max} characters.`)
      return value
    },
    filledText(of, name, max = 255) {
      const value = input.optionalText(of, name, max)
      return value === '' ? null : value
    },
    integer(of, name) {
      const value = of[name] ?? null
      if (value === null || value === '') return null
      const number = typeof value === 'string' && /^-?\d{1,9}$/.test(value) ? Number(value) : value
      if (typeof number !== 'number' || !Number.isSafeInteger(number)) {
        throw bad(`${name}: must be a whole number.`)
      }
      return number
    },
    boolean(of, name, fallback) {
      const value = of[name] ?? fallback
      if (typeof value === 'boolean') return value
      const text = typeof value === 'string' ? value.toLowerCase() : ''
      if (text === 'true' || text === 'false') return text === 'true'
      throw bad(`${name}: must be true or false.`)
    },
    list(of, name) {
      const value = of[name] ?? []
      if (!Array.isArray(value)) throw bad(`${name}: must be a list.`)
      return value
    },
    objects(of, name) {
      return input.list(of, name).map((value) => {
        if (!isMembers(value)) throw bad(`${name}: must be a list of objects.`)
        return value
      })
    },
    textMap(of, name) {
      const value = input.optionalMembers(of, name)
      if (value === null) return null
      const entries = Object.entries(value)
      if (entries.length > METADATA_ITEMS_MAX) {
        throw bad(`${name}: at most ${METADATA_ITEMS_MAX} items.`)
      }
      for (const [key, text] of entries) {
        if (typeof text !== 'string') throw bad(`${name}.${key}: must be text.`)
        const tooLong = Math.max(key.length, text.length) > METADATA_CHARACTERS_MAX
        if (key === '' || tooLong || !isStorableText(key)) {
          throw bad(`${name}: keys of 1 to 255 and values of at most 255 characters.`)
        }
      }
      return Object.fromEntries(entries) as Record<string, string>
    },
  }
  return input
}
