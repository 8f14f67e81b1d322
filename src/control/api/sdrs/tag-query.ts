import { isTagKey, TAG_VALUE_MAX, type TagCondition, type TagQuery, TAGS_MAX } from '#domain/tag.ts'
import type { RefuseWith } from './errors.ts'
import { LIMIT_MAX } from './lists.ts'

/* The body of a query by tags. Nearly every way to get it wrong has a code of its own, so it is taken apart by hand. */

export interface TagQueryInput {
  readonly query: TagQuery
  /** Whether the name matches; null: any does. */
  readonly name: ((name: string) => boolean) | null
  /** Null: only the number is asked for. */
  readonly page: { readonly offset: number; readonly limit: number } | null
}

type Body = Readonly<Record<string, unknown>>

export function tagQueryFrom(body: Body, refuse: RefuseWith): TagQueryInput {
  const { action } = body
  if (action !== 'filter' && action !== 'count') throw refuse('SDRS.2210')
  const asked = (member: string) => body[member] !== undefined && body[member] !== null
  if (action === 'count' && (asked('offset') || asked('limit'))) throw refuse('SDRS.2211')
  return {
    query: {
      tags: conditions(body['tags'], refuse),
      tagsAny: conditions(body['tags_any'], refuse),
      notTags: conditions(body['not_tags'], refuse),
      notTagsAny: conditions(body['not_tags_any'], refuse),
    },
    name: nameFrom(body['matches'], refuse),
    page:
      action === 'count'
        ? null
        : {
            offset: numberFrom(body['offset'], 0) ?? fail(refuse('SDRS.0222')),
            limit: limitFrom(body['limit'], refuse),
          },
  }
}

function fail(error: Error): never {
  throw error
}

/** The documents say text, one client sends numbers. Null: neither, or not a whole number from 0 on. */
function numberFrom(value: unknown, fallback: number): number | null {
  if (value === undefined || value === null || value === '') return fallback
  const text = typeof value === 'number' ? String(value) : value
  return typeof text === 'string' && /^\d{1,15}$/.test(text) ? Number(text) : null
}

function limitFrom(value: unknown, refuse: RefuseWith): number {
  const limit = numberFrom(value, LIMIT_MAX)
  if (limit === null || limit < 1 || limit > LIMIT_MAX) throw refuse('SDRS.2220')
  return limit
}

function conditions(value: unknown, refuse: RefuseWith): TagCondition[] {
  const listed = listOf(value, refuse)
  if (listed.length > TAGS_MAX) throw refuse('SDRS.2203')
  const checked = listed.map((one) => conditionFrom(one, refuse))
  if (new Set(checked.map(({ key }) => key)).size < checked.length) throw refuse('SDRS.2209')
  return checked
}

function conditionFrom(one: Body, refuse: RefuseWith): TagCondition {
  const given = one['key'] ?? ''
  if (typeof given !== 'string') throw refuse('SDRS.0201', 'A key must be text.')
  const key = given.trim()
  if (key === '') throw refuse('SDRS.2205')
  if (!isTagKey(key)) throw refuse('SDRS.2204')
  const values = one['values'] ?? []
  if (!Array.isArray(values))
    throw refuse('SDRS.0201', 'The values of a key must be a list of text.')
  if (values.length > TAGS_MAX) throw refuse('SDRS.2218')
  const texts = (values as unknown[]).map((text) => {
    if (typeof text !== 'string')
      throw refuse('SDRS.0201', 'The values of a key must be a list of text.')
    if (text.length > TAG_VALUE_MAX || text === '*') throw refuse('SDRS.2207')
    return text
  })
  if (new Set(texts).size < texts.length) throw refuse('SDRS.2219')
  return { key, values: texts }
}

function nameFrom(value: unknown, refuse: RefuseWith): TagQueryInput['name'] {
  if (value === undefined || value === null) return null
  const matches = listOf(value, refuse)
  if (matches.length === 0) throw refuse('SDRS.2212')
  const seen = new Set<string>()
  let name: TagQueryInput['name'] = null
  for (const { key = '', value: wanted } of matches) {
    if (typeof key !== 'string') throw refuse('SDRS.0201', 'A key must be text.')
    if (key.trim() === '') throw refuse('SDRS.2213')
    if (key !== 'resource_name') throw refuse('SDRS.2214')
    if (seen.has(key)) throw refuse('SDRS.2215')
    seen.add(key)
    if (wanted === undefined || wanted === null) throw refuse('SDRS.2216')
    if (typeof wanted !== 'string') throw refuse('SDRS.0201', 'A value must be text.')
    if (wanted.length > TAG_VALUE_MAX) throw refuse('SDRS.2217')
    // Empty text is to be matched exactly, and no instance is without a name.
    name = (own) => wanted !== '' && own.toLowerCase().includes(wanted.toLowerCase())
  }
  return name
}

function listOf(value: unknown, refuse: RefuseWith): readonly Body[] {
  const list = value ?? []
  const objects =
    Array.isArray(list) &&
    (list as unknown[]).every(
      (one) => typeof one === 'object' && one !== null && !Array.isArray(one),
    )
  if (!objects) throw refuse('SDRS.0201', 'A list of objects is expected.')
  return list as Body[]
}
