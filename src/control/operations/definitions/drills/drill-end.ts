import { Fault, fault, isFault } from '#base/fault.ts'
import { deleteDrillRows, drillDisks, drillServers, moveDrill } from '#control/resources/drills.ts'
import { deletePort, movePort, portsOf } from '#control/resources/networks.ts'
import {
  deleteServerRow,
  disksOf,
  readServer,
  serversOfVolume,
  takeDiskOut,
} from '#control/resources/servers.ts'
import { deleteVolumeRow } from '#control/resources/volumes.ts'
import { refusalCode } from '#control/sites/client.ts'
import type { Transaction } from '#control/store/store.ts'
import type { Teardown } from '#wire/reports/drill-report.ts'
import { operation, step, type StepContext } from '../../operation.ts'
import { endIsReported, writeReport } from './drill-reports.ts'
import { stepTimes, theDrill } from './drill-steps.ts'
import { raiseGeneration } from '../servers/server-definition.ts'

/* A drill ends.
 *
 *     servers    guests are ended and forgotten; their rows and ports go
 *     volumes    the copies
 *     snapshot   if the drill died before it was released
 *     verify     the site is asked for every one of them: it must know none
 *     end        the report, and the drill is gone
 *
 * There are two verdicts, `clean` and `not_clean` with reasons, and no third. A site that does not answer is a reason: unlike the end of a
 * server, nothing is left for later here, because the report says what is there now. The VPC and its subnets are kept.
 *
 * Forced, it does not wait for a site and does not fail: what may be left is in the report, the drill is no longer its group's, and its rows stay
 * as what is owed. When the site is heard, drill-clock.ts deletes it once more, in the plain way, and that leaves the last report.
 */

export const DRILL_NOT_CLEAN = fault({
  code: 'DRILL_NOT_CLEAN',
  retry: 'never',
  text: 'Something of the drill is left at its site.',
  hint: 'Do what the reason says, then delete the drill again.',
})

export interface EndDrill {
  readonly force: boolean
}

type Context = StepContext<EndDrill>
const REMOVE_MS = 60_000
const SNAPSHOT_MS = 280_000

const serversOf = async (db: Parameters<typeof drillServers>[0], ctx: Context) =>
  (await drillServers(db, [ctx.resourceId])).get(ctx.resourceId) ?? []

/** Does it, or says why not when the end is forced and waits for nobody. */
async function unlessForced(ctx: Context, work: () => Promise<void>): Promise<string | null> {
  try {
    await work()
    return null
  } catch (error) {
    ctx.signal.throwIfAborted()
    if (!ctx.input.force || !isFault(error)) throw error
    return error.message
  }
}

/** null: they are gone. */
async function removeServers(ctx: Context): Promise<string | null> {
  const { store, sites } = ctx.services
  const { az } = await theDrill(store.db, ctx.resourceId)
  return await unlessForced(ctx, async () => {
    for (const { server } of await serversOf(store.db, ctx)) {
      const options = { signal: ctx.signal, timeoutMs: REMOVE_MS }
      await sites.command(az, 'server.remove', { server }, options)
    }
  })
}

/** Disks and ports that somebody gave a drill server besides are free again. */
async function recordRemoved(tx: Transaction, ctx: Context, left: string | null): Promise<void> {
  if (left !== null) return
  const now = ctx.services.clock.wallMs()
  for (const { server } of await serversOf(tx, ctx)) {
    if ((await readServer(tx, server)) === undefined) continue
    for (const { volume } of (await disksOf(tx, [server])).get(server) ?? []) {
      await takeDiskOut(tx, server, volume, now)
    }
    for (const port of (await portsOf(tx, [server])).get(server) ?? []) {
      if (port.delete_with_server === 1) await deletePort(tx, port.id)
      else await movePort(tx, port.id, null, 0)
    }
    await deleteServerRow(tx, server)
  }
}

interface Deleted {
  readonly gone: readonly string[]
  readonly reasons: readonly string[]
}

async function deleteVolumes(ctx: Context): Promise<Deleted> {
  const { store, sites } = ctx.services
  const { az } = await theDrill(store.db, ctx.resourceId)
  const gone: string[] = []
  const reasons: string[] = []
  // With its servers still there, nobody knows who writes to them.
  if (resultOf<string | null>(ctx, 'servers') !== null) return { gone, reasons }
  const silent = await unlessForced(ctx, async () => {
    for (const { volume } of await drillDisks(store.db, ctx.resourceId)) {
      try {
        const options = { signal: ctx.signal, timeoutMs: REMOVE_MS }
        await sites.command(az, 'volume.delete', { volume }, options)
        gone.push(volume)
      } catch (error) {
        // In use by somebody: the others can go all the same.
        if (refusalCode(error) === null || !(error instanceof Fault)) throw error
        reasons.push(`disk ${volume}: ${error.message}`)
      }
    }
  })
  return { gone, reasons: silent === null ? reasons : [...reasons, silent] }
}

async function recordDeleted(tx: Transaction, ctx: Context, { gone }: Deleted): Promise<void> {
  const now = ctx.services.clock.wallMs()
  for (const volume of gone) {
    // Somebody put it into another server.
    for (const { server } of await serversOfVolume(tx, volume)) {
      await takeDiskOut(tx, server, volume, now)
      await raiseGeneration(tx, server)
    }
    await deleteVolumeRow(tx, volume)
  }
}

interface Verified {
  readonly reasons: readonly string[]
  readonly asked: Teardown['asked']
}

/** The site's own word for each of them. One that gives none has them, for all that is known. */
async function verify(ctx: Context): Promise<Verified> {
  const { store } = ctx.services
  const { az } = await theDrill(store.db, ctx.resourceId)
  const servers = await serversOf(store.db, ctx)
  const disks = await drillDisks(store.db, ctx.resourceId)
  const asked = { servers: servers.length, disks: disks.length, snapshots: 1 }
  const reasons: string[] = []
  const silent = await unlessForced(ctx, async () => {
    reasons.push(...(await stillThere(ctx)))
  })
  if (silent === null) return { reasons, asked }
  const left = `${servers.length} servers, ${disks.length} disks and a snapshot may still be at ${az}`
  return { reasons: [`${left}, which was not heard: ${silent}`], asked: NOBODY_ASKED }
}

const NOBODY_ASKED = { servers: 0, disks: 0, snapshots: 0 }

async function stillThere(ctx: Context): Promise<string[]> {
  const { store, sites } = ctx.services
  const { az, snapshot } = await theDrill(store.db, ctx.resourceId)
  const servers = await serversOf(store.db, ctx)
  const disks = await drillDisks(store.db, ctx.resourceId)
  const reasons: string[] = []
  const options = { signal: ctx.signal }
  const isUnknown = async (ask: Promise<unknown>, code: string): Promise<boolean> => {
    try {
      await ask
      return false
    } catch (error) {
      if (refusalCode(error) === code) return true
      throw error
    }
  }
  for (const { server, name } of servers) {
    const ask = sites.command(az, 'server.show', { server }, options)
    if (!(await isUnknown(ask, 'SERVER_UNKNOWN'))) {
      reasons.push(`server ${server} (${name}) is still at ${az}`)
    }
  }
  const told = resultOf<Deleted>(ctx, 'volumes')?.reasons ?? []
  for (const { volume } of disks) {
    const ask = sites.command(az, 'volume.show', { volume }, options)
    if (await isUnknown(ask, 'VOLUME_UNKNOWN')) continue
    const why = told.find((reason) => reason.includes(volume))
    reasons.push(why ?? `disk ${volume} is still at ${az}`)
  }
  const { snapshots } = await sites.command(az, 'snapshot.list', { snapshot }, options)
  if (snapshots.length > 0) reasons.push(`snapshot ${snapshot} is still at ${az}`)
  return reasons
}

const resultOf = <T>(ctx: Context, name: string): T | undefined =>
  ctx.results[name] as T | undefined

/** Of an end that nobody came to. */
export const teardownUndone = async (
  tx: Transaction,
  operation: string,
  reason: string,
): Promise<Teardown> => ({
  verdict: 'not_clean',
  reasons: [reason.toWellFormed().slice(0, 1_000)],
  forced: false,
  asked: NOBODY_ASKED,
  steps: [...(await stepTimes(tx, operation))],
})

async function teardownOf(
  tx: Transaction,
  ctx: Context,
  failure: string | null,
): Promise<Teardown> {
  const verified = resultOf<Verified>(ctx, 'verify')
  const found = verified?.reasons ?? []
  const reasons = found.length === 0 && failure !== null ? [failure] : found
  return {
    verdict: verified !== undefined && reasons.length === 0 ? 'clean' : 'not_clean',
    reasons: reasons.map((reason) => reason.toWellFormed().slice(0, 1_000)),
    forced: ctx.input.force && reasons.length > 0,
    asked: verified?.asked ?? NOBODY_ASKED,
    steps: [...(await stepTimes(tx, ctx.id))],
  }
}

/** The site has nothing of it: also of what was removed with its answer lost. */
async function forget(tx: Transaction, ctx: Context): Promise<void> {
  const disks = await drillDisks(tx, ctx.resourceId)
  await recordRemoved(tx, ctx, null)
  await recordDeleted(tx, ctx, { gone: disks.map(({ volume }) => volume), reasons: [] })
  await deleteDrillRows(tx, ctx.resourceId)
}

export const deleteDrill = operation<EndDrill>('drill.delete', {
  version: 2,
  steps: [
    step<EndDrill, string | null>('servers', {
      weight: 2,
      act: removeServers,
      record: recordRemoved,
    }),
    step<EndDrill, Deleted>('volumes', {
      weight: 2,
      act: deleteVolumes,
      record: recordDeleted,
    }),
    step<EndDrill, string | null>('snapshot', {
      act: async (ctx) => {
        const { store, sites } = ctx.services
        const { az, snapshot } = await theDrill(store.db, ctx.resourceId)
        const options = { signal: ctx.signal, timeoutMs: SNAPSHOT_MS }
        return await unlessForced(ctx, async () => {
          await sites.command(az, 'snapshot.delete', { snapshot }, options)
        })
      },
    }),
    step<EndDrill, Verified>('verify', { act: verify }),
    step('end', {
      act: async (ctx) => {
        const reasons = resultOf<Verified>(ctx, 'verify')?.reasons ?? []
        if (reasons.length === 0 || ctx.input.force) return
        throw new Fault(DRILL_NOT_CLEAN, `deleting drill ${ctx.resourceId}: ${reasons.join('; ')}`)
      },
      record: async (tx, ctx) => {
        const now = ctx.services.clock.wallMs()
        const drill = await theDrill(tx, ctx.resourceId)
        const teardown = await teardownOf(tx, ctx, null)
        await writeReport(tx, ctx.services, { drill, stage: 'ended', failure: null, teardown })
        if (teardown.verdict === 'clean') return await forget(tx, ctx)
        const change = { failure_detail: teardown.reasons.join('; ').slice(0, 500), forced_at: now }
        await moveDrill(tx, drill.id, 'error-deleting', change, now)
      },
    }),
  ],
  failed: async (tx, ctx, failure) => {
    const now = ctx.services.clock.wallMs()
    const drill = await theDrill(tx, ctx.resourceId)
    const change = { failure_detail: failure.message.slice(0, 500) }
    await moveDrill(tx, drill.id, 'error-deleting', change, now)
    const teardown = await teardownOf(tx, ctx, failure.message)
    // One that was given up is tried again and again: every try is an operation, and only what is new is a report.
    if (drill.forced_at !== null && (await endIsReported(tx, drill, teardown))) return
    await writeReport(tx, ctx.services, { drill, stage: 'ended', failure, teardown })
  },
})
