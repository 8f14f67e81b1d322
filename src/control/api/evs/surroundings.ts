import Type from 'typebox'
import { quotaLimit } from '#control/resources/surroundings.ts'
import { listSnapshots, snapshotVolumes } from '#control/resources/snapshots.ts'
import { countVolumes, listVolumes, listVolumeTypes } from '#control/resources/volumes.ts'
import { UNLIMITED } from '#domain/quota.ts'
import { SNAPSHOTS_PER_PROJECT_MAX } from '#domain/snapshot.ts'
import { VOLUME_GB_MAX } from '#domain/volume.ts'
import type { Api } from '../http/dialect.ts'
import { originOf, projectOf } from '../http/request.ts'
import { typeObject } from './codec.ts'
import { refuse } from './errors.ts'
import type { EvsServices } from './services.ts'

/** Types, zones, quotas, versions, and the lists of what this server has none of. */
const UPDATED = '2014-06-28T12:20:21Z'

/** The entry of one version of this service in a list of versions. */
export const evsVersion = (origin: string, version: 'v2') => ({
  id: `${version}.0`,
  status: 'SUPPORTED',
  version: '',
  min_version: '',
  updated: UPDATED,
  'media-types': [
    { type: 'application/vnd.openstack.volume+json;version=1', base: 'application/json' },
  ],
  links: [{ rel: 'self', href: `${origin}/${version}/` }],
})

export function versionRoutes(app: Api, services: EvsServices): void {
  app.get('/v2', { config: { access: 'open' } }, async (request) => ({
    versions: [evsVersion(originOf(request, services), 'v2')],
  }))
}

export function surroundingRoutes(app: Api, services: EvsServices, version: 'v2' | 'v3'): void {
  const base = `/${version}/:project_id`
  const { db } = services.store
  const TypePath = Type.Object({ project_id: Type.String(), type_id: Type.String() })

  app.get(`${base}/types`, async () => ({
    volume_types: (await listVolumeTypes(db)).map((row) => typeObject(row, services.sites)),
  }))
  app.get(`${base}/types/:type_id`, { schema: { params: TypePath } }, async (request) => {
    const { type_id: id } = request.params
    const row = (await listVolumeTypes(db)).find((type) => type.id === id)
    if (row === undefined) throw refuse('EVS.5404')
    return { volume_type: typeObject(row, services.sites) }
  })

  app.get(`${base}/os-availability-zone`, async () => ({
    availabilityZoneInfo: services.sites.map((site) => ({
      zoneName: site,
      zoneState: { available: services.agents.heard(site) },
    })),
  }))

  const QuotaPath = Type.Object({ project_id: Type.String(), target_project_id: Type.String() })
  app.get(
    `${base}/os-quota-sets/:target_project_id`,
    { schema: { params: QuotaPath } },
    async (request) => {
      const project = projectOf(request)
      if (request.params.target_project_id !== project) throw refuse('EVS.0001')
      return { quota_set: await quotaSet(services, project) }
    },
  )

  // The same for a command line that shows the limits of servers and disks together.
  app.get(`${base}/limits`, async (request) => {
    const { volumes, gigabytes } = await quotaSet(services, projectOf(request))
    return {
      limits: {
        rate: [],
        absolute: {
          maxTotalVolumes: volumes.limit,
          totalVolumesUsed: volumes.in_use,
          maxTotalVolumeGigabytes: gigabytes.limit,
          totalGigabytesUsed: gigabytes.in_use,
        },
      },
    }
  })

  app.get(`${base}/extensions`, async () => ({ extensions: [] }))
}

/** Everything per project, and once more per type as clients expect it. */
async function quotaSet(services: EvsServices, project: string) {
  const { db } = services.store
  const counts = await countVolumes(db, project)
  const sum = (of: 'volumes' | 'gigabytes') => counts.reduce((total, one) => total + one[of], 0)
  const usage = (limit: number, in_use: number) => ({ reserved: 0, limit, in_use })
  const types = await listVolumeTypes(db)
  const snapshots = await snapshotTypes(services, project)
  return {
    id: project,
    volumes: usage(await quotaLimit(db, project, 'volumes'), sum('volumes')),
    gigabytes: usage(await quotaLimit(db, project, 'gigabytes'), sum('gigabytes')),
    snapshots: usage(SNAPSHOTS_PER_PROJECT_MAX, snapshots.length),
    backups: usage(0, 0),
    backup_gigabytes: usage(0, 0),
    per_volume_gigabytes: usage(VOLUME_GB_MAX, 0),
    ...Object.fromEntries(
      types.flatMap(({ name }) => {
        const used = counts.find((one) => one.type === name)
        return [
          [`volumes_${name}`, usage(UNLIMITED, used?.volumes ?? 0)],
          [`snapshots_${name}`, usage(UNLIMITED, snapshots.filter((type) => type === name).length)],
          [`gigabytes_${name}`, usage(UNLIMITED, used?.gigabytes ?? 0)],
        ]
      }),
    ),
  }
}

/** The type of the disk of each snapshot of the project; null: of several disks, or of one that is gone. */
async function snapshotTypes({ store }: EvsServices, project: string): Promise<(string | null)[]> {
  const rows = await listSnapshots(store.db, project)
  if (rows.length === 0) return []
  const volumes = await listVolumes(store.db, project)
  const types = new Map(volumes.map(({ id, volume_type }) => [id, volume_type]))
  return rows.map((row) => {
    const [volume, second] = snapshotVolumes(row)
    return second === undefined ? (types.get(volume ?? '') ?? null) : null
  })
}
