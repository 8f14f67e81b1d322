import type { CatalogueEntry } from '#control/identity/catalogue.ts'
import type { Identity } from '#control/identity/identity.ts'
import type { Store } from '#control/store/store.ts'
import type { AuditLog } from '../http/audit.ts'

/** What the handlers of this dialect work with. */
export interface IamServices {
  readonly store: Store
  readonly identity: Identity
  readonly audit: AuditLog
  readonly region: string
  /** Scheme, host and port of links when a request does not tell. */
  readonly publicUrl: string
  /** The services of a project at `origin`; without a project those that need none. */
  catalogue(origin: string, project: string | null): CatalogueEntry[]
  /** Entries of the other dialects in the list of versions at `/`. */
  versions(origin: string): readonly unknown[]
}
