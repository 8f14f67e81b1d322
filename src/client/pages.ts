import type { ApiSession } from './api.ts'

/** As many as every list of the interfaces gives at once. */
const PAGE = 1_000

/**
 * Everything that a list holds, read page by page behind the id of the last one. `key`: the member of the answer that is the list. `more` brings
 * further parameters of the query.
 */
export async function allPages<Item extends { readonly id: string }>(
  api: ApiSession,
  path: string,
  key: string,
  more: readonly (readonly [name: string, value: string | undefined])[] = [],
): Promise<Item[]> {
  const found: Item[] = []
  const query = new URLSearchParams({ limit: String(PAGE) })
  for (const [name, value] of more) if (value !== undefined) query.set(name, value)
  for (;;) {
    const answer = await api.get<Record<string, Item[]>>(`${path}?${query.toString()}`)
    const page = answer[key] ?? []
    found.push(...page)
    const last = page.at(-1)
    if (last === undefined || page.length < PAGE) return found
    query.set('marker', last.id)
  }
}
