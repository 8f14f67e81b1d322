/* The service catalogue: which kind of service is under which address. The types and paths are fixed, since clients
 * know them by heart; an entry appears when its service is part of this server. */

export interface CatalogueEntry {
  readonly id: string
  readonly type: string
  readonly name: string
  readonly endpoints: readonly {
    readonly id: string
    readonly interface: 'public'
    readonly region: string
    readonly region_id: string
    readonly url: string
  }[]
}

interface Service {
  readonly type: string
  readonly name: string
  /** `P` stands for the project. */
  readonly path: string
  /** Dialect that has to be mounted. */
  readonly dialect: string
}

const SERVICES: readonly Service[] = [
  { type: 'identity', name: 'iam', path: '/v3', dialect: 'iam' },
  { type: 'sdrs', name: 'sdrs', path: '/v1/P', dialect: 'sdrs' },
  { type: 'data-protect', name: 'csbs', path: '/v1/P', dialect: 'csbs' },
  { type: 'volumev2', name: 'evsv2', path: '/v2/P', dialect: 'evs' },
  { type: 'volumev3', name: 'evsv3', path: '/v3/P', dialect: 'evs' },
  { type: 'compute', name: 'nova', path: '/v2.1/P', dialect: 'nova' },
  { type: 'ecs', name: 'ecs', path: '/v1/P', dialect: 'ecs' },
  { type: 'image', name: 'glance', path: '/image', dialect: 'glance' },
  { type: 'network', name: 'neutron', path: '', dialect: 'neutron' },
  { type: 'vpc', name: 'vpc', path: '/v1/P', dialect: 'vpc' },
]

/**
 * The catalogue for a caller. Services of a project are left out without one. `origin` is scheme, host and port as the
 * caller reaches them.
 */
export function catalogueFor(view: {
  readonly origin: string
  readonly region: string
  readonly project: string | null
  /** Names of the dialects that are mounted. */
  readonly dialects: readonly string[]
}): CatalogueEntry[] {
  const { origin, region, project, dialects } = view
  return SERVICES.filter(
    ({ dialect, path }) => dialects.includes(dialect) && (project !== null || !path.endsWith('/P')),
  ).map(({ type, name, path }) => ({
    id: `${name}-${region}`,
    type,
    name,
    endpoints: [
      {
        id: `${name}-${region}-public`,
        interface: 'public',
        region,
        region_id: region,
        url: origin + path.replace(/P$/, project ?? ''),
      },
    ],
  }))
}
