import type { RegionClient } from '#control/sites/regions.ts'
import type { RequestServices } from '#control/operations/definitions/requests.ts'

/** What the handlers of both backup dialects work with. */
export interface BackupApiServices extends RequestServices {
  /** Name of this region. */
  readonly region: string
  /** Names of the regions that backups can be copied to. */
  readonly destinations: readonly string[]
  readonly mayCopy?: RegionClient['mayCopy'] | undefined
  readonly otherRegions?: Pick<RegionClient, 'call'> | undefined
  /** Scheme, host and port of links when a request does not tell. */
  readonly publicUrl: string
}

/** The one provider of server backups. Clients have it built in. */
export const PROVIDER_ID = 'fc4d5750-22e7-4798-8a46-f48f62c4c1da'
