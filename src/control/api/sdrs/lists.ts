import { cut, type PageWanted } from '#control/resources/pages.ts'
import type { Refusal } from '../http/refusal.ts'
import { isId } from './codec.ts'
import type { RefuseWith } from './errors.ts'

/* Filters and paging that every list of this service shares.
 *
 * Order: created_at descending, then id: stable, so that pages neither overlap nor leave gaps. `marker` is in no document, but
 * one widespread client pages with it. A marker that vanished in between ends the list: starting anew would repeat rows for ever.
 */
export type Query = Readonly<Record<string, unknown>>

export const LIMIT_MAX = 1_000
const IDS_MAX = 30

/** The first value of a parameter; undefined when absent. */
export function one(query: Query, name: string): string | undefined {
  const value = query[name]
  const first: unknown = Array.isArray(value) ? value[0] : value
  return typeof first === 'string' ? first : undefined
}

/** limit: 0 to 1000, default 1000. offset: records to skip. marker: as it is, an id or not. */
export function pageOf(query: Query, refuse: RefuseWith): PageWanted {
  return {
    limit: wholeNumber(one(query, 'limit'), LIMIT_MAX, LIMIT_MAX, () => refuse('SDRS.0221')),
    offset: wholeNumber(one(query, 'offset'), 0, Number.MAX_SAFE_INTEGER, () =>
      refuse('SDRS.0222'),
    ),
    marker: one(query, 'marker') || undefined,
  }
}

function wholeNumber(
  text: string | undefined,
  fallback: number,
  most: number,
  refusal: () => Refusal,
): number {
  if (text === undefined || text === '') return fallback
  if (!/^\d{1,16}$/.test(text) || Number(text) > most) throw refusal()
  return Number(text)
}

/**
 * The ids that a list is to be about: those of `NAMEs` (`["a","b"]`, `['a','b']`, `[a,b]`, or the key repeated, at most 30), or else the one of `NAME`;
 * undefined when neither is there. What is no id matches nothing.
 */
export function wantedIds(query: Query, name: string, refuse: RefuseWith): string[] | undefined {
  const many = idList(query, `${name}s`, refuse) ?? idList(query, name, refuse)
  return many?.filter(isId).map((id) => id.toLowerCase())
}

/** Undefined when absent. More than 30: SDRS.0226. */
function idList(query: Query, name: string, refuse: RefuseWith): string[] | undefined {
  const value = query[name]
  const texts = (Array.isArray(value) ? (value as unknown[]) : [value]).filter(
    (text): text is string => typeof text === 'string' && text.trim() !== '',
  )
  if (texts.length === 0) return undefined
  const ids = texts
    .flatMap((text) => text.replaceAll(/[[\]"'\s]/g, '').split(','))
    .filter((id) => id !== '')
  if (ids.length > IDS_MAX) throw refuse('SDRS.0226')
  return ids
}

/** A filter by text; undefined when absent or empty, which matches everything. */
export const text = (query: Query, name: string): string | undefined =>
  one(query, name) || undefined

/** Substring without regard to case; for lists that the database does not filter. */
export const nameMatches = (name: string, wanted: string | undefined): boolean =>
  wanted === undefined || name.toLowerCase().includes(wanted.toLowerCase())

/** The page of rows that are in the list's order; for lists that the database does not cut. */
export const pageRows = cut

/** States that `query_type=status_abnormal` is about. */
export const isAbnormal = (status: string): boolean =>
  status === 'error' || status.startsWith('error-') || status === 'fault' || status === 'invalid'

/** Exact state, refused when there is no such state. */
export function statusFilter<Status extends string>(
  query: Query,
  isStatus: (value: unknown) => value is Status,
  refuse: RefuseWith,
): Status | undefined {
  const status = one(query, 'status')
  if (status === undefined || status === '') return undefined
  if (!isStatus(status)) throw refuse('SDRS.0209')
  return status
}

/** States that two filters leave over; undefined: all. */
export function statusesWanted(
  status: string | undefined,
  preset: readonly string[] | undefined,
): readonly string[] | undefined {
  if (status === undefined) return preset
  return preset === undefined || preset.includes(status) ? [status] : []
}

/** One of the known presets; undefined when nothing is filtered. One SDK sends a blank in front. */
export function queryType(
  query: Query,
  known: readonly string[],
  refuse: RefuseWith,
): string | undefined {
  const preset = one(query, 'query_type')?.trim()
  if (preset === undefined || preset === '' || preset === 'general') return undefined
  if (!known.includes(preset))
    throw refuse('SDRS.0201', 'The query_type is none that this list knows.')
  return preset
}
