import { Fault, isFault } from '#base/fault.ts'
import { drillServers, moveDrillServer, noteProbes } from '#control/resources/drills.ts'
import { readServer, updateServer } from '#control/resources/servers.ts'
import { toJson } from '#control/store/json.ts'
import type { DrillRow, DrillServerRow } from '#control/store/tables/drills.ts'
import { drillRun, startedAt, type WantedProbe } from '#domain/drill-run.ts'
import { hasEnded, hasSettled, whoseTurn } from '#domain/recovery-plan.ts'
import type { Probe } from '#wire/site/probes.ts'
import type { ServerInfo } from '#wire/site/servers.ts'
import { StepWaits } from '../../operation.ts'
import { drillPlan, probesFor, type SeenProbe, seenProbes, stateOf } from './drill-facts.ts'
import type { DrillContext } from './drill-making.ts'
import { askProbe } from './drill-probes.ts'
import { theDrill } from './drill-steps.ts'
import { defineServer } from '../servers/server-definition.ts'
import { GUEST_NOT_RUNNING, powerOf, START_MS } from '../servers/servers.ts'

/* The servers of a drill come up and are looked at, in the order of the plan (src/domain/drill-run.ts).
 *
 * Everything that is found is in the rows of the servers before anything follows from it: when a site was asked to start one, since when it
 * ran, and each probe that succeeded with its time as the site measured it. So whoever goes on after a crash neither starts the time anew
 * nor adds the crash to it. The sites look at the guests by themselves (`watch` of server.probe); this only hears what they saw, in short
 * rounds, and holds no place between them.
 */

const STARTS_AT_ONCE = 4
const ASKED_AT_ONCE = 16
/** Between two rounds. What it adds to the whole drill, but to no time in its report. */
const PAUSE_MS = 500
/** A round that has held its place for so long lets others go first. */
const ROUND_MS = 5_000

interface Round {
  readonly drill: DrillRow
  readonly rows: readonly DrillServerRow[]
}

export async function runServers(ctx: DrillContext): Promise<void> {
  const { clock } = ctx.services
  const endMs = clock.bootMs() + ROUND_MS
  for (;;) {
    const moved = (await begin(ctx, await look(ctx))) + (await probe(ctx, await look(ctx)))
    const { rows } = await look(ctx)
    const settled = rows.filter((row) => hasSettled(stateOf(row))).length
    await ctx.progress((100 * settled) / Math.max(1, rows.length))
    if (settled === rows.length) return
    if (moved === 0 || clock.bootMs() >= endMs) throw new StepWaits(PAUSE_MS)
  }
}

async function look(ctx: DrillContext): Promise<Round> {
  return await ctx.services.store.read(async (db) => {
    const drill = await theDrill(db, ctx.resourceId)
    return { drill, rows: (await drillServers(db, [drill.id])).get(drill.id) ?? [] }
  })
}

// ---------------------------------------------------------------- start

/** Those whose turn it is, and those whose start was begun and not recorded. Returns how many moved. */
async function begin(ctx: DrillContext, { drill, rows }: Round): Promise<number> {
  const { store, clock } = ctx.services
  const run = drillRun(
    drillPlan(drill),
    rows.map((row) => ({ instance: row.instance, state: stateOf(row) })),
  )
  const turn = new Set(whoseTurn(run))
  const waiting = rows.filter((row) => stateOf(row) === 'waiting' && turn.has(row.instance))
  if (hasEnded(run.state)) {
    const reason = 'A server before it is not ready, and its plan says that the others wait then.'
    await store.write(async (tx) => {
      for (const row of waiting) {
        const change = { settled_at: clock.wallMs(), reason }
        await moveDrillServer(tx, row, 'waiting', 'skipped', change)
      }
    })
    return waiting.length
  }
  await store.write(async (tx) => {
    for (const row of waiting) {
      await moveDrillServer(tx, row, 'waiting', 'starting', { asked_at: clock.wallMs() })
    }
  })
  const going = [...rows.filter((row) => stateOf(row) === 'starting'), ...waiting]
  const count = going.length
  await inParallel(STARTS_AT_ONCE, going, (row) => start(ctx, drill, row))
  return count
}

async function start(ctx: DrillContext, drill: DrillRow, row: DrillServerRow): Promise<void> {
  const { store, sites, clock } = ctx.services
  const { server } = row
  const options = { signal: ctx.signal, timeoutMs: START_MS }
  let info: ServerInfo
  try {
    await defineServer(ctx.services, server, options)
    info = await sites.command(drill.az, 'server.start', { server }, options)
    if (info.power === 'off') {
      throw new Fault(GUEST_NOT_RUNNING, `starting ${server}: ${info.reason ?? 'it is off'}`)
    }
  } catch (error) {
    // Worth repeating: the whole step is. Refused: the others go on, and it is told.
    if (!isFault(error) || error.kind.retry !== 'never') throw error
    const reason = error.message.toWellFormed().slice(0, 500)
    await store.write(async (tx) => {
      const now = clock.wallMs()
      await moveDrillServer(tx, row, 'starting', 'not_ready', { settled_at: now, reason })
      const found = await readServer(tx, server)
      if (found?.task !== 'spawning') return
      await updateServer(tx, server, { status: 'error', task: null }, now)
    })
    return
  }
  await store.write(async (tx) => {
    const now = clock.wallMs()
    const asked = (await readAsked(ctx, row)) ?? now
    const started_at = startedAt(info.power_since, asked, now)
    await moveDrillServer(tx, row, 'starting', 'probing', { started_at })
    const found = await readServer(tx, server)
    if (found === undefined || found.task === 'deleting') return
    const change = { status: 'active', task: null, fault: null, launched_at: started_at }
    await updateServer(tx, server, { ...powerOf(info), ...change }, now)
  })
}

/** The row in hand may be from before it was asked. */
async function readAsked(ctx: DrillContext, row: DrillServerRow): Promise<number | null> {
  const { rows } = await look(ctx)
  return rows.find(({ instance }) => instance === row.instance)?.asked_at ?? null
}

// ---------------------------------------------------------------- probe

interface Question {
  readonly row: DrillServerRow
  readonly index: number
  readonly wanted: WantedProbe<Probe>
  readonly last: boolean
}

/** Returns how many servers settled. */
async function probe(ctx: DrillContext, { drill, rows }: Round): Promise<number> {
  const { store, clock } = ctx.services
  const probing = rows.filter((row) => stateOf(row) === 'probing')
  const seen = new Map(probing.map((row) => [row.instance, [...seenProbes(row)]]))
  const final = new Set<string>()
  const now = clock.wallMs()
  const questions = probing.flatMap((row) =>
    probesFor(drill, row.instance).flatMap((wanted, index): Question[] => {
      if (seen.get(row.instance)?.[index]?.ok === true) return []
      return [{ row, index, wanted, last: now - (row.started_at ?? now) >= wanted.timeoutMs }]
    }),
  )
  let silent = false
  await inParallel(ASKED_AT_ONCE, questions, async ({ row, index, wanted, last }) => {
    // A site that does not answer one question answers none; whose time is over has to be told why.
    if (silent && !last) return
    const heard = silent ? SILENT : await askProbe(ctx, drill.az, row.server, wanted.probe, last)
    silent ||= heard.silent
    const { ok, detail, since_start_ms } = heard
    const list = seen.get(row.instance) ?? []
    list[index] = { ok, detail, since_start_ms }
    if (!ok && (last || heard.final)) final.add(`${row.instance} ${index}`)
  })
  let settled = 0
  for (const row of probing) {
    const list = seen.get(row.instance) ?? []
    const wanted = probesFor(drill, row.instance)
    const found = wanted.map((_, index) => list[index] ?? NOT_SEEN)
    const open = found.flatMap(({ ok }, index) => (ok ? [] : [index]))
    const over = open.every((index) => final.has(`${row.instance} ${index}`))
    const succeeded = (all: readonly SeenProbe[]) => all.filter(({ ok }) => ok).length
    if (!over) {
      if (succeeded(found) === succeeded(seenProbes(row))) continue
      await store.write((tx) => noteProbes(tx, row, toJson(found)))
      continue
    }
    settled++
    const [first] = open
    const reason =
      first === undefined ? null : `${wanted[first]?.probe.kind}: ${found[first]?.detail}`
    const change = { probes: toJson(found), settled_at: clock.wallMs(), reason }
    const to = first === undefined ? 'ready' : 'not_ready'
    await store.write((tx) => moveDrillServer(tx, row, 'probing', to, change))
  }
  return settled
}

const NOT_SEEN: SeenProbe = { ok: false, detail: 'nobody looked', since_start_ms: null }
const SILENT = {
  ok: false,
  detail: 'the site does not answer',
  since_start_ms: null,
  final: false,
  silent: true,
}

async function inParallel<T>(
  atOnce: number,
  list: readonly T[],
  work: (one: T) => Promise<void>,
): Promise<void> {
  const waiting = [...list]
  const worker = async () => {
    for (let one = waiting.shift(); one !== undefined; one = waiting.shift()) await work(one)
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, list.length) }, worker))
}
