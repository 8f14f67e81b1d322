/* Question: how long are protected servers away when their site is lost, and how long does a disk take to appear in a running guest?
 *
 * A system as `holdfast up` starts it, with the timings of an installation. Eight servers of the tiny image (128 MiB each, software emulation where the
 * machine has no usable KVM) run at az1, protected in one group that starts its servers by itself; each writes a counter with an fsync every time. Then
 * all of az1, guests included, is killed with SIGKILL, and the failover is asked for over the public API, again and again until it is taken.
 *
 *   site loss   from the kill until the last of the eight guests at az2 has been started on its disk. Bound: 10 s. Their boots come on top: eight
 *               at once on the cores of this machine, printed beside it up to the last counter read back from a disk. A counter below the
 *               last one acknowledged before the kill ends the question with an error.
 *   attach      from the request over the Nova API until the guest's kernel says that it has the disk. Bound: 2 s.
 *
 * What would make it meaningless: other processes (weighed, marked); guests and both sites share the cores, so the boots say more about the
 * emulation than about the failover. */
import { tmpdir } from 'node:os'
import { disturbedOf, Lines, medianOf, round, weighed, type Weighed } from './lib/lines.ts'
import { machineFacts } from './lib/machine.ts'
import { inParallel, pause, System } from './lib/system.ts'

const SERVERS = 8
const LOSS_BOUND_MS = 10_000
const ATTACH_BOUND_MS = 2_000
const ATTACHMENTS = 5
const LOOK_MS = 50
const BOOT_LIMIT_MS = 240_000

export interface ServersOptions {
  readonly json: boolean
  readonly pairs: number
}

interface Loss {
  readonly startedMs: number
  readonly countingMs: number
  readonly attachMs: readonly number[]
}

export async function benchServers(options: ServersOptions): Promise<void> {
  const lines = new Lines(options.json, machineFacts(tmpdir()))
  const samples: Weighed<Loss>[] = []
  for (let i = 0; i < options.pairs; i++) {
    lines.say(`round ${i + 1}: ${SERVERS} servers`)
    const system = await System.start(['--no-restart'])
    try {
      samples.push(await oneRound(system))
    } finally {
      await system.close()
    }
  }
  const disturbed = disturbedOf(samples)
  lines.show(
    {
      case: `site loss until ${SERVERS} servers run at the other site`,
      figure: round(medianOf(samples, ({ value }) => value.startedMs)),
      unit: 'ms',
      bound: LOSS_BOUND_MS,
      samples: samples.length,
      disturbed,
      also: { last_guest_booted_ms: round(medianOf(samples, ({ value }) => value.countingMs)) },
    },
    'most',
  )
  const attached = samples.flatMap(({ value }) => value.attachMs).toSorted((a, b) => a - b)
  lines.show(
    {
      case: 'a disk attached, until the running guest has it',
      figure: round(attached[Math.floor(attached.length / 2)] ?? 0),
      unit: 'ms',
      bound: ATTACH_BOUND_MS,
      samples: attached.length,
      disturbed,
      also: { most_ms: round(attached.at(-1) ?? 0) },
    },
    'most',
  )
}

async function oneRound(system: System): Promise<Weighed<Loss>> {
  const servers = await inParallel(SERVERS, (index) => createServer(system, `bench-${index}`), 2)
  for (const server of servers) await untilSaid(system, server, (said) => lastAck(said) > 0)
  const attachMs: number[] = []
  for (let i = 0; i < ATTACHMENTS; i++) attachMs.push(await attach(system, servers[i] ?? ''))
  const group = await protect(system, servers)
  await pause(2_000)
  return await weighed(system.pids, async () => ({
    ...(await lose(system, group, servers)),
    attachMs,
  }))
}

const SERVER_PATH = '/v2.1/{project}/servers'

async function createServer({ lab }: System, name: string): Promise<string> {
  const { images } = await lab.ok<{ images: { id: string; name: string }[] }>(
    200,
    'GET',
    '/image/v2/images',
  )
  const image = images.find((one) => one.name === 'holdfast-counter')
  const { server } = await lab.ok<{ server: { id: string } }>(202, 'POST', SERVER_PATH, {
    server: {
      name,
      imageRef: image?.id,
      flavorRef: 't2.nano',
      availability_zone: 'az1',
    },
  })
  await lab.until(
    `${name} runs`,
    async () => (await show(lab, server.id)).status,
    (status) => status === 'ACTIVE',
    BOOT_LIMIT_MS,
  )
  return server.id
}

const show = async (lab: System['lab'], id: string) =>
  (await lab.ok<{ server: { status: string } }>(200, 'GET', `${SERVER_PATH}/${id}`)).server

async function read({ lab }: System, server: string): Promise<string> {
  const action = { 'os-getConsoleOutput': {} }
  const reply = await lab.ok<{ output: string }>(
    200,
    'POST',
    `${SERVER_PATH}/${server}/action`,
    action,
  )
  return reply.output
}

async function untilSaid(
  system: System,
  server: string,
  wanted: (said: string) => boolean,
): Promise<string> {
  const endMs = performance.now() + BOOT_LIMIT_MS
  for (;;) {
    const said = await read(system, server)
    if (wanted(said)) return said
    if (performance.now() > endMs) throw new Error(`the guest of ${server} said:\n${said}`)
    await pause(LOOK_MS)
  }
}

const numbers = (said: string, word: string): number[] =>
  [...said.matchAll(new RegExp(`^${word} (\\d+)\\r?\\n`, 'gm'))].map(([, digits]) => Number(digits))
const lastAck = (said: string): number => numbers(said, 'ACK').at(-1) ?? 0

async function attach(system: System, server: string): Promise<number> {
  const { lab } = system
  const volume = await lab.volume(1, 'az1', 'bench-disk')
  const began = performance.now()
  const path = `${SERVER_PATH}/${server}/os-volume_attachments`
  await lab.ok(200, 'POST', path, { volumeAttachment: { volumeId: volume } })
  await untilSaid(system, server, (said) => said.includes(volume.slice(0, 20)))
  return performance.now() - began
}

async function protect(system: System, servers: readonly string[]): Promise<string> {
  const group = await system.emptyGroup({ start_servers: true })
  for (const server of servers) {
    await system.job('POST', '/v1/{project}/protected-instances', {
      protected_instance: { name: 'bench', server_group_id: group, server_id: server },
    })
  }
  await system.act(group, 'start-server-group')
  await system.inSync(group)
  return group
}

async function lose(
  system: System,
  group: string,
  servers: readonly string[],
): Promise<Pick<Loss, 'startedMs' | 'countingMs'>> {
  const { lab } = system
  const { protected_instances: instances } = await lab.ok<{
    protected_instances: { source_server: string; target_server: string }[]
  }>(200, 'GET', `/v1/{project}/protected-instances?server_group_id=${group}`)
  const before = new Map<string, number>()
  for (const server of servers) before.set(server, lastAck(await read(system, server)))
  const began = performance.now()
  await lab.holdfast('site', 'kill', 'az1')
  for (;;) {
    try {
      await system.act(group, 'failover-server-group')
      break
    } catch (error) {
      if (performance.now() - began > 60_000) throw error
      await pause(LOOK_MS)
    }
  }
  for (const { target_server: server } of instances) {
    await lab.until(
      `${server} runs at az2`,
      async () => (await show(lab, server)).status,
      (status) => status === 'ACTIVE',
    )
  }
  const startedMs = performance.now() - began
  for (const { source_server: old, target_server: server } of instances) {
    const said = await untilSaid(system, server, (text) => numbers(text, 'COUNTER').length > 0)
    const [found = -1] = numbers(said, 'COUNTER')
    const acknowledged = before.get(old) ?? Number.POSITIVE_INFINITY
    if (found < acknowledged) {
      throw new Error(`${server} has ${found} on its disk, and ${acknowledged} was acknowledged`)
    }
  }
  return { startedMs, countingMs: performance.now() - began }
}
