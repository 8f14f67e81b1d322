import type { RequestServices } from '#control/operations/definitions/requests.ts'
import {
  loadSyncViews,
  type SyncedPair,
} from '#control/operations/definitions/protection/sync-views.ts'
import type { Queries } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import type { SyncView } from '#domain/sync-view.ts'
import type { RefuseWith } from './errors.ts'

/** What the handlers of this dialect work with. */
export interface SdrsServices extends RequestServices {
  /** Scheme, host and port of links when a request does not tell. */
  readonly publicUrl: string
}

/** The same and the maker of refusals. */
export interface SdrsContext {
  readonly services: SdrsServices
  readonly refuse: RefuseWith
}

/** The view of each group, with a fallback so that callers need not think of absent ones. */
export async function viewsOf(
  db: Queries,
  services: SdrsServices,
  groups: readonly ProtectionGroupRow[],
  pairs: readonly SyncedPair[],
): Promise<(group: string) => SyncView> {
  const views = await loadSyncViews(db, services, groups, pairs)
  return (group) => views.get(group) ?? NOTHING_KNOWN
}

const NOTHING_KNOWN: SyncView = {
  fact: 'idle',
  faultLevel: '0',
  productionHeard: false,
  ageMs: null,
  pairs: new Map(),
}
