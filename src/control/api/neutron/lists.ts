import type { FastifyRequest } from 'fastify'
import { pageOf, type Query, valueOf, valuesOf } from '../http/page.ts'
import { originOf } from '../http/request.ts'
import type { NeutronServices } from './services.ts'
import { refuse } from './errors.ts'

/* Lists of this API filter by any member that is text, a number or a yes or no; a repeated parameter lets either value
 * pass, and parameters that are no member are ignored, `fields` among them: all members are always shown. */

type Shown = Readonly<Record<string, unknown>> & { readonly id: string }

/** `{ networks: [...] }`, with links when there is another page. */
export function listOf<Row extends Shown>(
  request: Pick<FastifyRequest, 'query' | 'url' | 'headers'>,
  services: NeutronServices,
  name: string,
  objects: readonly Row[],
): Record<string, unknown> {
  const query = request.query as Query
  const rows = ordered(
    objects.filter((object) => passes(object, query)),
    query,
  )
  const found = pageOf(rows, query)
  if (found === null) throw refuse('InvalidInput', 'limit: a whole number.')
  const { page, more } = found
  const last = page.at(-1)
  if (!more || last === undefined) return { [name]: page }
  const next = new URL(request.url, originOf(request, services))
  next.searchParams.set('marker', last.id)
  return { [name]: page, [`${name}_links`]: [{ rel: 'next', href: next.toString() }] }
}

/** Said about pages and order, not about members. */
const CONTROL = new Set(['limit', 'marker', 'sort_key', 'sort_dir', 'page_reverse', 'fields'])

function passes(object: Shown, query: Query): boolean {
  return Object.keys(query).every((name) => {
    const wanted = valuesOf(query, name)
    const value = object[name]
    if (CONTROL.has(name) || wanted.length === 0) return true
    if (typeof value === 'boolean') return wanted.some((text) => isTrue(text) === value)
    if (typeof value === 'number') return wanted.includes(String(value))
    return typeof value === 'string' ? wanted.includes(value) : true
  })
}

const isTrue = (text: string): boolean => ['true', '1', 'yes'].includes(text.toLowerCase())

/** As they come, or by one member. */
function ordered<Row extends Shown>(rows: readonly Row[], query: Query): readonly Row[] {
  const key = valueOf(query, 'sort_key')
  if (key === undefined) return rows
  const sign = valueOf(query, 'sort_dir')?.toLowerCase() === 'desc' ? -1 : 1
  const textOf = (row: Row) => {
    const value = row[key]
    return typeof value === 'string' || typeof value === 'number' ? String(value) : ''
  }
  return rows.toSorted((a, b) => {
    const [left, right] = [textOf(a), textOf(b)]
    if (left !== right) return left < right ? -sign : sign
    return a.id < b.id ? -1 : 1
  })
}
