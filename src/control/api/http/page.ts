/* Lists that are paged by the id of the last row: several dialects have them, with the same words. */

/** Parameters as they arrive: text, or several texts when a name is repeated. */
export type Query = Readonly<Record<string, unknown>>

/** All values of a parameter; empty ones do not count. */
export function valuesOf(query: Query, name: string): string[] {
  const given = query[name]
  const values: readonly unknown[] = Array.isArray(given) ? given : [given]
  return values.filter((value): value is string => typeof value === 'string' && value !== '')
}

/** The first value of a parameter. */
export const valueOf = (query: Query, name: string): string | undefined => valuesOf(query, name)[0]

/** Largest page. A higher limit counts as this one. */
export const PAGE_MAX = 2_000

/**
 * Rows after the one named by `marker`, at most `limit` of them; without a limit, or with 0, all. A marker that names no
 * row ends the list: whoever walks it while rows vanish must come to an end. Null: `limit` is no number.
 */
export function pageOf<Row extends { readonly id: string }>(
  rows: readonly Row[],
  query: Query,
): { readonly page: readonly Row[]; readonly more: boolean } | null {
  const text = valueOf(query, 'limit') ?? '0'
  if (!/^\d{1,16}$/.test(text)) return null
  const limit = Number(text) === 0 ? rows.length : Math.min(Number(text), PAGE_MAX)
  const marker = valueOf(query, 'marker')
  const at = marker === undefined ? -1 : rows.findIndex(({ id }) => id === marker)
  const rest = marker !== undefined && at < 0 ? [] : rows.slice(at + 1)
  return { page: rest.slice(0, limit), more: rest.length > limit }
}
