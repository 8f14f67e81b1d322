/* Common names of the installation's certificates: who somebody is.
 *
 *     control:REGION            a control plane
 *     agent:SITE:AGENTID        an agent
 *     nbd-client:PROJECT:USER   an NBD client that a control plane issued a credential to
 */

export type Identity =
  | { readonly kind: 'control'; readonly region: string }
  | { readonly kind: 'agent'; readonly site: string; readonly agent: string }
  | { readonly kind: 'nbd-client'; readonly project: string; readonly user: string }

export function commonName(identity: Identity): string {
  switch (identity.kind) {
    case 'control':
      return `control:${identity.region}`
    case 'agent':
      return `agent:${identity.site}:${identity.agent}`
    case 'nbd-client':
      return `nbd-client:${identity.project}:${identity.user}`
  }
}

/** The identity in a common name, or undefined when it is none of the three forms. */
export function parseCommonName(name: string): Identity | undefined {
  const parts = name.split(':')
  if (parts.some((part) => part === '')) return undefined
  const [kind, first, second] = parts
  if (kind === 'control' && parts.length === 2 && first !== undefined) {
    return { kind, region: first }
  }
  if (parts.length !== 3 || first === undefined || second === undefined) return undefined
  if (kind === 'agent') return { kind, site: first, agent: second }
  return kind === 'nbd-client' ? { kind, project: first, user: second } : undefined
}
