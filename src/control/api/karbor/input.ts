import { invalid } from '../backup/errors.ts'
import { isMembers, type Members } from '../backup/input.ts'

/** By which all lists of this dialect may be ordered. */
export const KARBOR_KEYS = ['created_at', 'id', 'status', 'name'] as const

/** An object with no other members than these: the ancestor refuses what it does not know. */
export function onlyMembers(value: unknown, names: readonly string[]): Members {
  if (!isMembers(value)) throw invalid('An object is expected.')
  const other = Object.keys(value).find((name) => !names.includes(name))
  if (other !== undefined) throw invalid(`${other}: not expected here.`)
  return value
}

const NAME = /^[a-zA-Z0-9-_:.# ]{1,255}$/
const isPlain = (value: unknown): boolean =>
  typeof value === 'boolean' || typeof value === 'string' || Number.isInteger(value)

/** Names with plain values, or null. */
function isMetadata(value: unknown): boolean {
  if (value === null || value === undefined) return true
  return (
    isMembers(value) &&
    Object.entries(value).every(([name, one]) => NAME.test(name) && isPlain(one))
  )
}

/** By type of resource, or type#id: names with plain values. */
export function parametersMember(members: Members, name = 'parameters'): Members {
  const value = members[name] ?? {}
  const fits =
    isMembers(value) &&
    Object.entries(value).every(([key, one]) => NAME.test(key) && isMetadata(one))
  if (!fits) throw invalid(`${name}: by type of resource, names with plain values.`)
  return value
}
