/* The file that `holdfast up` and `holdfast init` write for the first administrator, and every command reads. */

export interface RegionCredentials {
  /** Origin of the region's API, without a trailing slash. */
  readonly url: string
  readonly domain: string
  readonly user: string
  readonly password: string
  readonly project_id: string
  readonly project_name: string
  readonly region: string
  readonly access_key: string
  readonly secret_key: string
  /** PEM file of the authority that signed the server's certificate, when it is the system's own. */
  readonly ca?: string
}

export interface Credentials extends RegionCredentials {
  /** One for each further region. */
  readonly regions: readonly RegionCredentials[]
}

const MEMBERS = [
  'url',
  'domain',
  'user',
  'password',
  'project_id',
  'project_name',
  'region',
  'access_key',
  'secret_key',
] as const

/** The content of a credentials file; undefined when it is not one. */
export function parseCredentials(content: unknown): Credentials | undefined {
  const first = parseRegion(content)
  if (first === undefined) return undefined
  const list: unknown = (content as { regions?: unknown }).regions ?? []
  if (!Array.isArray(list)) return undefined
  const regions = list.map(parseRegion)
  return regions.includes(undefined)
    ? undefined
    : { ...first, regions: regions as RegionCredentials[] }
}

function parseRegion(content: unknown): RegionCredentials | undefined {
  if (typeof content !== 'object' || content === null) return undefined
  const members = content as Record<string, unknown>
  if (MEMBERS.some((name) => typeof members[name] !== 'string')) return undefined
  const ca = members['ca']
  if (ca !== undefined && typeof ca !== 'string') return undefined
  const plain = Object.fromEntries(MEMBERS.map((name) => [name, members[name]]))
  return { ...plain, ...(ca === undefined ? {} : { ca }) } as unknown as RegionCredentials
}
