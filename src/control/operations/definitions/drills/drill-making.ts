import { Fault, fault } from '#base/fault.ts'
import {
  DRILL_RESOURCE,
  drillDisks,
  drillServers,
  drillsInTheMaking,
  noteCloned,
  updateDrill,
} from '#control/resources/drills.ts'
import { drAz, productionAz, readGroup } from '#control/resources/groups.ts'
import { findPlan } from '#control/resources/recovery.ts'
import { disksOf, setDiskState } from '#control/resources/servers.ts'
import { moveVolume, readVolume } from '#control/resources/volumes.ts'
import type { Transaction } from '#control/store/store.ts'
import { mayBegin } from '#domain/drill.ts'
import type { Production } from '#wire/reports/drill-report.ts'
import type { SnapshotInfo, SnapshotMoment } from '#wire/site/snapshots.ts'
import { type StepContext, StepWaits } from '../../operation.ts'
import { drillOptions } from './drill-facts.ts'
import { theDrill } from './drill-steps.ts'
import { ownerOf } from '../protection/session.ts'

/* A drill's turn, its snapshot, and the copies. */

export const DRILL_GROUP_MOVED = fault({
  code: 'DRILL_GROUP_MOVED',
  retry: 'never',
  text: 'The group was switched while the drill was being made, or waited for its turn.',
  hint: 'Delete the drill, and make it again when the group has settled.',
})

export type DrillContext = StepContext<Record<string, never>>

// ---------------------------------------------------------------- turn

/** Whoever waits is woken by the end of another; it looks by itself all the same. */
const TURN_MS = 60_000

/** Begins, or waits for others; the plan is the one of this moment. */
export async function takeTurn(tx: Transaction, ctx: DrillContext): Promise<void> {
  const drill = await theDrill(tx, ctx.resourceId)
  if (drill.began_at !== null) return
  const group = await readGroup(tx, drill.group_id)
  if (group === undefined || drAz(group) !== drill.az) {
    throw new Fault(DRILL_GROUP_MOVED, `making drill ${drill.id}`)
  }
  if (!mayBegin(await drillsInTheMaking(tx)).includes(drill.id)) throw new StepWaits(TURN_MS)
  const now = ctx.services.clock.wallMs()
  const follows = drillOptions(drill).plan !== 'ignore'
  const stored = follows ? await findPlan(tx, group.id) : undefined
  await updateDrill(tx, drill.id, { began_at: now, plan: stored?.plan ?? null }, now)
}

/** In the transaction that makes a place free. */
export async function wakeNext(tx: Transaction, ctx: DrillContext): Promise<void> {
  const next = mayBegin(await drillsInTheMaking(tx))
  if (next.length === 0) return
  const waiting = await tx
    .selectFrom('operations')
    .select('id')
    .where('resource_type', '=', DRILL_RESOURCE)
    .where('resource_id', 'in', next)
    .where('status', 'in', ['pending', 'running'])
    .execute()
  await ctx.wake(
    tx,
    waiting.map(({ id }) => id),
  )
}

// ---------------------------------------------------------------- snapshot

const SNAPSHOT_MS = 280_000
const SHOW_MS = 5_000

export interface Taken {
  readonly info: SnapshotInfo
  readonly moments: readonly SnapshotMoment[]
  readonly before: Production | null
  readonly after: Production | null
  readonly outOfTouchMs: number | null
}

export async function takeSnapshot(ctx: DrillContext): Promise<Taken> {
  const { store, sites } = ctx.services
  const { drill, disks, production } = await store.read(async (db) => {
    const drill = await theDrill(db, ctx.resourceId)
    const group = await readGroup(db, drill.group_id)
    if (group === undefined || drAz(group) !== drill.az) {
      throw new Fault(DRILL_GROUP_MOVED, `making drill ${drill.id}`)
    }
    return { drill, disks: await drillDisks(db, drill.id), production: productionAz(group) }
  })
  const { az, snapshot } = drill
  const session = drill.group_id
  const options = { signal: ctx.signal, timeoutMs: SNAPSHOT_MS }
  await sites.command(az, 'snapshot.delete', { snapshot }, options)
  const before = await productionAt(ctx, production, session)
  const volumes = [...new Set(disks.map(({ source }) => source))].sort()
  const taken = await sites.command(
    az,
    'snapshot.create',
    { snapshot, volumes, purpose: 'drill' },
    options,
  )
  const after = await productionAt(ctx, production, session)
  const replica = await sessionAt(ctx, az, session)
  const silent = replica?.out_of_touch_ms ?? null
  return { ...taken, before, after, outOfTouchMs: silent === null ? null : Math.round(silent) }
}

async function sessionAt(ctx: DrillContext, site: string, session: string) {
  try {
    const options = { signal: ctx.signal, timeoutMs: SHOW_MS }
    return await ctx.services.sites.command(site, 'session.show', { session }, options)
  } catch (error) {
    ctx.signal.throwIfAborted()
    // Silent, or without a session: then nothing can be said about it.
    if (error instanceof Fault) return null
    throw error
  }
}

async function productionAt(
  ctx: DrillContext,
  site: string,
  session: string,
): Promise<Production | null> {
  const status = await sessionAt(ctx, site, session)
  if (status?.role !== 'writer') return null
  const { state, epoch, sequence, acknowledged } = status
  return { state, epoch, sequence, acknowledged }
}

export async function releaseSnapshot(ctx: DrillContext): Promise<void> {
  const { az, snapshot } = await theDrill(ctx.services.store.db, ctx.resourceId)
  const options = { signal: ctx.signal, timeoutMs: SNAPSHOT_MS }
  await ctx.services.sites.command(az, 'snapshot.delete', { snapshot }, options)
}

// ---------------------------------------------------------------- clone

/** Between two looks at a copy that the site makes by itself. */
const CLONE_PAUSE_MS = 500

/** Has the disks copied, one after the other; while the site copies it waits without a place. */
export async function cloneAll(ctx: DrillContext): Promise<void> {
  const { store, sites } = ctx.services
  const { az, snapshot } = await theDrill(store.db, ctx.resourceId)
  const disks = await drillDisks(store.db, ctx.resourceId)
  const owner = ownerOf(ctx)
  const total = disks.reduce((sum, { size_gb }) => sum + size_gb, 0)
  let done = 0
  for (const { volume: new_volume, source: volume, size_gb, cloned } of disks) {
    if (cloned === 0) {
      const request = { snapshot, volume, new_volume, owner }
      const info = await sites.command(az, 'snapshot.clone', request, { signal: ctx.signal })
      const share = info.copied_bytes / Math.max(1, info.total_bytes)
      await ctx.progress((100 * (done + size_gb * share)) / Math.max(1, total))
      if (info.state !== 'cloned') throw new StepWaits(CLONE_PAUSE_MS)
      await store.write((tx) => noteCloned(tx, new_volume))
    }
    done += size_gb
  }
}

export async function recordCloned(tx: Transaction, ctx: DrillContext): Promise<void> {
  const now = ctx.services.clock.wallMs()
  for (const { volume } of await drillDisks(tx, ctx.resourceId)) {
    if ((await readVolume(tx, volume))?.status === 'creating') {
      await moveVolume(tx, volume, 'available', now)
    }
  }
  const rows = (await drillServers(tx, [ctx.resourceId])).get(ctx.resourceId) ?? []
  const disks = await disksOf(
    tx,
    rows.map(({ server }) => server),
  )
  for (const { server, volume, state } of [...disks.values()].flat()) {
    if (state === 'attaching') await setDiskState(tx, server, volume, 'attached', now)
  }
}
