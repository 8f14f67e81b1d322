import { listServers } from '#control/resources/servers.ts'
import { type ServerView, viewServers } from '#control/resources/server-views.ts'
import type { Queries } from '#control/store/store.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import { needsViews, rowMatches, type ServerFilter, viewMatches } from './words.ts'

/** One page of servers. `views` are of the page only, unless the filter needed all of them. */
export interface ServerPage {
  readonly rows: readonly ServerRow[]
  /** How many match the filter, on all pages. */
  readonly count: number
  readonly views: () => Promise<readonly ServerView[]>
}

/** Servers that match, in order, cut to a page by `slice`. Default order: newest first, then by id. */
export async function pageOfServers(
  db: Queries,
  project: string,
  filter: ServerFilter,
  slice: (rows: readonly ServerRow[]) => readonly ServerRow[],
): Promise<ServerPage> {
  let rows = (await listServers(db, project)).filter((row) => rowMatches(row, filter))
  if (needsViews(filter)) {
    const views = await viewServers(db, project, rows)
    rows = views.filter((view) => viewMatches(view, filter)).map(({ server }) => server)
  }
  const page = slice(rows)
  return { rows: page, count: rows.length, views: () => viewServers(db, project, page) }
}
