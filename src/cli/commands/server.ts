import type { Command } from 'commander'
import { systemClock } from '#base/system/clock.ts'
import { Fault, fault, isFault } from '#base/fault.ts'
import type { ApiSession, RefusalDetail } from '#client/api.ts'
import { API_REFUSED } from '#client/faults.ts'
import { waitFor } from '#client/sdrs.ts'
import {
  attachDisk,
  createServer,
  deleteServer,
  detachDisk,
  listDisks,
  listFlavors,
  listImages,
  listServers,
  type NovaServer,
  readConsole,
  rebootServer,
  showServer,
  startServer,
  stopServer,
} from '#client/servers.ts'
import type { CommandContext } from '../context.ts'
import { limitOf, positiveInteger } from '../jobs.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'

/* `holdfast server`: servers, over the Nova interface. */

export const SERVER_FAILED = fault({
  code: 'SERVER_FAILED',
  retry: 'never',
  text: 'The server did not become what was asked for.',
  hint: 'Look at its console and at the log of the agent of its site.',
})

const ROOT_GIB_MAX = 1_024
const CONSOLE_LINES_MAX = 100_000

interface Wait {
  readonly wait: boolean
  readonly timeout: string
}

export function serverCommand(command: Command, context: CommandContext): void {
  command.description('create, list, start, stop and delete servers; read their consoles')
  const leaf = (name: string) => apiLeaf(context, command, name)
  const waiting = (one: Command) =>
    one
      .option('--no-wait', 'do not wait for the end')
      .option('--timeout <seconds>', 'longest wait', '300')

  const create = waiting(
    leaf('create')
      .description('create a server from an image and start it')
      .argument('<name>')
      .requiredOption('--image <name>', 'image, by name or id; `server images` lists them')
      .requiredOption('--site <name>', 'site (availability zone) that runs it')
      .option('--flavor <name>', 'CPUs and memory; `server flavors` lists them', 't2.micro')
      .option('--network <id>', 'network of its NIC; by default the default one of the project')
      .option('--root <gib>', 'size of its root disk in GiB; by default what the image needs'),
  )
  apiAction<
    Wait & { image: string; site: string; flavor: string; network?: string; root?: string }
  >(context, create, async (api, output, flags, name = '') => {
    const images = await listImages(api)
    const image = images.find((one) => one.id === flags.image || one.name === flags.image)
    const id = await createServer(api, {
      name,
      site: flags.site,
      flavorId: flags.flavor,
      imageId: image?.id ?? flags.image,
      ...(flags.network === undefined ? {} : { networkId: flags.network }),
      ...(flags.root === undefined
        ? {}
        : { rootGib: positiveInteger('--root', flags.root, ROOT_GIB_MAX) }),
    })
    if (flags.wait) output.say(`creating server ${name}: ${id}, waiting until it runs`)
    const server = await settled(api, id, flags, 'ACTIVE')
    output.result(server, table([server]))
  })

  apiAction(
    context,
    leaf('list').description('list the servers of the project'),
    async (api, output) => {
      const servers = await listServers(api)
      output.result({ servers }, table(servers))
    },
  )

  const show = leaf('show').description('show a server and its disks').argument('<server>')
  apiAction(context, show, async (api, output, _, id = '') => {
    const [server, disks] = [await showServer(api, id), await listDisks(api, id)]
    output.result({ ...server, disks }, [
      ...table([server]),
      ...disks.map(({ volumeId, device }) => `disk ${device}  ${volumeId}`),
      ...(server.fault === undefined ? [] : [`fault: ${server.fault.message}`]),
    ])
  })

  const power = (
    name: string,
    about: string,
    target: string,
    act: (api: ApiSession, id: string, hard: boolean) => Promise<void>,
  ) => {
    const one = waiting(leaf(name).description(about).argument('<server>'))
    if (name === 'reboot') one.option('--hard', 'without asking the guest')
    apiAction<Wait & { hard?: boolean }>(context, one, async (api, output, flags, id = '') => {
      await act(api, id, flags.hard === true)
      const server = await settled(api, id, flags, target)
      output.result(server, table([server]))
    })
  }
  power('start', 'start a server', 'ACTIVE', startServer)
  power(
    'stop',
    'power a server down; hard, when it has not gone after half a minute',
    'SHUTOFF',
    stopServer,
  )
  power('reboot', 'reboot a server', 'ACTIVE', rebootServer)

  const read = leaf('console')
    .description('print what the server wrote to its serial console')
    .argument('<server>')
    .option('--lines <n>', 'that many from the end', '50')
  apiAction<{ lines: string }>(context, read, async (api, output, flags, id = '') => {
    const lines = positiveInteger('--lines', flags.lines, CONSOLE_LINES_MAX)
    const text = await readConsole(api, id, lines)
    output.result({ output: text }, text.replace(/\n$/, '').split('\n'))
  })

  const attach = leaf('attach')
    .description('attach a volume to a server, running or not')
    .argument('<server>')
    .argument('<volume>')
    .option('--device <name>', 'such as /dev/vdb; by default the next free one')
  apiAction<{ device?: string }>(
    context,
    attach,
    async (api, output, flags, id = '', volume = '') => {
      const { device } = await attachDisk(api, id, volume, flags.device ?? null)
      output.result({ server: id, volume, device }, `${volume} is ${device} of ${id}`)
    },
  )

  const detach = waiting(
    leaf('detach')
      .description('take a volume out of a server')
      .argument('<server>')
      .argument('<volume>'),
  )
  apiAction<Wait>(context, detach, async (api, output, flags, id = '', volume = '') => {
    await detachDisk(api, id, volume)
    if (flags.wait) {
      await waitFor(
        `${id} to release ${volume}`,
        () => listDisks(api, id),
        (disks) => disks.every(({ volumeId }) => volumeId !== volume),
        { clock: systemClock, limitMs: limitOf(flags) },
      )
    }
    output.result({ server: id, volume }, `${volume}: detached from ${id}`)
  })

  const remove = waiting(
    leaf('delete')
      .description('delete a server, and the disks that were made with it')
      .argument('<server>'),
  )
  apiAction<Wait>(context, remove, async (api, output, flags, id = '') => {
    await deleteServer(api, id)
    if (flags.wait) {
      await waitFor(
        `server ${id} to go`,
        () => absent(api, id),
        (gone) => gone,
        { clock: systemClock, limitMs: limitOf(flags) },
      )
    }
    output.result({ deleted: id }, `${id}: deleted`)
  })

  apiAction(
    context,
    leaf('images').description('list the images that servers are made from'),
    async (api, output) => {
      const images = await listImages(api)
      const rows = images.map(({ id, name, status }) => [id, name, status])
      output.result({ images }, columns(['id', 'name', 'status'], rows))
    },
  )

  apiAction(
    context,
    leaf('flavors').description('list the sizes of servers'),
    async (api, output) => {
      const flavors = await listFlavors(api)
      const rows = flavors.map(({ id, vcpus, ram }) => [id, vcpus, ram])
      output.result({ flavors }, columns(['name', 'CPUs', 'MiB'], rows))
    },
  )
}

/** With `--no-wait` as it is now, otherwise as it is when nothing more is done to it. */
async function settled(
  api: ApiSession,
  id: string,
  flags: Wait,
  target: string,
): Promise<NovaServer> {
  if (!flags.wait) return await showServer(api, id)
  const server = await waitFor(
    `server ${id} to be ${target}`,
    () => showServer(api, id),
    (now) =>
      now['OS-EXT-STS:task_state'] === null && (now.status === target || now.status === 'ERROR'),
    { clock: systemClock, limitMs: limitOf(flags) },
  )
  if (server.status !== target) {
    const reason = server.fault?.message ?? server.status
    throw new Fault(SERVER_FAILED, `server ${id}: ${reason}`)
  }
  return server
}

async function absent(api: ApiSession, id: string): Promise<boolean> {
  try {
    await showServer(api, id)
    return false
  } catch (error) {
    if (!isFault(error, API_REFUSED)) throw error
    if ((error.detail as unknown as RefusalDetail).status !== 404) throw error
    return true
  }
}

const table = (servers: readonly NovaServer[]): string[] =>
  columns(
    ['id', 'name', 'site', 'flavor', 'status', 'addresses', 'disks'],
    servers.map((one) => [
      one.id,
      one.name,
      one['OS-EXT-AZ:availability_zone'],
      one.flavor.id,
      one['OS-EXT-STS:task_state'] === null
        ? one.status
        : `${one.status} (${one['OS-EXT-STS:task_state']})`,
      Object.values(one.addresses)
        .flat()
        .map(({ addr }) => addr)
        .join(', '),
      one['os-extended-volumes:volumes_attached'].length,
    ]),
  )
