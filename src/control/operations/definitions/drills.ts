import { sleep } from '#base/clock.ts'
import { Fault, fault } from '#base/fault.ts'
import { drillDisks, drillServers, moveDrill } from '#control/resources/drills.ts'
import { drAz, productionAz, readGroup } from '#control/resources/groups.ts'
import { portsOf } from '#control/resources/networks.ts'
import { disksOf, readServer, setDiskState, updateServer } from '#control/resources/servers.ts'
import { moveVolume, readVolume } from '#control/resources/volumes.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type { DrillDiskRow } from '#control/store/tables/drills.ts'
import { dataAge } from '#domain/drill.ts'
import type { DrillStep, Production, ProbeFinding } from '#wire/reports/drill-report.ts'
import type { SnapshotInfo, SnapshotMoment } from '#wire/site/snapshots.ts'
import { operation, step, type StepContext } from '../operation.ts'
import { type DrillFindings, drillOptions, probesFor } from './drill-facts.ts'
import { probeAll } from './drill-probes.ts'
import { writeReport } from './drill-reports.ts'
import { type Timed, theDrill, timed } from './drill-steps.ts'
import { defineServer } from './server-definition.ts'
import { GUEST_NOT_RUNNING, powerOf, START_MS } from './servers.ts'
import { ownerOf } from './session.ts'

/* A drill is made.
 *
 *     snapshot   all disks of the DR side at one moment, without touching replication; what production said before and after it
 *     clone      a volume for each disk
 *     release    the snapshot goes: the copies do not need it, and it would cost writes of the DR side
 *     start      definitions, then guests
 *     probe      what was asked for, until it succeeds or the time is over; a drill whose probes fail is a drill that was made
 *     finish     available, and the report
 *
 * Every step is safe to repeat. A snapshot that was taken by a try whose answer was lost is taken again, because its moment is known to nobody.
 */

export const DRILL_GROUP_MOVED = fault({
  code: 'DRILL_GROUP_MOVED',
  retry: 'never',
  text: 'The group was switched while the drill was being made.',
  hint: 'Delete the drill, and make it again when the group has settled.',
})

type Context = StepContext<Record<string, never>>

const SNAPSHOT_MS = 280_000
const SHOW_MS = 5_000
const CLONE_PAUSE_MS = 200
const STARTS_AT_ONCE = 4

// ---------------------------------------------------------------- snapshot

interface Taken {
  readonly info: SnapshotInfo
  readonly moments: readonly SnapshotMoment[]
  readonly before: Production | null
  readonly after: Production | null
  readonly outOfTouchMs: number | null
}

async function takeSnapshot(ctx: Context): Promise<Taken> {
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

async function sessionAt(ctx: Context, site: string, session: string) {
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
  ctx: Context,
  site: string,
  session: string,
): Promise<Production | null> {
  const status = await sessionAt(ctx, site, session)
  if (status?.role !== 'writer') return null
  const { state, epoch, sequence, acknowledged } = status
  return { state, epoch, sequence, acknowledged }
}

// ---------------------------------------------------------------- clone

async function cloneAll(ctx: Context): Promise<void> {
  const { store, sites, clock } = ctx.services
  const { az, snapshot } = await theDrill(store.db, ctx.resourceId)
  const disks = await drillDisks(store.db, ctx.resourceId)
  const owner = ownerOf(ctx)
  const total = disks.reduce((sum, { size_gb }) => sum + size_gb, 0)
  let done = 0
  for (const { volume: new_volume, source: volume, size_gb } of disks) {
    const request = { snapshot, volume, new_volume, owner }
    for (;;) {
      const info = await sites.command(az, 'snapshot.clone', request, { signal: ctx.signal })
      const share = info.copied_bytes / Math.max(1, info.total_bytes)
      await ctx.progress((100 * (done + size_gb * share)) / Math.max(1, total))
      if (info.state === 'cloned') break
      await sleep(clock, CLONE_PAUSE_MS, ctx.signal)
    }
    done += size_gb
  }
}

async function recordCloned(tx: Transaction, ctx: Context): Promise<void> {
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

// ---------------------------------------------------------------- start

interface Started {
  readonly server: string
  readonly startedAt: number
  readonly power: { readonly power: string; readonly power_at: number }
}

async function startAll(ctx: Context): Promise<Started[]> {
  const { store, sites, clock } = ctx.services
  const { az } = await theDrill(store.db, ctx.resourceId)
  const waiting = [...((await drillServers(store.db, [ctx.resourceId])).get(ctx.resourceId) ?? [])]
  const count = waiting.length
  const started: Started[] = []
  const work = async () => {
    for (let one = waiting.shift(); one !== undefined; one = waiting.shift()) {
      const { server } = one
      const options = { signal: ctx.signal, timeoutMs: START_MS }
      await defineServer(ctx.services, server, options)
      const info = await sites.command(az, 'server.start', { server }, options)
      if (info.power === 'off') {
        throw new Fault(GUEST_NOT_RUNNING, `starting ${server}: ${info.reason ?? 'it is off'}`)
      }
      started.push({ server, startedAt: clock.wallMs(), power: powerOf(info) })
      await ctx.progress((100 * started.length) / count)
    }
  }
  await Promise.all(Array.from({ length: Math.min(STARTS_AT_ONCE, count) }, work))
  return started
}

async function recordStarted(
  tx: Transaction,
  ctx: Context,
  started: readonly Started[],
): Promise<void> {
  const now = ctx.services.clock.wallMs()
  for (const { server, startedAt, power } of started) {
    const row = await readServer(tx, server)
    if (row === undefined || row.task === 'deleting') continue
    const change = { ...power, status: 'active', task: null, fault: null, launched_at: startedAt }
    await updateServer(tx, server, change, now)
  }
}

// ---------------------------------------------------------------- probe

interface Probed {
  readonly server: string
  readonly probes: readonly ProbeFinding[]
}

async function probeServers(ctx: Context): Promise<Probed[]> {
  const { db } = ctx.services.store
  const drill = await theDrill(db, ctx.resourceId)
  const rows = (await drillServers(db, [drill.id])).get(drill.id) ?? []
  const options = drillOptions(drill)
  const tasks = rows.flatMap(({ server, instance }) =>
    probesFor(options, instance).map((probe) => ({ server, probe })),
  )
  const findings = await probeAll(ctx, drill.az, tasks, {
    requestedAtMs: drill.created_at,
    timeoutMs: options.timeoutMs,
  })
  return rows.map(({ server }) => ({
    server,
    probes: findings.filter((_, index) => tasks[index]?.server === server),
  }))
}

// ---------------------------------------------------------------- what was found

const resultOf = <T>(ctx: Context, name: string): Timed<T> | undefined =>
  ctx.results[name] as Timed<T> | undefined

const STEPS = ['snapshot', 'clone', 'release', 'start', 'probe'] as const

const stepsOf = (ctx: Context): DrillStep[] =>
  STEPS.flatMap((name) => resultOf(ctx, name)?.step ?? [])

/** null: no snapshot was taken. */
async function findingsOf(tx: Transaction, ctx: Context): Promise<DrillFindings | null> {
  const taken = resultOf<Taken>(ctx, 'snapshot')?.value
  if (taken === undefined) return null
  const { info, moments, before, after, outOfTouchMs } = taken
  const started = resultOf<Started[]>(ctx, 'start')?.value ?? []
  const probed = resultOf<Probed[]>(ctx, 'probe')?.value ?? []
  const rows = (await drillServers(tx, [ctx.resourceId])).get(ctx.resourceId) ?? []
  const ports = await portsOf(
    tx,
    rows.map(({ server }) => server),
  )
  const servers: DrillFindings['servers'][number][] = []
  for (const { instance, server, name } of rows) {
    servers.push({
      instance,
      server,
      name,
      flavor: (await readServer(tx, server))?.flavor ?? '',
      addresses: (ports.get(server) ?? []).map(({ address }) => address),
      started_at: started.find((one) => one.server === server)?.startedAt ?? null,
      probes: [...(probed.find((one) => one.server === server)?.probes ?? [])],
    })
  }
  const moment = moments[0] ?? null
  const takenAtMs = Math.round(info.taken_at)
  const age = dataAge({
    takenAtMs,
    replica: moment,
    before,
    after,
    outOfTouchSinceMs: outOfTouchMs,
  })
  return {
    moment: {
      taken_at: takenAtMs,
      session: moment?.session ?? null,
      epoch: moment?.epoch ?? null,
      sequence: moment?.sequence ?? null,
      production_before: before,
      production_after: after,
      kinds: [...new Set(info.volumes.map(({ kind }) => kind))].sort(),
    },
    dataAgeMs: age.ms,
    dataAgeBasis: age.basis,
    stallMs: Math.ceil(info.stall_ms),
    steps: stepsOf(ctx),
    servers,
  }
}

export const createDrill = operation<Record<string, never>>('drill.create', {
  version: 1,
  steps: [
    step('snapshot', { act: (ctx) => timed(ctx, 'snapshot', () => takeSnapshot(ctx)) }),
    step<Record<string, never>, unknown>('clone', {
      weight: 6,
      act: (ctx) => timed(ctx, 'clone', () => cloneAll(ctx)),
      record: (tx, ctx) => recordCloned(tx, ctx),
    }),
    step('release', {
      act: (ctx) =>
        timed(ctx, 'release', async () => {
          const { az, snapshot } = await theDrill(ctx.services.store.db, ctx.resourceId)
          const options = { signal: ctx.signal, timeoutMs: SNAPSHOT_MS }
          await ctx.services.sites.command(az, 'snapshot.delete', { snapshot }, options)
        }),
    }),
    step<Record<string, never>, Timed<Started[]>>('start', {
      weight: 2,
      act: (ctx) => timed(ctx, 'start', () => startAll(ctx)),
      record: (tx, ctx, { value }) => recordStarted(tx, ctx, value),
    }),
    step('probe', {
      weight: 6,
      act: (ctx) => timed(ctx, 'probe', () => probeServers(ctx)),
    }),
    step('finish', {
      record: async (tx, ctx) => {
        const now = ctx.services.clock.wallMs()
        const drill = await theDrill(tx, ctx.resourceId)
        const findings = await findingsOf(tx, ctx)
        await moveDrill(tx, drill.id, 'available', { findings: toJson(findings) }, now)
        const parts = { drill, findings, failure: null, teardown: null }
        await writeReport(tx, ctx.services, { ...parts, stage: 'ready' })
      },
    }),
  ],
  // What was made stays until the drill is deleted.
  failed: async (tx, ctx, failure) => {
    const now = ctx.services.clock.wallMs()
    const drill = await theDrill(tx, ctx.resourceId)
    await recordUnmade(tx, ctx, await drillDisks(tx, drill.id))
    const findings = await findingsOf(tx, ctx)
    const change = {
      findings: findings === null ? null : toJson(findings),
      failure_detail: failure.message.slice(0, 500),
    }
    await moveDrill(tx, drill.id, 'error', change, now)
    const steps = stepsOf(ctx)
    const parts = { drill, findings, steps, failure, teardown: null }
    await writeReport(tx, ctx.services, { ...parts, stage: 'failed' })
  },
})

async function recordUnmade(
  tx: Transaction,
  ctx: Context,
  disks: readonly DrillDiskRow[],
): Promise<void> {
  const now = ctx.services.clock.wallMs()
  for (const { volume } of disks) {
    if ((await readVolume(tx, volume))?.status === 'creating') {
      await moveVolume(tx, volume, 'error', now)
    }
  }
  const rows = (await drillServers(tx, [ctx.resourceId])).get(ctx.resourceId) ?? []
  for (const { server } of rows) {
    const row = await readServer(tx, server)
    if (row?.task !== 'spawning') continue
    await updateServer(tx, server, { status: 'error', task: null }, now)
  }
}
