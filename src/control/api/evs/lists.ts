import type { VolumeRow } from '#control/store/tables/resources.ts'
import { metadataOf } from '#control/resources/volumes.ts'
import { isVolumeId } from './codec.ts'
import { refuse } from './errors.ts'

/* Filters, order and pages of disks.
 *
 * Ties in the order are broken by id, so that pages are stable. With both marker and offset, the marker counts first.
 * Unknown parameters are ignored.
 */
export type Query = Readonly<Record<string, unknown>>

export const LIMIT_MAX = 1_000

export function one(query: Query, name: string): string | undefined {
  const value = query[name]
  const first: unknown = Array.isArray(value) ? value[0] : value
  return typeof first === 'string' && first !== '' ? first : undefined
}

const SORT_KEYS = { id: 'id', status: 'status', size: 'size_gb', created_at: 'created_at' } as const
type SortKey = keyof typeof SORT_KEYS

interface Order {
  readonly key: SortKey
  readonly descending: boolean
}

/** The rows that match, in order, and the page of them that was asked for. */
export function selectVolumes(
  rows: readonly VolumeRow[],
  query: Query,
  sites: readonly string[],
): { readonly page: VolumeRow[]; readonly count: number; readonly more: boolean } {
  const orders = ordersOf(query)
  const az = one(query, 'availability_zone')
  if (az !== undefined && !sites.includes(az)) throw refuse('EVS.1041')
  const metadata = metadataFilter(one(query, 'metadata'))
  const name = one(query, 'name') ?? one(query, 'display_name')
  const status = one(query, 'status')
  const ids = idFilter(query)
  const multiattach = one(query, 'multiattach')
  const found = rows
    .filter(
      (row) =>
        (name === undefined || row.name === name) &&
        (status === undefined || row.status === status) &&
        (az === undefined || row.az === az) &&
        (ids === undefined || ids.includes(row.id)) &&
        (multiattach === undefined || (row.multiattach === 1) === (multiattach === 'true')) &&
        hasMetadata(row, metadata),
    )
    .sort((a, b) => compare(a, b, orders))
  return { ...pageOf(found, query), count: found.length }
}

/** The page of what was found, in its order. */
export function pageOf<Row extends { readonly id: string }>(
  found: readonly Row[],
  query: Query,
): { readonly page: Row[]; readonly more: boolean } {
  const limit = limitOf(query)
  const offset = offsetOf(query)
  const marker = one(query, 'marker')
  if (marker !== undefined && !isVolumeId(marker)) throw refuse('EVS.1024')
  const at = marker === undefined ? -1 : found.findIndex((row) => row.id === marker)
  if (marker !== undefined && at < 0) throw refuse('EVS.5404', `There is no ${marker} here.`)
  const rest = found.slice(at + 1 + offset)
  return { page: rest.slice(0, limit), more: rest.length > limit }
}

/** `sort=created_at:desc,id` or sort_key and sort_dir. Default: newest first. */
function ordersOf(query: Query): readonly Order[] {
  const sort = one(query, 'sort')
  const parts =
    sort === undefined
      ? [[one(query, 'sort_key') ?? 'created_at', one(query, 'sort_dir') ?? 'desc']]
      : sort.split(',').map((part) => part.trim().split(':'))
  return parts.map(([key = '', direction = 'desc']) => {
    if (!Object.hasOwn(SORT_KEYS, key)) throw refuse('EVS.1039')
    if (direction !== 'asc' && direction !== 'desc') throw refuse('EVS.1040')
    return { key: key as SortKey, descending: direction === 'desc' }
  })
}

function compare(a: VolumeRow, b: VolumeRow, orders: readonly Order[]): number {
  for (const { key, descending } of orders) {
    const column = SORT_KEYS[key]
    const [left, right] = [a[column], b[column]]
    if (left !== right) return left < right === descending ? 1 : -1
  }
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0
}

export function limitOf(query: Query): number {
  const text = one(query, 'limit')
  if (text === undefined) return LIMIT_MAX
  if (!/^\d{1,16}$/.test(text) || Number(text) < 1) throw refuse('EVS.5400', 'limit: 1 to 1000.')
  if (Number(text) > LIMIT_MAX) throw refuse('EVS.2142')
  return Number(text)
}

function offsetOf(query: Query): number {
  const text = one(query, 'offset')
  if (text === undefined) return 0
  if (!/^\d{1,16}$/.test(text)) throw refuse('EVS.5400', 'offset: a whole number from 0 on.')
  return Number(text)
}

function idFilter(query: Query): readonly string[] | undefined {
  const id = one(query, 'id')
  if (id !== undefined) return [id]
  const ids = one(query, 'ids')
  return ids?.replaceAll(/[[\]"'\s]/g, '').split(',')
}

/** `{'k':'v'}` or `{"k":"v"}`. */
function metadataFilter(text: string | undefined): readonly (readonly [string, string])[] {
  if (text === undefined) return []
  try {
    const value: unknown = JSON.parse(text.includes('"') ? text : text.replaceAll("'", '"'))
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw refuse('EVS.1025')
    }
    return Object.entries(value).map(([key, one]) => [key, String(one)] as const)
  } catch {
    throw refuse('EVS.1025')
  }
}

function hasMetadata(row: VolumeRow, wanted: readonly (readonly [string, string])[]): boolean {
  if (wanted.length === 0) return true
  const metadata = metadataOf(row)
  return wanted.every(([key, value]) => metadata[key] === value)
}

/** The address of the next page: the same query, after the last row of this one. */
export function nextLink(url: string, origin: string, last: { readonly id: string }) {
  const next = new URL(url, origin)
  next.searchParams.delete('offset')
  next.searchParams.set('marker', last.id)
  return [{ href: next.toString(), rel: 'next' }]
}
