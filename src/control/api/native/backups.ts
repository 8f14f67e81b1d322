import Type, { type Static } from 'typebox'
import { parseAddress } from '#base/config.ts'
import { findItemOrOnly } from '#control/operations/definitions/backup/backup-requests.ts'
import {
  type AttachmentRefusal,
  requestAttach,
  requestDetach,
} from '#control/operations/definitions/backup/checkpoint-attachment.ts'
import {
  GROUP_DISKS_MAX,
  type GroupBackupRefusal,
  requestGroupBackup,
} from '#control/operations/definitions/backup/group-backup.ts'
import {
  requestRestoreForm,
  type RestoreForm,
  type RestoreFormRefusal,
} from '#control/operations/definitions/backup/restore-forms.ts'
import { RATE_BYTES_MAX, RATE_BYTES_MIN } from '#control/resources/backup-rates.ts'
import { attachmentOf } from '#control/resources/checkpoint-attachments.ts'
import { diskBackupsOf, SERVER_TYPE } from '#control/resources/checkpoints.ts'
import type { Queries } from '#control/store/store.ts'
import type { CheckpointItemRow } from '#control/store/tables/checkpoints.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { refuse } from './errors.ts'
import { ById, describe, nullable, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'

/* What the published backup API has no form for: backups of groups, restores of single disks and to new volumes, and reading a backup where it is. */

const TAG = 'backups'
/** Of the checkpoints that are made here. */
const PROVIDER = 'fc4d5750-22e7-4798-8a46-f48f62c4c1da'

const Export = Type.Object({
  export: Type.String({ description: 'Name of the NBD export.' }),
  volume: Type.String({ description: 'The disk that it shows.' }),
  size_bytes: Type.Number(),
})
const Attachment = Type.Object({
  status: Type.String({ description: 'attaching, attached or detaching' }),
  site: Type.String(),
  exports: Type.Array(Export),
  unix: nullable(Type.String({ description: "Socket on the agent's own machine." })),
  tcp: nullable(Type.Object({ host: Type.String(), port: Type.Integer(), tls: Type.Boolean() })),
})
const View = Type.Object({
  id: Type.String(),
  checkpoint: Type.String(),
  name: Type.String(),
  status: Type.String(),
  of: Type.Object({
    type: Type.String({ description: 'server or group' }),
    id: Type.String(),
    name: Type.String(),
    site: Type.String(),
  }),
  taken_at: nullable(Time),
  stall_ms: nullable(
    Type.Number({ description: 'Longest wait of a write because of it; null: not known.' }),
  ),
  attachment: nullable(Attachment),
  disks: Type.Array(
    Type.Object({
      id: Type.String({ description: 'Of the disk backup.' }),
      volume: Type.String(),
      name: nullable(Type.String()),
      size_gb: Type.Integer(),
      system: Type.Boolean(),
    }),
  ),
})

const Rate = Type.Union([
  Type.Literal(0),
  Type.Integer({ minimum: RATE_BYTES_MIN, maximum: RATE_BYTES_MAX }),
])
const Id = Type.String({ minLength: 1, maxLength: 64 })
const RestoreBody = Type.Object(
  {
    disks: Type.Optional(
      Type.Array(Type.Object({ disk: Id, volume: Type.Optional(Id) }), {
        maxItems: 64,
        description: 'Disk backups, or the disks they are of; by default all.',
      }),
    ),
    server: Type.Optional(Id),
    new_volumes: Type.Optional(Type.Boolean()),
    name: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
    volume_type: Type.Optional(Type.String({ maxLength: 255 })),
    site: Type.Optional(Type.String({ maxLength: 64 })),
    power_on: Type.Optional(Type.Boolean()),
    rate_bytes: Type.Optional(Rate),
  },
  { additionalProperties: false },
)

const RESTORE: Record<RestoreFormRefusal, readonly [404 | 409, string, string]> = {
  CHECKPOINT_UNKNOWN: [404, 'There is no such backup.', 'List the backups.'],
  ITEM_UNKNOWN: [404, 'There is no such backup.', 'List the backups.'],
  ITEM_BUSY: [409, 'Something is being done to the backup.', 'Ask again when that has ended.'],
  ITEM_STATE: [409, 'The backup holds nothing that could be restored.', 'Look at its status.'],
  ITEM_IN_IMAGE: [409, 'The backup is used by an image.', 'Use another backup.'],
  ITEM_ATTACHED: [409, 'The backup is attached.', 'Detach it first.'],
  ITEM_REPLICA: [409, 'The backup is a replica.', 'Restore it in its own region.'],
  BACKUP_NOT_OF_ITEM: [
    404,
    'A disk that is named is not in the backup, or is named twice.',
    'Show the backup.',
  ],
  BACKUPS_UNMAPPED: [409, 'Two disks would go to the same volume.', 'Name a volume for each.'],
  TARGET_UNKNOWN: [404, 'There is no such server.', 'List the servers.'],
  TARGET_STATE: [
    409,
    'The server is at work, or stands by for another.',
    'Ask again, or restore to the server that runs in its place.',
  ],
  TARGET_ZONE: [
    409,
    'The server is of another site than the one that the backup is of.',
    'Restore to new volumes at that site, and attach them.',
  ],
  SERVER_WITHOUT_DISKS: [409, 'The server has no disk.', 'Attach one, or restore to new volumes.'],
  DISK_NOT_ATTACHED: [
    409,
    'A target volume is not attached to the server.',
    'Attach it, or name a volume for each disk.',
  ],
  DISK_SHARED: [409, 'A target volume is shared by servers.', 'Restore to new volumes.'],
  DISK_IS_SYSTEM: [
    409,
    'The backup of a data disk would go to a system disk.',
    'Name other volumes.',
  ],
  DISK_TOO_SMALL: [409, 'A target volume is smaller than the backup.', 'Grow it, or name another.'],
  SITE_UNKNOWN: [404, 'This region has no such site.', 'List the sites.'],
  TYPE_UNKNOWN: [404, 'There is no such volume type.', 'List the volume types.'],
  QUOTA_VOLUMES: [409, 'The quota of volumes is used up.', 'Delete some, or raise the quota.'],
  QUOTA_GIGABYTES: [409, 'The quota of gigabytes is used up.', 'Delete some, or raise the quota.'],
  VOLUME_UNKNOWN: [
    404,
    'A volume that the backup would be written to does not exist.',
    'Restore to new volumes, or name others.',
  ],
  VOLUME_STATE: [
    409,
    'A target volume is at work, or neither side of its pair may write it.',
    'Look at its status, and at that of its group.',
  ],
  VOLUME_ATTACHED: [
    409,
    'A target volume is attached to a server elsewhere.',
    'Detach it there: a running server does not survive that its disk is set back.',
  ],
  VOLUMES_OF_TWO_SITES: [
    409,
    'The target volumes are written at different sites.',
    'Restore the disks of each site on their own.',
  ],
}

const ATTACH: Record<AttachmentRefusal, readonly [404 | 409, string, string]> = {
  ITEM_UNKNOWN: [404, 'There is no such backup.', 'List the backups.'],
  ITEM_STATE: [409, 'The backup holds nothing that could be read.', 'Look at its status.'],
  ATTACHED_ALREADY: [409, 'The backup is attached already.', 'Show it: it says where.'],
  NOT_ATTACHED: [409, 'The backup is not attached.', 'Nothing is left to be done.'],
  SITE_UNKNOWN: [404, 'This region has no such site.', 'List the sites.'],
}

const GROUP: Record<GroupBackupRefusal, readonly [404 | 409, string, string]> = {
  GROUP_UNKNOWN: [404, 'There is no such group.', 'List the groups.'],
  GROUP_EMPTY: [409, 'The group has no disks.', 'Add pairs first.'],
  GROUP_TOO_LARGE: [
    409,
    `More than ${GROUP_DISKS_MAX} disks are not taken at one moment.`,
    'Back up its servers one by one.',
  ],
  BACKUPS_FULL: [409, 'The quota of backups is used up.', 'Delete some, or raise the quota.'],
}

const said = <Code extends string>(
  table: Record<Code, readonly [404 | 409, string, string]>,
  code: Code,
) => {
  const [status, message, hint] = table[code]
  return refuse(status, code, message, hint)
}

export function backupRoutes(app: Api, services: NativeServices): void {
  const { store } = services
  const Shown = Type.Object({ backup: View })
  const Accepted = Type.Object({ backup: View, operation_id: Type.String() })

  app.get(
    '/api/v1/backups/:id',
    { schema: describe('Show a backup', TAG, Shown, { params: ById }) },
    async (request) =>
      await store.read(async (db) => {
        const row = await findItemOrOnly(db, projectOf(request), request.params.id.toLowerCase())
        if (row === undefined) throw said(ATTACH, 'ITEM_UNKNOWN')
        return { backup: await viewOf(db, services, row) }
      }),
  )

  app.post(
    '/api/v1/backups/:id/restore',
    {
      config: { audit: 'backup.restore', emptyBody: true },
      schema: describe(
        'Write some or all disks of a backup to a server, to volumes, or to new volumes',
        TAG,
        Type.Object({
          restore_id: Type.String(),
          operation_id: Type.String(),
          volumes: Type.Array(Type.String()),
        }),
        { params: ById, body: RestoreBody },
        202,
      ),
    },
    async (request, reply) => {
      const id = request.params.id.toLowerCase()
      const { body } = request
      const outcome = await requestRestoreForm(services, {
        project: projectOf(request),
        user: principalOf(request).user.id,
        item: id,
        provider: PROVIDER,
        disks: (body.disks ?? []).map(({ disk, volume = null }) => ({ backup: disk, volume })),
        to: targetOf(body),
        powerOn: body.power_on ?? true,
        rateBytes: body.rate_bytes ?? 0,
        parameters: shownParameters(body),
      })
      if (!outcome.ok) throw said(RESTORE, outcome.refusal)
      const { restore, operation, volumes } = outcome
      auditTarget(request, restore.id, { backup: id })
      return await reply
        .code(202)
        .send({ restore_id: restore.id, operation_id: operation, volumes: [...volumes] })
    },
  )

  app.post(
    '/api/v1/backups/:id/attach',
    {
      config: { audit: 'backup.attach', emptyBody: true },
      schema: describe(
        'Offer the disks of a backup read-only over NBD, straight from the vault',
        TAG,
        Accepted,
        {
          params: ById,
          body: Type.Object({ site: Type.Optional(Type.String({ maxLength: 64 })) }),
        },
        202,
      ),
    },
    async (request, reply) => {
      const { site = null } = request.body
      const id = request.params.id.toLowerCase()
      const outcome = await requestAttach(services, projectOf(request), id, site)
      if (!outcome.ok) throw said(ATTACH, outcome.refusal)
      auditTarget(request, outcome.item.id)
      const backup = await viewOf(store.db, services, outcome.item)
      return await reply.code(202).send({ backup, operation_id: outcome.operation })
    },
  )

  app.post(
    '/api/v1/backups/:id/detach',
    {
      config: { audit: 'backup.detach', emptyBody: true },
      schema: describe(
        'End what attach began; whoever reads the disks loses them',
        TAG,
        Accepted,
        { params: ById, body: Type.Object({}) },
        202,
      ),
    },
    async (request, reply) => {
      const id = request.params.id.toLowerCase()
      const outcome = await requestDetach(services, projectOf(request), id)
      if (!outcome.ok) throw said(ATTACH, outcome.refusal)
      auditTarget(request, outcome.item.id)
      const backup = await viewOf(store.db, services, outcome.item)
      return await reply.code(202).send({ backup, operation_id: outcome.operation })
    },
  )

  app.post(
    '/api/v1/groups/:id/backup',
    {
      config: { audit: 'backup.create', emptyBody: true },
      schema: describe(
        'Back up all disks of a group at one moment',
        TAG,
        Accepted,
        {
          params: ById,
          body: Type.Object(
            {
              name: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_-]{1,255}$' })),
              description: Type.Optional(Type.String({ maxLength: 255 })),
              incremental: Type.Optional(Type.Boolean()),
              rate_bytes: Type.Optional(Rate),
            },
            { additionalProperties: false },
          ),
        },
        202,
      ),
    },
    async (request, reply) => {
      const { name = null, description = null, incremental, rate_bytes: rate } = request.body
      const outcome = await requestGroupBackup(services, {
        project: projectOf(request),
        group: request.params.id,
        provider: PROVIDER,
        name,
        description,
        incremental: incremental ?? true,
        rateBytes: rate ?? 0,
      })
      if (!outcome.ok) throw said(GROUP, outcome.refusal)
      auditTarget(request, outcome.item.id, { group: request.params.id })
      const backup = await viewOf(store.db, services, outcome.item)
      return await reply.code(202).send({ backup, operation_id: outcome.operation })
    },
  )
}

/** By type, and plain values, as the published lists of restores have it. */
const shownParameters = ({ disks = [], ...plain }: Static<typeof RestoreBody>) => ({
  'Holdfast::Restore': {
    ...plain,
    disks: disks
      .map(({ disk, volume }) => (volume === undefined ? disk : `${disk}=${volume}`))
      .join(','),
  },
})

function targetOf(body: Static<typeof RestoreBody>): RestoreForm['to'] {
  const { new_volumes: fresh, server, name, volume_type: type, site } = body
  const named = (body.disks ?? []).some(({ volume }) => volume !== undefined)
  const forNew = name !== undefined || type !== undefined || site !== undefined
  if (fresh === true ? server !== undefined || named : forNew) {
    throw refuse(
      400,
      'RESTORE_TO_WHAT',
      'New volumes have a name, a type and a site; what is there has ids.',
      'Give either `new_volumes` with `name`, `volume_type` and `site`, or `server` and volumes.',
    )
  }
  if (fresh === true) {
    return { kind: 'new', name: name ?? null, type: type ?? null, site: site ?? null }
  }
  return server === undefined ? { kind: 'volumes' } : { kind: 'server', server }
}

async function viewOf(
  db: Queries,
  { agents }: NativeServices,
  row: CheckpointItemRow,
): Promise<Static<typeof View>> {
  const disks = (await diskBackupsOf(db, [row.id])).get(row.id) ?? []
  const attachment = attachmentOf(row)
  const agent = attachment === null ? null : agents.at(attachment.site)
  const { nbd_tcp: tcp = null, nbd_tls: tls = false, nbd_unix: unix = null } = agent?.report ?? {}
  const address = tcp === null ? undefined : parseAddress(tcp)
  const ready = attachment?.leaving === true ? 'detaching' : 'attached'
  return {
    id: row.id,
    checkpoint: row.checkpoint,
    name: row.name,
    status: row.status,
    of: {
      type: row.resource_type === SERVER_TYPE ? 'server' : 'group',
      id: row.resource,
      name: row.resource_name,
      site: row.resource_az,
    },
    taken_at: row.taken_at === null ? null : timeOf(row.taken_at),
    stall_ms: row.stall_us === null ? null : row.stall_us / 1_000,
    attachment:
      attachment === null
        ? null
        : {
            status: attachment.exports === null ? 'attaching' : ready,
            site: attachment.site,
            exports: (attachment.exports ?? []).map(({ name, volume, size_bytes }) => ({
              export: name,
              volume,
              size_bytes,
            })),
            unix,
            tcp: address === undefined ? null : { ...address, tls },
          },
    disks: disks.map((disk) => ({
      id: disk.id,
      volume: disk.volume,
      name: disk.volume_name,
      size_gb: disk.size_gb,
      system: disk.system === 1,
    })),
  }
}
