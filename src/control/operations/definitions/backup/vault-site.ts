import { Fault } from '#base/fault.ts'
import { SITE_UNREACHABLE } from '#control/sites/client.ts'
import type { OperationServices } from '../../services.ts'

/** Every site of a region reaches its vault: the one that is named, if it is heard, otherwise any that is. Throws SITE_UNREACHABLE. */
export function siteOfVault(
  { agents }: Pick<OperationServices, 'agents'>,
  preferred: string,
): string {
  if (agents.heard(preferred)) return preferred
  const heard = agents.list().find(({ report }) => agents.heard(report.site))
  if (heard === undefined) throw new Fault(SITE_UNREACHABLE, 'looking for a site with the vault')
  return heard.report.site
}
