import Type from 'typebox'
import { listServers } from '#control/resources/servers.ts'
import { quotaLimit, quotaUsed } from '#control/resources/surroundings.ts'
import { findFlavor } from '#domain/flavor.ts'
import { TAGS_MAX } from '#domain/tag.ts'
import type { ComputeServices } from '../compute/services.ts'
import type { Api } from '../http/dialect.ts'
import { projectOf } from '../http/request.ts'
import { notFound, refuse } from './errors.ts'
import { ServerPath, serverView } from './lookup.ts'

/** Zones, limits, quotas, and what clients read that is the same for every server. */
export function surroundingRoutes(app: Api, services: ComputeServices): void {
  const base = '/v2.1/:project_id'

  for (const path of ['os-availability-zone', 'os-availability-zone/detail']) {
    app.get(`${base}/${path}`, async () => ({
      availabilityZoneInfo: services.sites.map((site) => ({
        zoneName: site,
        zoneState: { available: services.agents.heard(site) },
        hosts: null,
      })),
    }))
  }

  // Nothing here can set a password inside a guest, and one provider reads this for every server.
  app.get(
    `${base}/servers/:server_id/os-server-password`,
    { schema: { params: ServerPath } },
    async (request) => {
      await serverView(services, projectOf(request), request.params.server_id)
      return { password: '' }
    },
  )

  app.get(`${base}/limits`, async (request) => {
    const used = await usage(services, projectOf(request))
    return {
      limits: {
        rate: [],
        absolute: {
          maxTotalInstances: used.instances.limit,
          totalInstancesUsed: used.instances.in_use,
          maxTotalCores: UNLIMITED,
          totalCoresUsed: used.cores.in_use,
          maxTotalRAMSize: UNLIMITED,
          totalRAMUsed: used.ram.in_use,
          maxServerMeta: METADATA_ITEMS,
          maxTotalKeypairs: KEYPAIRS,
          maxServerGroups: 0,
          totalServerGroupsUsed: 0,
          maxServerGroupMembers: 0,
          maxImageMeta: METADATA_ITEMS,
          maxPersonality: 0,
          maxPersonalitySize: 0,
          maxSecurityGroups: UNLIMITED,
          maxSecurityGroupRules: UNLIMITED,
          maxTotalFloatingIps: 0,
          totalFloatingIpsUsed: 0,
          totalSecurityGroupsUsed: 0,
        },
      },
    }
  })

  const QuotaPath = Type.Object({ project_id: Type.String(), target_project_id: Type.String() })
  const quotas = `${base}/os-quota-sets/:target_project_id`
  for (const [path, detailed] of [
    [quotas, false],
    [`${quotas}/defaults`, false],
    [`${quotas}/detail`, true],
  ] as const) {
    app.get(path, { schema: { params: QuotaPath } }, async (request) => {
      const project = projectOf(request)
      if (request.params.target_project_id !== project) {
        throw refuse(403, 'The quotas of another project are not shown.')
      }
      const used = await usage(services, project)
      const shown = Object.entries(used).map(([name, value]) => [
        name,
        detailed ? value : value.limit,
      ])
      return { quota_set: { id: project, ...Object.fromEntries(shown) } }
    })
  }

  app.get(`${base}/extensions`, async () => ({ extensions: [] }))

  // Lists of what there is none of, so that clients that look before they act go on.
  app.get(`${base}/os-server-groups`, async () => ({ server_groups: [] }))
  app.get(`${base}/os-server-groups/:group_id`, async () => {
    throw notFound('There are no server groups.')
  })
  app.post(`${base}/os-server-groups`, async () => {
    throw refuse(501, 'Server groups are not offered by this server: its sites are its groups.')
  })
  app.get(`${base}/os-security-groups`, async () => {
    throw notFound('Security groups are under the network API.')
  })
}

const UNLIMITED = -1
const METADATA_ITEMS = 128
const KEYPAIRS = 100

async function usage(services: ComputeServices, project: string) {
  const { db } = services.store
  const servers = await listServers(db, project)
  const flavors = servers.map(({ flavor }) => findFlavor(flavor))
  const sum = (of: 'vcpus' | 'memoryMb') =>
    flavors.reduce((total, flavor) => total + (flavor?.[of] ?? 0), 0)
  const quota = (limit: number, in_use: number) => ({ limit, in_use, reserved: 0 })
  return {
    instances: quota(
      await quotaLimit(db, project, 'instances'),
      await quotaUsed(db, project, 'instances'),
    ),
    cores: quota(UNLIMITED, sum('vcpus')),
    ram: quota(UNLIMITED, sum('memoryMb')),
    metadata_items: quota(METADATA_ITEMS, 0),
    key_pairs: quota(KEYPAIRS, 0),
    server_groups: quota(0, 0),
    server_group_members: quota(0, 0),
    server_tags: quota(TAGS_MAX, 0),
  }
}
