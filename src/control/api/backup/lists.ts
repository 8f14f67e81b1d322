import { isAnyUuid } from './input.ts'
import { invalid } from './errors.ts'
import { parseNaive } from './times.ts'

/* Pages of lists. The marker counts before the offset; ties in the order are broken by id, so that pages are stable. Empty values are
 * absent ones, and unknown parameters are ignored. */
export type Query = Readonly<Record<string, unknown>>

export const LIMIT_MAX = 1_000

export function one(query: Query, name: string): string | undefined {
  const value = query[name]
  const first: unknown = Array.isArray(value) ? value[0] : value
  return typeof first === 'string' && first !== '' ? first : undefined
}

export interface Order<Key extends string> {
  readonly key: Key
  readonly descending: boolean
}

export interface Page<Key extends string> {
  readonly limit: number
  readonly offset: number
  readonly marker: string | undefined
  readonly orders: readonly Order<Key>[]
}

/** `keys`: by which the list may be ordered. */
export function pageFrom<Key extends string>(query: Query, keys: readonly Key[]): Page<Key> {
  const marker = one(query, 'marker')
  if (marker !== undefined && !isAnyUuid(marker)) throw invalid('marker: the id of an entry.')
  return {
    limit: Math.min(numberOf(query, 'limit', 1) ?? LIMIT_MAX, LIMIT_MAX),
    offset: numberOf(query, 'offset', 0) ?? 0,
    marker: marker?.toLowerCase(),
    orders: ordersFrom(query, keys),
  }
}

function numberOf(query: Query, name: string, least: number): number | undefined {
  const text = one(query, name)
  if (text === undefined) return undefined
  if (!/^\d{1,15}$/.test(text) || Number(text) < least) {
    throw invalid(`${name}: a whole number from ${least} on.`)
  }
  return Number(text)
}

function ordersFrom<Key extends string>(query: Query, keys: readonly Key[]): Order<Key>[] {
  const sort = one(query, 'sort')
  const [sortKey, sortDir] = [one(query, 'sort_key'), one(query, 'sort_dir')]
  if (sort !== undefined && (sortKey !== undefined || sortDir !== undefined)) {
    throw invalid('sort: not together with sort_key and sort_dir.')
  }
  if (sort !== undefined && sort.length > 255) throw invalid('sort: at most 255 characters.')
  const text = sort ?? `${sortKey ?? 'created_at'}:${sortDir ?? 'desc'}`
  return text.split(',').map((part) => {
    const [name = '', direction = 'desc', ...rest] = part.trim().split(':')
    const key = keys.find((known) => known === name)
    if (key === undefined || rest.length > 0) throw invalid(`sort: one of ${keys.join(', ')}.`)
    if (direction !== 'asc' && direction !== 'desc') throw invalid('sort: asc or desc.')
    return { key, descending: direction === 'desc' }
  })
}

/** The row that the marker names, which the caller looks up in the project; null: there is no marker. Another project's is as good as none. */
export async function afterMarker<Row extends { readonly project: string }>(
  { marker }: { readonly marker: string | undefined },
  project: string,
  read: (id: string) => Promise<Row | undefined>,
): Promise<Row | null> {
  if (marker === undefined) return null
  const row = await read(marker)
  if (row?.project !== project) throw invalid('marker: there is no such entry.')
  return row
}

/** Of rows that are all here. `value`: what a row is ordered by. */
export function pageOfRows<Row extends { readonly id: string }, Key extends string>(
  rows: readonly Row[],
  { limit, offset, marker, orders }: Page<Key>,
  value: (row: Row, key: Key) => string | number,
): Row[] {
  const sorted = rows.toSorted((left, right) => {
    for (const { key, descending } of orders) {
      const [a, b] = [value(left, key), value(right, key)]
      if (a !== b) return a < b === descending ? 1 : -1
    }
    return left.id < right.id ? 1 : -1
  })
  const at = marker === undefined ? -1 : sorted.findIndex(({ id }) => id === marker)
  if (marker !== undefined && at < 0) throw invalid('marker: there is no such entry.')
  return sorted.slice(at + 1 + offset).slice(0, limit)
}

/** The member that says where the next page is, when there may be one. */
export function linksOf(
  name: string,
  url: string,
  origin: string,
  page: { readonly limit: number },
  rows: readonly { readonly id: string }[],
): Record<string, { rel: 'next'; href: string }[]> {
  const last = rows.at(-1)
  if (last === undefined || rows.length < page.limit) return {}
  const next = new URL(url, origin)
  next.searchParams.delete('offset')
  next.searchParams.set('marker', last.id)
  return { [`${name}_links`]: [{ rel: 'next', href: next.toString() }] }
}

/** `true` and its kin; other words are refused. */
export function flagOf(query: Query, name: string): boolean {
  const text = one(query, name)?.toLowerCase()
  if (text === undefined) return false
  if (['true', '1', 'yes', 'y'].includes(text)) return true
  if (['false', '0', 'no', 'n'].includes(text)) return false
  throw invalid(`${name}: true or false.`)
}

/** A naive UTC time, ms since 1970. */
export function timeOf(query: Query, name: string): number | undefined {
  const text = one(query, name)
  if (text === undefined) return undefined
  const ms = parseNaive(text, 'T')
  if (ms === null) throw invalid(`${name}: a time like 2026-01-31T23:59:59, in UTC.`)
  return ms
}
