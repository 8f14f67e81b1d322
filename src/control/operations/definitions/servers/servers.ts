import { Fault, fault } from '#base/fault.ts'
import { sleep } from '#base/clock.ts'
import {
  disksOf,
  readServer,
  type ServerFault,
  serverStatus,
  setDiskState,
  updateServer,
} from '#control/resources/servers.ts'
import { listChores } from '#control/resources/surroundings.ts'
import { moveVolume, readVolume } from '#control/resources/volumes.ts'
import { SITE_REFUSED } from '#control/sites/client.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import type { ServerStatus, ServerTask } from '#domain/server.ts'
import { GIB } from '#domain/volume.ts'
import type { ServerInfo } from '#wire/site/servers.ts'
import { childrenStep, type Failure, operation, step, type StepContext } from '../../operation.ts'
import {
  defineServer,
  GRACE_MS,
  powerOffServer,
  SERVER_GONE,
  SITE_OWES,
  theServer,
} from './server-definition.ts'
import { ownerOf } from '../protection/session.ts'

/* Operations on the life of a server: create, start, stop, reboot. Its end and its disks are in files of their own.
 *
 * Each belongs to the resource `server`, so they run one after the other. A deletion may overtake one that still waits; what comes
 * after it finds no row and ends with SERVER_GONE, having done nothing: every step looks for the row before it acts.
 *
 * The status follows what the hypervisor said in answer to the command. What it says by itself later comes with the reports, see
 * power-sync.ts.
 */

export const GUEST_NOT_RUNNING = fault({
  code: 'GUEST_NOT_RUNNING',
  retry: 'never',
  text: 'The guest was started and did not stay.',
  hint: "Look at the reason, at the server's console, and at the log of the site's agent.",
})

/** Parents of operations on several servers have a resource of their own, so that they queue behind nothing. */
export const SERVER_BATCH = 'server-batch'

/** Starting a guest without hardware support may take this long before the hypervisor says anything. */
export const START_MS = 90_000

type Context = StepContext<unknown>

// ---------------------------------------------------------------- what all have in common

/** What the row has of an answer of the agent. */
export const powerOf = (info: Pick<ServerInfo, 'power' | 'power_since'>) => ({
  power: info.power,
  power_at: Math.round(info.power_since),
})

/** Ends the task, but that of a deletion which was asked for meanwhile only if `deleting` says so. */
export async function endTask(
  tx: Transaction,
  ctx: Context,
  change: Partial<Pick<ServerRow, 'status' | 'power' | 'power_at' | 'fault' | 'launched_at'>>,
  { deleting = false }: { readonly deleting?: boolean } = {},
): Promise<void> {
  const row = await readServer(tx, ctx.resourceId)
  if (row === undefined) return
  const task = row.task === 'deleting' && !deleting ? row.task : null
  await updateServer(tx, row.id, { ...change, task }, ctx.services.clock.wallMs())
}

async function setTask(tx: Transaction, ctx: Context, task: ServerTask): Promise<void> {
  const row = await readServer(tx, ctx.resourceId)
  if (row === undefined || row.task === 'deleting') return
  await updateServer(tx, row.id, { task }, ctx.services.clock.wallMs())
}

export const faultText = (ctx: Context, { code, message }: Failure, passing: boolean): string => {
  const text: ServerFault = { code, message, at: ctx.services.clock.wallMs(), passing }
  return toJson(text)
}

/** The server runs, as its site says. */
async function recordRunning(tx: Transaction, ctx: Context, info: ServerInfo): Promise<void> {
  const row = await readServer(tx, ctx.resourceId)
  if (row === undefined) return
  await endTask(tx, ctx, {
    ...powerOf(info),
    status: 'active',
    fault: null,
    launched_at: row.launched_at ?? ctx.services.clock.wallMs(),
  })
}

async function start(ctx: Context): Promise<ServerInfo> {
  const { az } = await theServer(ctx.services.store.db, ctx.resourceId)
  await noStopOwed(ctx, az)
  const info = await ctx.services.sites.command(
    az,
    'server.start',
    { server: ctx.resourceId },
    { signal: ctx.signal, timeoutMs: START_MS },
  )
  if (info.power === 'off') {
    throw new Fault(GUEST_NOT_RUNNING, `starting ${ctx.resourceId}: ${info.reason ?? 'it is off'}`)
  }
  return info
}

/** An order to stop it that its site has not had yet would come after the start, and undo it. */
async function noStopOwed(ctx: Context, site: string): Promise<void> {
  const chores = await listChores(ctx.services.store.db, site)
  const owed = chores.some(
    ({ command, request }) =>
      command === 'server.stop' && fromJson<{ server: string }>(request).server === ctx.resourceId,
  )
  if (owed) throw new Fault(SITE_OWES, `starting ${ctx.resourceId} at ${site}`, { site })
}

// ---------------------------------------------------------------- create

export interface CreateServer {
  /** New disks, the root disk first. Their rows exist since the request was accepted. */
  readonly volumes: readonly {
    readonly volume: string
    readonly sizeGb: number
    /** Name under which the agents know the image; null: an empty disk. */
    readonly content: string | null
  }[]
}

const FILL_POLL_MS = 300

export const createServer = operation<CreateServer>('server.create', {
  version: 1,
  steps: [
    step('create_volumes', {
      act: async (ctx) => {
        const { az } = await wantedServer(ctx)
        for (const { volume, sizeGb } of ctx.input.volumes) {
          await ctx.services.sites.command(
            az,
            'volume.create',
            {
              volume,
              size_bytes: sizeGb * GIB,
              serving: 'standalone',
              owner: ownerOf(ctx),
            },
            { signal: ctx.signal },
          )
        }
      },
      record: async (tx, ctx) => {
        await setTask(tx, ctx, 'block_device_mapping')
        const empty = ctx.input.volumes.filter(({ content }) => content === null)
        for (const { volume } of empty) await recordMade(tx, ctx, volume)
      },
    }),
    step('fill_volumes', {
      cancellable: true,
      weight: 10,
      act: (ctx) => fillAll(ctx),
      record: async (tx, ctx) => {
        await setTask(tx, ctx, 'spawning')
        const disks = (await disksOf(tx, [ctx.resourceId])).get(ctx.resourceId) ?? []
        for (const { volume } of disks) await recordMade(tx, ctx, volume)
      },
    }),
    step('define', {
      act: async (ctx) => {
        await wantedServer(ctx)
        return await defineServer(ctx.services, ctx.resourceId, { signal: ctx.signal })
      },
    }),
    step<CreateServer, ServerInfo>('start', {
      weight: 2,
      act: async (ctx) => {
        await wantedServer(ctx)
        return await start(ctx)
      },
      record: (tx, ctx, info) => recordRunning(tx, ctx, info),
    }),
  ],
  // What was made stays, attached to the server, and goes with it.
  failed: async (tx, ctx, failure) => {
    const now = ctx.services.clock.wallMs()
    const disks = (await disksOf(tx, [ctx.resourceId])).get(ctx.resourceId) ?? []
    for (const { volume } of disks) {
      const row = await readVolume(tx, volume)
      if (row?.status === 'creating') await moveVolume(tx, volume, 'error', now)
      await setDiskState(tx, ctx.resourceId, volume, 'attached', now)
    }
    await endTask(tx, ctx, { status: 'error', fault: faultText(ctx, failure, false) })
  },
})

/**
 * The server of a creation that is to go on. A deletion waits for it, so it gives up by itself; between two orders to the site, for one
 * that was left alone under way could come to the site after the deletion's.
 */
async function wantedServer(ctx: Context): Promise<ServerRow> {
  const row = await theServer(ctx.services.store.db, ctx.resourceId)
  if (row.task === 'deleting') throw new Fault(SERVER_GONE, `creating server ${row.id}`)
  return row
}

async function recordMade(tx: Transaction, ctx: Context, volume: string): Promise<void> {
  const now = ctx.services.clock.wallMs()
  if ((await readVolume(tx, volume))?.status === 'creating') {
    await moveVolume(tx, volume, 'available', now)
  }
  await setDiskState(tx, ctx.resourceId, volume, 'attached', now)
}

/** An agent that has to build the image first says `filling` all the while. */
async function fillAll(ctx: StepContext<CreateServer>): Promise<void> {
  const { services, signal } = ctx
  const wanted = ctx.input.volumes.flatMap(({ volume, content }) =>
    content === null ? [] : [{ volume, image: content }],
  )
  for (const [index, one] of wanted.entries()) {
    const request = { ...one, fill: `${ctx.id}-${index}` }
    for (;;) {
      const { az } = await wantedServer(ctx)
      const info = await services.sites.command(az, 'volume.fill', request, { signal })
      const share = info.state === 'filled' ? 1 : info.done_bytes / Math.max(1, info.total_bytes)
      await ctx.progress((100 * (index + Math.min(1, share))) / wanted.length)
      if (info.state === 'filled') break
      await sleep(services.clock, FILL_POLL_MS, signal)
    }
  }
}

/** Waits for operations on several servers, which were submitted together with it. */
export const createServers = operation<Record<string, never>>('server.create-many', {
  version: 1,
  steps: [childrenStep('servers', { submit: async () => {} })],
  failed: async () => {},
})

// ---------------------------------------------------------------- power

/** Waits for operations on several servers, which were submitted together with it. */
export const powerServers = operation<Record<string, never>>('server.power-many', {
  version: 1,
  steps: [childrenStep('servers', { submit: async () => {} })],
  failed: async () => {},
})

/** Nothing to be done when it is so already; see `PowerRequest.always`. */
export interface PowerInput {
  readonly already: boolean
}

export const startServer = operation<PowerInput>('server.start', {
  version: 1,
  steps: [
    step('define', {
      act: async (ctx) => {
        if (ctx.input.already) return
        await defineServer(ctx.services, ctx.resourceId, { signal: ctx.signal })
      },
    }),
    step<PowerInput, ServerInfo | null>('start', {
      weight: 3,
      act: async (ctx) => (ctx.input.already ? null : await start(ctx)),
      record: async (tx, ctx, info) => {
        if (info !== null) await recordRunning(tx, ctx, info)
      },
    }),
  ],
  failed: (tx, ctx, failure) => recordFailure(tx, ctx, failure),
})

export interface StopInput extends PowerInput {
  readonly hard: boolean
}

export const stopServer = operation<StopInput>('server.stop', {
  version: 1,
  steps: [
    step<StopInput, ServerInfo | null>('stop', {
      act: async (ctx) => {
        const { already, hard } = ctx.input
        if (already) return null
        return await powerOffServer(ctx.services, ctx.resourceId, { hard, signal: ctx.signal })
      },
      record: async (tx, ctx, info) => {
        if (info === null) return
        await endTask(tx, ctx, { ...powerOf(info), status: 'stopped', fault: null })
      },
    }),
  ],
  failed: (tx, ctx, failure) => recordFailure(tx, ctx, failure),
})

export interface RebootInput {
  readonly hard: boolean
}

export const rebootServer = operation<RebootInput>('server.reboot', {
  version: 1,
  steps: [
    step('define', {
      act: (ctx) => defineServer(ctx.services, ctx.resourceId, { signal: ctx.signal }),
    }),
    step<RebootInput, ServerInfo>('reboot', {
      weight: 3,
      act: async (ctx) => {
        const { hard } = ctx.input
        const { az } = await theServer(ctx.services.store.db, ctx.resourceId)
        await noStopOwed(ctx, az)
        const info = await ctx.services.sites.command(
          az,
          'server.reboot',
          { server: ctx.resourceId, reboot: ctx.id, hard, grace_ms: hard ? 0 : GRACE_MS },
          { signal: ctx.signal, timeoutMs: START_MS + (hard ? 0 : GRACE_MS) },
        )
        if (info.power === 'off') {
          throw new Fault(GUEST_NOT_RUNNING, `rebooting: ${info.reason ?? 'it is off'}`)
        }
        return info
      },
      record: (tx, ctx, info) => recordRunning(tx, ctx, info),
    }),
  ],
  failed: (tx, ctx, failure) => recordFailure(tx, ctx, failure),
})

/**
 * A refusal leaves the server as it was, with the reason beside it. Without an answer nobody knows how it is, and that is an error until
 * its site is heard again; so is a reboot that stopped half way.
 */
async function recordFailure(tx: Transaction, ctx: Context, failure: Failure): Promise<void> {
  const row = await readServer(tx, ctx.resourceId)
  if (row === undefined) return
  const known = failure.code === SITE_REFUSED.code || failure.code === GUEST_NOT_RUNNING.code
  const half = HALF_WAY.has(serverStatus(row))
  const status: ServerStatus = known && !half ? serverStatus(row) : 'error'
  await endTask(tx, ctx, { status, fault: faultText(ctx, failure, true) })
}

const HALF_WAY: ReadonlySet<ServerStatus> = new Set(['rebooting', 'hard_rebooting'])
