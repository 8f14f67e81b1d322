import { isStorable } from './text.ts'

/* Tags: text under a key, at most one value per key and resource. The rules are lenient, since the published ones differ
 * between services and manuals; what is stored comes back as it was given. */

export interface Tag {
  readonly key: string
  readonly value: string
}

/** In characters. */
export const TAG_KEY_MAX = 127
export const TAG_VALUE_MAX = 255
/** Per resource. A request that would exceed it is refused as a whole. */
export const TAGS_MAX = 20

/** 1-127 characters without blanks at its ends. */
export const isTagKey = (key: string): boolean =>
  key !== '' && key.length <= TAG_KEY_MAX && key.trim() === key && isStorable(key)

/** 0-255 characters without blanks at its ends. */
export const isTagValue = (value: string): boolean =>
  value.length <= TAG_VALUE_MAX && value.trim() === value && isStorable(value)

/** A key and the values that count; none: any value. A value that begins with `*` counts when its rest is found inside. */
export interface TagCondition {
  readonly key: string
  readonly values: readonly string[]
}

/** A resource has to pass all four; an empty one lets everything pass. */
export interface TagQuery {
  /** All of these. */
  readonly tags?: readonly TagCondition[]
  /** At least one of these. */
  readonly tagsAny?: readonly TagCondition[]
  /** Not all of these together. */
  readonly notTags?: readonly TagCondition[]
  /** None of these. */
  readonly notTagsAny?: readonly TagCondition[]
}

export function matchesTags(tags: readonly Tag[], query: TagQuery): boolean {
  const holds = (condition: TagCondition) => meets(tags, condition)
  const { tags: all = [], tagsAny = [], notTags = [], notTagsAny = [] } = query
  return (
    all.every(holds) &&
    (tagsAny.length === 0 || tagsAny.some(holds)) &&
    (notTags.length === 0 || !notTags.every(holds)) &&
    !notTagsAny.some(holds)
  )
}

function meets(tags: readonly Tag[], { key, values }: TagCondition): boolean {
  const tag = tags.find((one) => one.key === key)
  if (tag === undefined) return false
  return (
    values.length === 0 ||
    values.some((wanted) =>
      wanted.startsWith('*') ? tag.value.includes(wanted.slice(1)) : tag.value === wanted,
    )
  )
}
