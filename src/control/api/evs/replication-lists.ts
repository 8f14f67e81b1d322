import { PAIRS_OF_GROUP_MAX } from '#domain/replication-pair.ts'
import { isVolumeId } from './codec.ts'
import { refuse } from './errors.ts'
import { one, pageOf, type Query } from './lists.ts'

/* Filters, order and pages of pairs and consistency groups, over their shown form. Clients page by marker; there is no link to the next page. */

type Shown = Readonly<Record<string, unknown>> & {
  readonly id: string
  readonly created_at: string
  readonly updated_at: string | null
}

/** Filters that are an exact match of a member. */
const EXACT = ['name', 'status', 'priority_station', 'replication_consistency_group_id'] as const

/** `volumesOf`: the disks that the object involves. `keys`: members that it can be sorted by. */
export function selectReplications<Row extends Shown>(
  rows: readonly Row[],
  query: Query,
  keys: readonly string[],
  volumesOf: (row: Row) => readonly string[],
): Row[] {
  const key = one(query, 'sort_key') ?? 'created_at'
  if (!keys.includes(key)) throw refuse('EVS.1039', `sort_key: one of ${keys.join(', ')}.`)
  const direction = one(query, 'sort_dir') ?? 'desc'
  if (direction !== 'asc' && direction !== 'desc') throw refuse('EVS.1040')
  const since = sinceOf(query)
  const volume = one(query, 'volume_id')
  const found = rows.filter(
    (row) =>
      EXACT.every((name) => {
        const wanted = one(query, name)
        return wanted === undefined || !(name in row) || row[name] === wanted
      }) &&
      matchesIds(row, one(query, 'volume_ids')) &&
      (volume === undefined || volumesOf(row).includes(volume)) &&
      (since === null || timeOf(row.updated_at ?? row.created_at) >= since),
  )
  const sign = direction === 'desc' ? -1 : 1
  found.sort((a, b) => sign * compare(a[key], b[key]) || (a.id < b.id ? -1 : 1))
  return pageOf(found, query).page
}

/** The text as it is shown, with or without spaces. Groups have no such member, and ignore the filter. */
function matchesIds(row: Shown, wanted: string | undefined): boolean {
  if (wanted === undefined || typeof row['volume_ids'] !== 'string') return true
  return row['volume_ids'] === wanted.replaceAll(' ', '')
}

/** Numbers in text as numbers, absent ones first. */
function compare(a: unknown, b: unknown): number {
  const [left, right] = [keyOf(a), keyOf(b)]
  if (left === right) return 0
  if (left === null || right === null) return left === null ? -1 : 1
  const numbers = /^\d{1,15}$/.test(left) && /^\d{1,15}$/.test(right)
  if (numbers) return Number(left) - Number(right)
  return left < right ? -1 : 1
}

const keyOf = (value: unknown): string | null => (typeof value === 'string' ? value : null)

const timeOf = (shown: string): number => Date.parse(`${shown}Z`)

/** An instant, UTC unless it names a zone. */
function sinceOf(query: Query): number | null {
  const text = one(query, 'changes-since')
  if (text === undefined) return null
  const zoned = /(?:Z|[+-]\d{2}:?\d{2})$/.test(text)
  // A plus that nobody escaped arrives as a space.
  const ms = Date.parse(zoned ? text : `${text.replace(' ', 'T')}Z`)
  if (Number.isNaN(ms)) throw refuse('EVS.5400', 'changes-since: a time, as 2024-01-02T03:04:05.')
  return ms
}

/** Ids in a request: text in the form of an id, each once, at most as many as a group has pairs. */
export function idsMember(value: unknown, name: string): readonly string[] {
  const wrong = () =>
    refuse('EVS.5400', `${name}: a list of at most ${PAIRS_OF_GROUP_MAX} ids, each once.`)
  if (!Array.isArray(value) || value.length > PAIRS_OF_GROUP_MAX) throw wrong()
  const ids = (value as readonly unknown[]).filter((id) => isVolumeId(id))
  if (ids.length !== value.length || new Set(ids).size !== ids.length) throw wrong()
  return ids
}
