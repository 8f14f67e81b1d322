import type { Refusal } from '../http/refusal.ts'
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

export interface Page {
  readonly limit: number
  readonly offset: number
  readonly marker: string | undefined
}

export function pageOf(query: Query, refuse: RefuseWith): Page {
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

/** Rows in the list's order. */
export const newestFirst = <Row extends { readonly created_at: number; readonly id: string }>(
  rows: readonly Row[],
): Row[] =>
  rows.toSorted((a, b) => b.created_at - a.created_at || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))

export function pageRows<Row extends { readonly id: string }>(
  rows: readonly Row[],
  { limit, offset, marker }: Page,
): Row[] {
  const at = marker === undefined ? -1 : rows.findIndex((row) => row.id === marker)
  if (marker !== undefined && at < 0) return []
  return rows.slice(at + 1 + offset, at + 1 + offset + limit)
}

/** `["a","b"]`, `['a','b']`, `[a,b]`, or the key repeated; undefined when absent. More than 30: SDRS.0226. */
export function idList(query: Query, name: string, refuse: RefuseWith): string[] | undefined {
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

/** Substring without regard to case; an empty filter matches everything. */
export const nameMatches = (name: string, wanted: string | undefined): boolean =>
  wanted === undefined || name.toLowerCase().includes(wanted.toLowerCase())

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

/** One of the known presets; undefined when nothing is filtered. One SDK sends a blank in front. */
export function queryType(
  query: Query,
  known: readonly string[],
  refuse: RefuseWith,
): string | undefined {
  const preset = one(query, 'query_type')?.trim()
  if (preset === undefined || preset === '' || preset === 'general') return undefined
  if (!known.includes(preset)) throw refuse('SDRS.0201', 'query_type: unknown value.')
  return preset
}

export const isAbnormal = (status: string): boolean =>
  status === 'error' || status.startsWith('error-') || status === 'fault' || status === 'invalid'
