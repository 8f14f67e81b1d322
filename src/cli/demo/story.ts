import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '#base/assert.ts'
import { type Clock, sleep } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { API_REFUSED, API_UNREACHABLE } from '#client/faults.ts'
import { createVolume, showVolume } from '#client/evs.ts'
import type { NbdClient } from '#client/nbd/client.ts'
import { NBD_DISCONNECTED, NBD_REFUSED } from '#client/nbd/faults.ts'
import {
  createGroup,
  createPair,
  failOverGroup,
  listDomains,
  listPairs,
  listVpcs,
  showGroup,
  startGroup,
  waitFor,
  waitForJob,
} from '#client/sdrs.ts'
import {
  checkImage,
  copyIn,
  copyOut,
  type ImageCheck,
  type ImageFacts,
  makeImage,
} from './image.ts'
import type { Judgement } from './ledger.ts'
import { Load, type LoadRate, readStamps } from './load.ts'
import { DemoServer, serverIsRight, type ServerReport } from './server.ts'
import { BLOCK_BYTES } from './stamp.ts'
import {
  DEMO_FAILED,
  type DemoSystem,
  type LaunchedSystem,
  launchSystem,
  openVolume,
} from './system.ts'

/* The demo's story, step by step. Every step uses the system from outside, as a user's own programs would: the public
 * API, NBD, and signals to processes. Nothing is looked up in Holdfast's own files but the credentials and the pids. */

export interface StoryOptions {
  readonly clock: Clock
  /** How to start this program again, for `holdfast up`. */
  readonly self: readonly string[]
  /** An empty directory; the system's data and the images go there. */
  readonly directory: string
  /** How long the load runs while both sites are in sync. */
  readonly loadMs: number
  /** Tell of a server, too: needs QEMU. */
  readonly server: boolean
}

export interface DemoReport {
  /** True only when every single check passed. */
  readonly verified: boolean
  readonly writes: Judgement
  readonly rate: LoadRate
  readonly image: ImageCheck
  readonly imageBytesCopied: number
  readonly killed: readonly string[]
  /** From the SIGKILL to the first write acknowledged at the other site. */
  readonly writableAfterMs: number
  readonly syncMs: number
  /** null: the demo was told without a server. */
  readonly server: ServerReport | null
}

export interface Step {
  readonly title: string
  /** `say` shows what is going on inside the step. */
  readonly run: (say: (text: string) => void) => Promise<void>
}

const GIB = 1024 ** 3
const VOLUME_GIB = 1
/** 256 MiB of each load volume are written, again and again. */
const SLOTS = 65_536
const CHAINS = 16
const LOAD_VOLUMES = 2
const PRODUCTION = 'az1'
const DR = 'az2'
/** Agent of the production site in `holdfast up`, and the name of its directory. */
const PRODUCTION_AGENT = 'az1-agent'
const SYNC_LIMIT_MS = 120_000
/** Packages for its image are fetched in it. */
const SERVER_LIMIT_MS = 180_000
const FAILOVER_LIMIT_MS = 60_000

/** What the steps hand on to each other. */
interface Stage {
  launched?: LaunchedSystem
  system?: DemoSystem
  facts?: ImageFacts
  volumes: string[]
  load?: Load
  group?: string
  server?: DemoServer
  /** DR volumes, in the order of `volumes`. */
  drVolumes: string[]
  killedAtMs: number
  report: {
    -readonly [Key in keyof DemoReport]?: DemoReport[Key]
  }
}

export interface Story {
  readonly steps: readonly Step[]
  /** After the last step. */
  report(): DemoReport
  /** Always to be called: stops everything that still runs. */
  close(): Promise<void>
}

export function tellStory(options: StoryOptions): Story {
  const { clock } = options
  const stage: Stage = { volumes: [], drVolumes: [], killedAtMs: 0, report: {} }
  const image = join(options.directory, 'image')
  const limit = (limitMs: number, onState?: (state: unknown) => void) =>
    onState === undefined ? { clock, limitMs } : { clock, limitMs, onState }

  const withServer = (...steps: Step[]): Step[] => (options.server ? steps : [])

  const steps: Step[] = [
    {
      title: `Start two sites, ${PRODUCTION} and ${DR}, and a control plane, each a process of its own`,
      async run(say) {
        // The image is made meanwhile; both take a second or two.
        stage.launched = launchSystem(options.self, join(options.directory, 'system'), say)
        const [system, facts] = await Promise.all([
          stage.launched.ready,
          makeImage(options.directory, image, VOLUME_GIB * GIB),
        ])
        stage.system = system
        stage.facts = facts
        say(`API at ${system.api.url}`)
      },
    },
    {
      title: `Create three volumes of ${VOLUME_GIB} GiB at ${PRODUCTION} over the EVS API`,
      async run(say) {
        const { api } = running(stage)
        for (const name of ['demo-files', 'demo-load-a', 'demo-load-b']) {
          const { id } = await createVolume(api, { name, site: PRODUCTION, sizeGib: VOLUME_GIB })
          stage.volumes.push(id)
        }
        for (const volume of stage.volumes) {
          await waitFor(
            `volume ${volume}`,
            () => showVolume(api, volume),
            ({ status }) => status === 'available',
            limit(30_000),
          )
        }
        say(stage.volumes.join(', '))
      },
    },
    ...withServer({
      title: `Create a server at ${PRODUCTION} over the Nova API; its image is made meanwhile`,
      async run(say) {
        stage.server = await DemoServer.create(running(stage).api, PRODUCTION)
        say(`server ${stage.server.id}`)
      },
    }),
    {
      title: 'Copy an ext4 image with files and a SQLite database onto the first, through NBD',
      async run(say) {
        const client = await openVolume(running(stage).api, stage.volumes[0] ?? '')
        const bytes = await copyIn(image, client)
        await client.disconnect()
        stage.report.imageBytesCopied = bytes
        say(`${mib(bytes)} MiB written and flushed`)
      },
    },
    ...withServer({
      title:
        'Wait until the server has booted from its disk and counts on it, with an fsync each time',
      async run(say) {
        const facts = await serverOf(stage).untilCounting(limit(SERVER_LIMIT_MS))
        say(`address ${facts.address} by DHCP, counter at ${facts.acknowledged}`)
      },
    }),
    {
      title: `Start a load on the other two: ${CHAINS} chains of stamped 4 KiB writes`,
      async run(say) {
        const { api } = running(stage)
        const load = new Load({
          clock,
          volumes: LOAD_VOLUMES,
          slotsPerVolume: SLOTS,
          chains: CHAINS,
          connect: (volume) => openAgain(api, stage.volumes[1 + volume] ?? ''),
        })
        stage.load = load
        load.mark()
        load.start()
        await sleep(clock, 1_000)
        say(`${load.ledger.acknowledged} writes acknowledged in the first second`)
      },
    },
    {
      title: `Protect all ${options.server ? 'volumes and the server' : 'three'} as one group over the SDRS API, while the load goes on`,
      async run(say) {
        const { api } = running(stage)
        stage.group = await createDemoGroup(api, limit(SYNC_LIMIT_MS))
        await stage.server?.protect(stage.group, limit(SYNC_LIMIT_MS))
        await protect(api, stage.group, stage.volumes, limit(SYNC_LIMIT_MS))
        say(`group ${stage.group}`)
      },
    },
    {
      title: 'Wait until both sites are in sync',
      async run(say) {
        const { api } = running(stage)
        const begunMs = clock.bootMs()
        const group = stage.group ?? ''
        const pairs = await waitFor(
          'both sites to be in sync',
          async () => await listPairs(api, group),
          (all) => all.every((pair) => pair.replication_status === 'active'),
          limit(SYNC_LIMIT_MS, (state) => {
            const all = state as { progress: number }[]
            say(`${Math.min(...all.map((pair) => pair.progress))} %`)
          }),
        )
        stage.report.syncMs = Math.round(clock.bootMs() - begunMs)
        stage.drVolumes = stage.volumes.map((volume) => {
          const found = pairs.find((pair) => pair.volume_ids.split(',')[0] === volume)
          const dr = found?.volume_ids.split(',')[1]
          if (dr === undefined) throw new Fault(DEMO_FAILED, `finding the pair of volume ${volume}`)
          return dr
        })
      },
    },
    {
      title: `Let the load run in sync for ${options.loadMs / 1000} s`,
      async run(say) {
        const load = running(stage).load
        load.mark()
        const endMs = clock.bootMs() + options.loadMs
        while (clock.bootMs() < endMs) {
          await sleep(clock, Math.min(500, Math.max(1, endMs - clock.bootMs())))
          const { writes, seconds } = load.rate()
          say(`${Math.round(writes / seconds)} writes/s, each acknowledged by both sites`)
        }
        stage.report.rate = load.rate()
        if (stage.report.rate.writes === 0) throw new Fault(DEMO_FAILED, 'writing in sync')
      },
    },
    {
      title: `SIGKILL every process of ${PRODUCTION} in the middle of the load`,
      async run(say) {
        const { system, load } = running(stage)
        const processes = await system.processesOf(PRODUCTION)
        await stage.server?.look()
        // Nothing is awaited between these lines: writes are in flight when the signals go out.
        for (const one of processes) one.kill()
        load.freeze()
        stage.killedAtMs = clock.bootMs()
        stage.report.killed = processes.map(({ name }) => name)
        say(`killed ${stage.report.killed.join(', ')}`)
        await load.stop()
        const counter = await stage.server?.lastWords(join(system.directory, PRODUCTION_AGENT))
        const guest =
          counter === undefined ? '' : `, and the guest's counter ${counter.acknowledged}`
        say(`${load.ledger.acknowledged} writes had been acknowledged${guest}`)
      },
    },
    {
      title: `Fail over to ${DR} over the SDRS API`,
      async run(say) {
        await failOver(running(stage), stage, say, limit(FAILOVER_LIMIT_MS))
      },
    },
    ...withServer({
      title: `Start the server at ${DR} and watch its console`,
      async run(say) {
        const report = await serverOf(stage).goOn(limit(SERVER_LIMIT_MS))
        stage.report.server = report
        say(
          `acknowledged ${report.acknowledged}, found ${report.found}, at ${report.continued} now`,
        )
      },
    }),
    {
      title: 'Check every acknowledged write, in order across both volumes',
      async run(say) {
        const { api, load } = running(stage)
        const found: Awaited<ReturnType<typeof readStamps>>[] = []
        for (const volume of stage.drVolumes.slice(1)) {
          const client = await openVolume(api, volume)
          found.push(await readStamps(client, SLOTS, load.run))
          await client.disconnect()
        }
        const writes = load.ledger.judge((volume, slot) => found[volume]?.[slot] ?? 'empty')
        stage.report.writes = writes
        say(`${writes.acknowledged} acknowledged, ${writes.lost} lost`)
      },
    },
    {
      title: 'Check the file system, the database and the files',
      async run(say) {
        const copy = join(options.directory, 'image-after')
        const client = await openVolume(running(stage).api, stage.drVolumes[0] ?? '')
        await copyOut(client, copy)
        await client.disconnect()
        assert(stage.facts !== undefined, 'the image was made')
        stage.report.image = await checkImage(options.directory, copy, stage.facts)
        const { databaseIntegrity, rows } = stage.report.image
        say(`e2fsck done, database ${databaseIntegrity}, ${rows} rows`)
      },
    },
    {
      title: 'Stop the system',
      async run() {
        await stage.launched?.stop()
        await rm(image, { force: true })
      },
    },
  ]
  return {
    steps,
    report: () => finish(stage),
    async close() {
      stage.load?.freeze()
      await stage.launched?.stop()
      await stage.load?.stop()
    },
  }
}

/** What later steps may rely on. */
function running(stage: Stage): { system: DemoSystem; api: DemoSystem['api']; load: Load } {
  assert(stage.system !== undefined, 'the system was started in the first step')
  const { system } = stage
  return {
    system,
    api: system.api,
    get load() {
      assert(stage.load !== undefined, 'the load was started before')
      return stage.load
    },
  }
}

interface Limit {
  readonly clock: Clock
  readonly limitMs: number
}

function serverOf({ server }: Stage): DemoServer {
  assert(server !== undefined, 'the server was created before')
  return server
}

type Api = DemoSystem['api']

async function createDemoGroup(api: Api, limit: Limit): Promise<string> {
  const domains = await listDomains(api)
  const domain = domains.find((one) =>
    [one.local_replication_cluster, one.remote_replication_cluster]
      .map((cluster) => cluster.availability_zone)
      .every((zone) => zone === PRODUCTION || zone === DR),
  )
  const [vpc] = await listVpcs(api)
  if (domain === undefined || vpc === undefined) {
    throw new Fault(DEMO_FAILED, 'finding the active-active domain and a network')
  }
  const job = await createGroup(api, {
    name: 'demo',
    source: PRODUCTION,
    target: DR,
    domainId: domain.id,
    vpcId: vpc.id,
  })
  const { entities } = await waitForJob(api, job, limit)
  return String(entities['server_group_id'])
}

/** One pair for each volume, then protection on. Settles when the group is protected. */
async function protect(
  api: Api,
  group: string,
  volumes: readonly string[],
  limit: Limit,
): Promise<void> {
  for (const [index, volume] of volumes.entries()) {
    const pair = await createPair(api, { name: `demo-${index}`, group, volume })
    await waitForJob(api, pair, limit)
  }
  await waitForJob(api, await startGroup(api, group), limit)
}

const AGAIN_MS = 100

/**
 * Asks for the failover as soon as the site is dead, and then for the way to the volumes, until a write is acknowledged
 * there. A refusal is possible at first, while the control plane has not noticed yet that the site is gone.
 */
async function failOver(
  { api, system }: { api: DemoSystem['api']; system: DemoSystem },
  stage: Stage,
  say: (text: string) => void,
  limit: Limit,
): Promise<void> {
  const { clock } = limit
  const endMs = clock.bootMs() + limit.limitMs
  const group = stage.group ?? ''
  const job = await untilAccepted(clock, endMs, () => failOverGroup(api, group))
  say(`job ${job}`)
  await waitForJob(api, job, limit)
  const { status, priority_station: station } = await showGroup(api, group)
  say(`group ${status}, production is now ${station === 'target' ? DR : PRODUCTION}`)

  // Past the area that the load uses: what is checked later stays untouched.
  const block = randomBytes(BLOCK_BYTES)
  const at = SLOTS * BLOCK_BYTES
  for (const volume of stage.drVolumes.slice(1)) {
    await untilAccepted(clock, endMs, async () => {
      const client = await openVolume(system.api, volume)
      await client.write(at, block)
      await client.disconnect()
    })
  }
  stage.report.writableAfterMs = Math.round(clock.bootMs() - stage.killedAtMs)
  say(`writable ${(stage.report.writableAfterMs / 1000).toFixed(1)} s after the kill`)
}

async function untilAccepted<T>(clock: Clock, endMs: number, ask: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (!isTemporary(error) || clock.bootMs() > endMs) throw error
      await sleep(clock, AGAIN_MS)
    }
  }
}

const isTemporary = (error: unknown): boolean =>
  [API_REFUSED, API_UNREACHABLE, NBD_REFUSED, NBD_DISCONNECTED].some((kind) => isFault(error, kind))

/** For the load: a volume that just changes hands is asked for again by the load itself. */
async function openAgain(api: DemoSystem['api'], volume: string): Promise<NbdClient> {
  try {
    return await openVolume(api, volume)
  } catch (error) {
    if (isFault(error, API_REFUSED) || isFault(error, API_UNREACHABLE)) {
      throw new Fault(NBD_REFUSED, `asking where ${volume} is`, {}, error)
    }
    throw error
  }
}

function finish({ report, facts }: Stage): DemoReport {
  const { writes, rate, image, killed, imageBytesCopied, writableAfterMs, syncMs } = report
  const server = report.server ?? null
  assert(
    writes !== undefined &&
      rate !== undefined &&
      image !== undefined &&
      killed !== undefined &&
      imageBytesCopied !== undefined &&
      writableAfterMs !== undefined &&
      syncMs !== undefined,
    'a report is asked for after the last step only',
  )
  const verified =
    writes.acknowledged > 0 &&
    writes.lost === 0 &&
    writes.damaged === 0 &&
    writes.outOfOrder === 0 &&
    image.fileSystemClean &&
    image.databaseIntegrity === 'ok' &&
    image.rows === facts?.rows &&
    image.rowSum === facts.rowSum &&
    image.filesEqual === image.filesExpected &&
    killed.length > 0 &&
    (server === null || serverIsRight(server))
  const done = { imageBytesCopied, killed, writableAfterMs, syncMs, server }
  return { verified, writes, rate, image, ...done }
}

const mib = (bytes: number): number => Math.round(bytes / 1024 / 1024)
