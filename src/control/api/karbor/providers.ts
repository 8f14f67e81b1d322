import Type from 'typebox'
import { SERVER_TYPE } from '#control/resources/checkpoints.ts'
import { portsOf } from '#control/resources/networks.ts'
import { findServer } from '#control/resources/servers.ts'
import { listProtectables, protectableDisks } from '#control/resources/backup-lists.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import type { Queries } from '#control/store/store.ts'
import { invalid, refuse, refuseAs } from '../backup/errors.ts'
import { isAnyUuid } from '../backup/input.ts'
import { afterMarker, linksOf, one, pageFrom, pageOfRows, type Query } from '../backup/lists.ts'
import { type BackupApiServices, PROVIDER_ID } from '../backup/services.ts'
import type { Api } from '../http/dialect.ts'
import { originOf, projectOf } from '../http/request.ts'
import { KARBOR_KEYS } from './input.ts'

/* What can be backed up, and by whom: one provider, one type. */

const VOLUME_TYPE = 'OS::Cinder::Volume'

const PROVIDER = {
  id: PROVIDER_ID,
  name: 'Holdfast',
  description: 'Servers with all their disks, at one moment, into the vault of the region.',
  extended_info_schema: {
    options_schema: {
      [SERVER_TYPE]: {
        title: 'Backup options',
        type: 'object',
        properties: {
          backup_name: { type: 'string', description: 'Name of the backup.' },
          incremental: { type: 'boolean', description: 'False: everything is read.' },
        },
      },
    },
    saved_info_schema: {
      [SERVER_TYPE]: {
        title: 'Saved information',
        type: 'object',
        properties: { vcpus: { type: 'integer' }, ram: { type: 'integer' } },
      },
    },
    restore_schema: {
      [SERVER_TYPE]: {
        title: 'Restore options',
        type: 'object',
        properties: { power_on: { type: 'boolean', description: 'Start the server when done.' } },
      },
    },
  },
}

const ProviderPath = Type.Object({ provider_id: Type.String() })
const TypePath = Type.Object({ protectable_type: Type.String() })
const InstancePath = Type.Object({
  protectable_type: Type.String(),
  protectable_id: Type.String(),
})

export function providerRoutes(app: Api, services: BackupApiServices): void {
  const { store } = services

  app.get('/v1/:project_id/providers', async (request) => {
    const query = request.query as Query
    const page = pageFrom(query, KARBOR_KEYS)
    const [name, description] = [one(query, 'name'), one(query, 'description')]
    const shown = pageOfRows(
      [PROVIDER].filter(
        (row) =>
          row.name === (name ?? row.name) && row.description === (description ?? row.description),
      ),
      page,
      (row) => row.id,
    )
    const links = linksOf('providers', request.url, originOf(request, services), page, shown)
    return { providers: shown, ...links }
  })

  app.get(
    '/v1/:project_id/providers/:provider_id',
    { schema: { params: ProviderPath } },
    async (request) => {
      const { provider_id: id } = request.params
      if (!isAnyUuid(id)) throw invalid('provider_id: a UUID is expected.')
      if (id.toLowerCase() !== PROVIDER_ID) {
        throw refuseAs(404, 'CSBS.9001', 'There is no such provider.')
      }
      return { provider: PROVIDER }
    },
  )

  const base = '/v1/:project_id/protectables'
  app.get(base, async () => ({ protectable_type: [SERVER_TYPE] }))

  app.get(`${base}/:protectable_type`, { schema: { params: TypePath } }, async (request) => {
    checkType(request.params.protectable_type)
    return { protectable_type: { name: SERVER_TYPE, dependent_types: [VOLUME_TYPE] } }
  })

  app.get(
    `${base}/:protectable_type/instances`,
    { schema: { params: TypePath } },
    async (request) => {
      checkType(request.params.protectable_type)
      const query = request.query as Query
      const page = pageFrom(query, KARBOR_KEYS)
      const project = projectOf(request)
      return await store.read(async (db) => {
        const after = await afterMarker(page, project, (id) => findServer(db, project, id))
        const filters = { status: one(query, 'status') }
        const shown = await listProtectables(db, project, filters, { ...page, after })
        const links = linksOf('instances', request.url, originOf(request, services), page, shown)
        return { instances: await instanceObjects(db, shown), ...links }
      })
    },
  )

  app.get(
    `${base}/:protectable_type/instances/:protectable_id`,
    { schema: { params: InstancePath } },
    async (request) => {
      checkType(request.params.protectable_type)
      const { protectable_id: id } = request.params
      return await store.read(async (db) => {
        const row = isAnyUuid(id)
          ? await findServer(db, projectOf(request), id.toLowerCase())
          : undefined
        if (row === undefined) throw refuseAs(404, 'CSBS.6000')
        const [instance] = await instanceObjects(db, [row])
        return { instance }
      })
    },
  )
}

function checkType(type: string): void {
  if (type !== SERVER_TYPE) throw refuse('CSBS.6003')
}

/** Of servers of one project, in their order, by as many queries for a thousand as for one. */
async function instanceObjects(db: Queries, rows: readonly ServerRow[]) {
  const ids = rows.map(({ id }) => id)
  const ports = await portsOf(db, ids)
  const disks = await protectableDisks(db, ids)
  return rows.map((row) => ({
    id: row.id,
    type: SERVER_TYPE,
    name: row.name,
    extra_info: {
      availability_zone: row.az,
      private_ip: ports.get(row.id)?.[0]?.address ?? '',
    },
    dependent_resources: (disks.get(row.id) ?? []).map(({ volume, name }) => ({
      id: volume,
      type: VOLUME_TYPE,
      name: name ?? '',
      extra_info: { availability_zone: row.az },
    })),
  }))
}
