import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { systemClock } from '#base/system/clock.ts'
import { ensureDirectory, writeFileWhole } from '#base/system/files.ts'
import type { ApiSession } from '#client/api.ts'
import {
  createVolume,
  deleteVolume,
  type EvsVolume,
  extendVolume,
  listVolumes,
  showVolume,
} from '#client/evs.ts'
import {
  issueNbdCredential,
  type NbdCredential,
  showConnection,
  type VolumeConnection,
} from '#client/native.ts'
import { waitFor } from '#client/sdrs.ts'
import type { CommandContext } from '../context.ts'
import { limitOf, positiveInteger } from '../jobs.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'

/* `holdfast volume`: block volumes, over the EVS interface; and where each may be written now. */

const SIZE_GIB_MAX = 32_768

export function volumeCommand(command: Command, context: CommandContext): void {
  command.description('create, list, grow and delete volumes; find out where one may be written')
  const leaf = (name: string) => apiLeaf(context, command, name)

  const create = leaf('create')
    .description('create a volume and wait until it is available')
    .argument('<name>')
    .requiredOption('--size <gib>', 'size in GiB')
    .requiredOption('--site <name>', 'site (availability zone) that keeps it')
    .option('--timeout <seconds>', 'longest wait', '60')
  apiAction<{ size: string; site: string; timeout: string }>(
    context,
    create,
    async (api, output, flags, name) => {
      const sizeGib = positiveInteger('--size', flags.size, SIZE_GIB_MAX)
      const { id } = await createVolume(api, { name: name ?? '', site: flags.site, sizeGib })
      const volume = await whenSettled(api, id, limitOf(flags))
      output.result(volume, table([volume]))
    },
  )

  apiAction(
    context,
    leaf('list').description('list the volumes of the project'),
    async (api, output) => {
      const volumes = await listVolumes(api)
      output.result({ volumes }, table(volumes))
    },
  )

  const show = leaf('show').description('show a volume').argument('<volume>')
  apiAction(context, show, async (api, output, _, id) => {
    const volume = await showVolume(api, id ?? '')
    output.result(volume, table([volume]))
  })

  const extend = leaf('extend')
    .description('grow a volume that is in no pair')
    .argument('<volume>')
    .requiredOption('--size <gib>', 'new size in GiB')
    .option('--timeout <seconds>', 'longest wait', '60')
  apiAction<{ size: string; timeout: string }>(
    context,
    extend,
    async (api, output, flags, id = '') => {
      await extendVolume(api, id, positiveInteger('--size', flags.size, SIZE_GIB_MAX))
      const volume = await whenSettled(api, id, limitOf(flags))
      output.result(volume, table([volume]))
    },
  )

  const remove = leaf('delete').description('delete a volume').argument('<volume>')
  apiAction(context, remove, async (api, output, _, id = '') => {
    await deleteVolume(api, id)
    output.result({ deleting: id }, `${id}: deleting`)
  })

  const connection = leaf('connection')
    .description('show where a volume may be written now')
    .argument('<volume>')
  apiAction(context, connection, async (api, output, _, id = '') => {
    const where = await showConnection(api, id)
    output.result(where, connectionLines(where))
  })

  const credential = leaf('credential')
    .description("issue a certificate for the project's volumes over TLS")
    .argument('<dir>', 'where ca-cert.pem, client-cert.pem and client-key.pem are written')
  apiAction(context, credential, async (api, output, _, directory = '') => {
    const issued = await issueNbdCredential(api)
    await writeCredential(resolve(directory), issued)
    output.result({ directory: resolve(directory), expires_at: issued.expires_at }, [
      `${directory}: good until ${issued.expires_at}`,
      `for example: nbdinfo 'nbds://HOST:PORT/EXPORT?tls-certificates=${resolve(directory)}'`,
    ])
  })
}

/** The names under which libnbd and QEMU look for certificates in a directory. */
async function writeCredential(directory: string, credential: NbdCredential): Promise<void> {
  await ensureDirectory(directory, 0o700)
  await writeFileWhole(join(directory, 'ca-cert.pem'), credential.ca)
  await writeFileWhole(join(directory, 'client-key.pem'), credential.key, 0o600)
  await writeFileWhole(join(directory, 'client-cert.pem'), credential.cert)
}

const whenSettled = (api: ApiSession, id: string, limitMs: number): Promise<EvsVolume> =>
  waitFor(
    `volume ${id}`,
    () => showVolume(api, id),
    ({ status }) => !['creating', 'extending'].includes(status),
    { clock: systemClock, limitMs },
  )

const table = (volumes: readonly EvsVolume[]): string[] =>
  columns(
    ['id', 'name', 'GiB', 'site', 'status'],
    volumes.map((one) => [one.id, one.name, one.size, one.availability_zone, one.status]),
  )

function connectionLines({ export: name, unix, tcp }: VolumeConnection): string[] {
  const lines = [`export  ${name}`, `unix    ${unix}`, `        nbd+unix:///${name}?socket=${unix}`]
  if (tcp !== null) {
    const scheme = tcp.tls ? 'nbds' : 'nbd'
    lines.push(`tcp     ${scheme}://${tcp.host}:${tcp.port}/${name}`)
  }
  return lines
}
