import Type, { type Static } from 'typebox'
import { isTagKey, isTagValue, type Tag, TAGS_MAX } from '#domain/tag.ts'
import { optional } from '../http/validation.ts'
import type { RefuseWith } from './errors.ts'

/** Tags as requests have them. What is missing has a code of its own, so the schema lets it pass. */
export const TagInput = Type.Object({
  key: optional(Type.String()),
  value: optional(Type.String()),
})
export type TagInput = Static<typeof TagInput>

export function keyFrom(key: string | null | undefined, refuse: RefuseWith): string {
  if (key === undefined || key === null || key.trim() === '') throw refuse('SDRS.2205')
  if (!isTagKey(key)) throw refuse('SDRS.2204')
  return key
}

export function tagFrom({ key, value }: TagInput, refuse: RefuseWith): Tag {
  const checked = keyFrom(key, refuse)
  if (value === undefined || value === null) throw refuse('SDRS.2208')
  if (!isTagValue(value)) throw refuse('SDRS.2207')
  return { key: checked, value }
}

/** Each key once. */
export function tagsFrom(tags: readonly TagInput[], refuse: RefuseWith): Tag[] {
  if (tags.length > TAGS_MAX) throw refuse('SDRS.2203')
  const checked = tags.map((tag) => tagFrom(tag, refuse))
  if (new Set(checked.map(({ key }) => key)).size < checked.length) throw refuse('SDRS.2209')
  return checked
}
