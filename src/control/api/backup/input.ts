import { isUuid } from '#base/ids.ts'
import type { Tag } from '#domain/tag.ts'
import { invalid, refuse } from './errors.ts'

/* Request members one by one. Null counts as absent: clients send every member they know. */
export type Members = Readonly<Record<string, unknown>>

export const isMembers = (value: unknown): value is Members =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** The object under `name`, which the body must have. */
export function envelope(body: unknown, name: string): Members {
  const inner = isMembers(body) ? body[name] : undefined
  if (!isMembers(inner)) throw invalid(`${name}: an object is expected.`)
  return inner
}

export const given = (members: Members, name: string): boolean =>
  members[name] !== undefined && members[name] !== null

export function uuidMember(members: Members, name: string): string {
  const value = members[name]
  if (!isAnyUuid(value)) throw invalid(`${name}: a UUID is expected.`)
  return value.toLowerCase()
}

/** In any case, as clients may send it. */
export const isAnyUuid = (value: unknown): value is string =>
  typeof value === 'string' && isUuid(value.toLowerCase())

export function booleanMember(members: Members, name: string, fallback: boolean): boolean {
  const value = members[name] ?? fallback
  if (typeof value === 'boolean') return value
  throw invalid(`${name}: true or false.`)
}

export function listMember(members: Members, name: string): readonly unknown[] {
  const value = members[name] ?? []
  if (!Array.isArray(value)) throw invalid(`${name}: a list is expected.`)
  return value as unknown[]
}

export function objectList(members: Members, name: string): readonly Members[] {
  const list = listMember(members, name)
  if (!list.every(isMembers)) throw invalid(`${name}: a list of objects is expected.`)
  return list as Members[]
}

export function textMember(members: Members, name: string, most: number): string | null {
  const value = members[name] ?? null
  if (value === null) return null
  const fits = typeof value === 'string' && value.length <= most && !value.includes('\0')
  if (!fits) throw invalid(`${name}: text of at most ${most} characters.`)
  return value
}

/** Letters, digits, underscore and hyphen. */
export function nameMember(members: Members, name: string): string | null {
  const value = members[name] ?? null
  if (value === null) return null
  if (typeof value === 'string' && /^[A-Za-z0-9_-]{1,255}$/.test(value)) return value
  throw invalid(`${name}: 1 to 255 letters, digits, underscores and hyphens.`)
}

/** Without angle brackets: they could become markup in somebody's console. */
export function descriptionMember(members: Members, name = 'description'): string | null {
  const text = textMember(members, name, 255)
  if (text !== null && /[<>]/.test(text)) throw invalid(`${name}: no angle brackets.`)
  return text
}

export function integerMember(
  members: Members,
  name: string,
  [least, most]: readonly [number, number],
): number | undefined {
  const value = members[name] ?? undefined
  if (value === undefined) return undefined
  if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most) {
    return value as number
  }
  throw invalid(`${name}: a whole number from ${least} to ${most}.`)
}

// ---------------------------------------------------------------- tags

export const TAGS_MAX = 10
const TAG_KEY = /^[A-Za-z0-9_-]{1,36}$/
const TAG_VALUE = /^[A-Za-z0-9_-]{0,43}$/

/** Blanks around keys and values do not count. */
export function tagOf(value: unknown): Tag {
  const members = isMembers(value) ? value : {}
  const [key, text] = [members['key'], members['value']]
  if (typeof key !== 'string' || !TAG_KEY.test(key.trim())) {
    throw invalid('key: 1 to 36 letters, digits, underscores and hyphens.')
  }
  if (typeof text !== 'string' || !TAG_VALUE.test(text.trim())) {
    throw invalid('value: at most 43 letters, digits, underscores and hyphens.')
  }
  return { key: key.trim(), value: text.trim() }
}

/** Of a creation; each key once. Left out: none. */
export function tagsMember(members: Members): Tag[] {
  if (!given(members, 'tags')) return []
  return tagList(listMember(members, 'tags'))
}

export function tagList(list: readonly unknown[]): Tag[] {
  if (list.length === 0) throw invalid('tags: at least one.')
  if (list.length > TAGS_MAX) throw refuse('CSBS.7000')
  const tags = list.map(tagOf)
  if (new Set(tags.map(({ key }) => key)).size < tags.length) {
    throw invalid('tags: each key once.')
  }
  return tags
}

/** Of a path. */
export function providerOf(id: string): string {
  if (!isAnyUuid(id)) throw invalid('provider_id: a UUID is expected.')
  return id.toLowerCase()
}
