import type { TagCondition, TagQuery } from '#domain/tag.ts'
import { invalid, refuse } from '../backup/errors.ts'
import { given, isMembers, type Members, objectList, TAGS_MAX } from '../backup/input.ts'

/* The body of a query by tags: which tags, which name, and which page of what is found. */

export interface TagQueryInput {
  readonly query: TagQuery
  /** Whether the name matches. */
  readonly name: (name: string) => boolean
  /** Null: only the number is asked for. */
  readonly page: { readonly offset: number; readonly limit: number } | null
}

const LIMIT_MAX = 1_000

export function tagQueryFrom(body: unknown): TagQueryInput {
  if (!isMembers(body)) throw invalid('An object is expected.')
  const { action } = body
  if (action !== 'filter' && action !== 'count') throw invalid('action: filter or count.')
  if (action === 'count' && (given(body, 'limit') || given(body, 'offset'))) {
    throw invalid('limit and offset: not with count.')
  }
  return {
    query: {
      tags: conditions(body, 'tags'),
      tagsAny: conditions(body, 'tags_any'),
      notTags: conditions(body, 'not_tags'),
      notTagsAny: conditions(body, 'not_tags_any'),
    },
    name: nameFrom(body),
    page:
      action === 'count'
        ? null
        : {
            limit: numberFrom(body, 'limit', [1, LIMIT_MAX], LIMIT_MAX),
            offset: numberFrom(body, 'offset', [0, Number.MAX_SAFE_INTEGER], 0),
          },
  }
}

/** The documents say text, some clients send numbers. */
function numberFrom(
  body: Members,
  name: string,
  [least, most]: readonly [number, number],
  fallback: number,
): number {
  const value = body[name] ?? fallback
  const text = typeof value === 'number' ? String(value) : value
  const fits = typeof text === 'string' && /^\d{1,15}$/.test(text)
  if (!fits || Number(text) < least || Number(text) > most) {
    throw invalid(`${name}: a whole number from ${least} to ${most}.`)
  }
  return Number(text)
}

function conditions(body: Members, name: string): TagCondition[] {
  if (!given(body, name)) return []
  const list = objectList(body, name)
  if (list.length === 0) throw invalid(`${name}: at least one.`)
  if (list.length > TAGS_MAX) throw refuse('CSBS.7000')
  const found = list.map((one): TagCondition => {
    const { key } = one
    const values = one['values'] ?? []
    if (typeof key !== 'string' || key.trim() === '' || key.length > 127) {
      throw invalid(`${name}: a key has 1 to 127 characters.`)
    }
    const texts = Array.isArray(values) ? (values as unknown[]) : [null]
    if (texts.length > TAGS_MAX || !texts.every(isValue) || new Set(texts).size < texts.length) {
      throw invalid(`${name}: at most ten different values of at most 255 characters.`)
    }
    return { key: key.trim(), values: texts }
  })
  if (new Set(found.map(({ key }) => key)).size < found.length) {
    throw invalid(`${name}: each key once.`)
  }
  return found
}

const isValue = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= 255

function nameFrom(body: Members): TagQueryInput['name'] {
  if (!given(body, 'matches')) return () => true
  const matches = objectList(body, 'matches')
  const [match, ...others] = matches
  const value = match?.['value']
  if (match?.['key'] !== 'resource_name' || others.length > 0 || !isValue(value)) {
    throw invalid('matches: one entry, with the key resource_name and a value.')
  }
  // Empty text is to be matched exactly; anything else is a part.
  return (name) => (value === '' ? name === '' : name.toLowerCase().includes(value.toLowerCase()))
}
