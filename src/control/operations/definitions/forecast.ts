import type { Clock } from '#base/clock.ts'
import { drServer, productionServer } from '#control/resources/instances.ts'
import { drAz, pairsOfGroup, productionAz, readGroup } from '#control/resources/groups.ts'
import { findPlan, lastReadyTimes } from '#control/resources/recovery.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import type { Witness } from '#control/sites/witness.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import { freezesFirst } from '#domain/failover.ts'
import type { Ownership } from '#domain/ownership.ts'
import { newRun } from '#domain/recovery-plan.ts'
import type { StepContext } from '../operation.ts'
import { addEntities } from '../records.ts'
import { switchingInstances } from './instance-identity.ts'
import { storedPlan } from './plan-format.ts'

/* How long an action on a group is going to take, in its parts: what has to be waited for is known, what has been done before was measured,
 * and for the rest there is an assumption that says that it is one.
 *
 * Measured are the steps of the last operations of the same kind that succeeded, in this region, under like circumstances (production heard
 * or not); of steps that wait for a silent site the shortest, because the wait is a part of its own.
 */

export type ForecastAction =
  | 'start'
  | 'reprotect'
  | 'stop'
  | 'reverse'
  | 'failover'
  | 'delete'
  | 'drill'

export interface TimePart {
  readonly name: 'lease_wait' | 'contact_wait' | 'switch' | 'servers' | 'copy'
  readonly ms: number
  /** known: by the record or the plan · measured: of earlier runs · assumed: nobody has measured it here */
  readonly basis: 'known' | 'measured' | 'assumed'
}

export interface Forecast {
  /** Until the job has ended; null: nobody can say. */
  readonly totalMs: number | null
  readonly parts: readonly TimePart[]
  /** What goes on when the job has ended: the copy, or the servers of a recovery plan. */
  readonly afterwards: readonly TimePart[]
}

interface Sources {
  readonly agents: AgentRegistry
  readonly witness: Witness
  readonly clock: Clock
}
type Db = Queries | Transaction

const KINDS: Readonly<Record<ForecastAction, string>> = {
  start: 'group.start',
  reprotect: 'group.reprotect',
  stop: 'group.stop',
  reverse: 'group.reverse',
  failover: 'group.failover',
  delete: 'group.delete',
  drill: 'drill.create',
}

/** Seen on an idle machine with small groups; only where nothing was measured yet. A drill boots servers: that is not guessed. */
const ASSUMED_MS: Readonly<Record<ForecastAction, number | null>> = {
  start: 600,
  reprotect: 600,
  stop: 200,
  reverse: 800,
  failover: 700,
  delete: 100,
  drill: null,
}
/** An agent's default: how long after the last word of its peer a writer may still answer. */
const CONTACT_MS = 4_000
/** What the witness adds to a lease, at most, by default. */
const DRIFT_MS = 500
const ASSUMED_START_MS = 3_000
const ASSUMED_READY_MS = 15_000
const RUNS_MAX = 20

export async function forecastOf(
  db: Db,
  sources: Sources,
  group: ProtectionGroupRow,
  action: ForecastAction,
  force = false,
): Promise<Forecast> {
  const record = await sources.witness.record(group.id)
  const heard = sources.agents.heard(productionAz(group))
  const parts: TimePart[] = []
  if (action === 'failover' && record !== null && !heard) {
    parts.push(...waits(sources, group, record, force))
  }
  const servers = await serverTimes(db, group, action)
  const measured = await measuredMs(db, KINDS[action], action === 'failover' ? heard : null)
  const assumed = ASSUMED_MS[action]
  if (measured !== null) parts.push({ name: 'switch', ms: measured, basis: 'measured' })
  else if (assumed !== null) parts.push({ name: 'switch', ms: assumed, basis: 'assumed' })
  if (servers.inJob !== null) parts.push(servers.inJob)
  const known = measured !== null || assumed !== null
  return {
    totalMs: known ? parts.reduce((sum, { ms }) => sum + ms, 0) : null,
    parts,
    afterwards: [
      ...(servers.afterwards === null ? [] : [servers.afterwards]),
      ...(await copyTime(db, sources, group, action, record)),
    ],
  }
}

/** Puts the forecast beside the operation, so that it can be compared with what it took; in `record` of an early step. */
export async function recordForecast(
  tx: Transaction,
  ctx: StepContext<unknown>,
  action: ForecastAction,
  force = false,
): Promise<void> {
  try {
    await addForecast(tx, ctx, action, force)
  } catch (error) {
    // Nothing that is only foretold stands in the way of what is done.
    ctx.services.log.error({ err: error, operation: ctx.id }, 'the operation has no forecast')
  }
}

async function addForecast(
  tx: Transaction,
  ctx: StepContext<unknown>,
  action: ForecastAction,
  force: boolean,
): Promise<void> {
  const group = await readGroup(tx, ctx.resourceId)
  if (group === undefined) return
  // The published `start` stands for both, and so do their steps.
  const wanted = action === 'start' && group.status === 'reprotecting' ? 'reprotect' : action
  const { totalMs, parts } = await forecastOf(tx, ctx.services, group, wanted, force)
  await addEntities(tx, ctx.id, {
    forecast_ms: totalMs,
    forecast: parts,
    production_heard: ctx.services.agents.heard(productionAz(group)),
  })
}

// ---------------------------------------------------------------- waits

/** What a silent production site is waited for. */
function waits(
  { agents, clock }: Sources,
  group: ProtectionGroupRow,
  record: Ownership,
  force: boolean,
): TimePart[] {
  const parts: TimePart[] = []
  const mayHoldLease = freezesFirst(record, drAz(group), force) || record.state === 'frozen'
  if (mayHoldLease && record.lease !== null) {
    const leftMs = Math.max(0, record.lease.endsBootMs + DRIFT_MS - clock.bootMs())
    parts.push({ name: 'lease_wait', ms: Math.ceil(leftMs), basis: 'known' })
  }
  const dr = agents.session(group.id, drAz(group))
  if (record.state === 'in_sync' && dr !== null) {
    const since = dr.status.out_of_touch_ms
    const noted = since === null ? 0 : clock.wallMs() - since
    const silentMs = Math.max(noted, (dr.status.peer_silence_ms ?? 0) + dr.ageMs)
    const leftMs = Math.max(0, CONTACT_MS - silentMs)
    parts.push({ name: 'contact_wait', ms: Math.ceil(leftMs), basis: 'assumed' })
  }
  return parts
}

// ---------------------------------------------------------------- measured

const WAITING_STEPS: ReadonlySet<string> = new Set(['failover_record', 'open_dr', 'ask_consent'])
/** Counted apart. */
const SERVER_STEPS: ReadonlySet<string> = new Set(['start_servers'])

/** Of the last operations of this kind, without their servers; null: there is none. `heard`: only those with production heard, or silent. */
async function measuredMs(db: Db, kind: string, heard: boolean | null): Promise<number | null> {
  const operations = await db
    .selectFrom('operations')
    .select(['id', 'begin_at', 'entities'])
    .where('kind', '=', kind)
    .where('status', '=', 'succeeded')
    .orderBy('ordinal', 'desc')
    .limit(RUNS_MAX)
    .execute()
  const like = operations.filter(
    ({ entities }) => heard === null || entities.includes(`"production_heard":${heard}`),
  )
  if (like.length === 0) return null
  const steps = await db
    .selectFrom('operation_steps')
    .select(['operation', 'step', 'name', 'end_at'])
    .where(
      'operation',
      'in',
      like.map(({ id }) => id),
    )
    .orderBy('operation')
    .orderBy('step')
    .execute()
  const began = new Map(like.map(({ id, begin_at }) => [id, begin_at ?? 0]))
  const times = new Map<string, number[]>()
  for (const { operation, name, end_at } of steps) {
    const from = began.get(operation) ?? end_at
    times.set(name, [...(times.get(name) ?? []), Math.max(0, end_at - from)])
    began.set(operation, end_at)
  }
  let total = 0
  for (const [name, all] of times) {
    if (SERVER_STEPS.has(name)) continue
    total += heard === false && WAITING_STEPS.has(name) ? Math.min(...all) : median(all)
  }
  return total
}

const median = (all: readonly number[]): number => {
  const sorted = all.toSorted((a, b) => a - b)
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? 0
}

// ---------------------------------------------------------------- servers

interface ServerTimes {
  /** While the job runs. */
  readonly inJob: TimePart | null
  /** By a recovery plan, after it. */
  readonly afterwards: TimePart | null
}

async function serverTimes(
  db: Db,
  group: ProtectionGroupRow,
  action: ForecastAction,
): Promise<ServerTimes> {
  const none = { inJob: null, afterwards: null }
  if ((action !== 'failover' && action !== 'reverse') || group.start_servers === 0) return none
  const instances = await switchingInstances(db, group.id)
  if (instances.length === 0) return none
  // Those that are going to be production, and what they took when they were it last; else what the present ones took.
  const own = instances.map((instance) => drServer(group, instance))
  const other = instances.map((instance) => productionServer(group, instance))
  const starts = await startTimes(db, [...own, ...other])
  const startOf = (index: number) => starts.get(own[index] ?? '') ?? starts.get(other[index] ?? '')
  const stored = await findPlan(db, group.id)
  if (stored === undefined) {
    const times = own.map((_, index) => startOf(index))
    const ms = Math.max(...times.map((time) => time ?? ASSUMED_START_MS))
    const basis = times.every((time) => time !== undefined) ? 'measured' : 'assumed'
    return { inJob: { name: 'servers', ms, basis }, afterwards: null }
  }
  const ready = await lastReadyTimes(db, [...own, ...other])
  let all = true
  const msOf = new Map(
    instances.map((instance, index) => {
      const known = ready.get(own[index] ?? '') ?? ready.get(other[index] ?? '') ?? startOf(index)
      if (known === undefined) all = false
      return [instance.id, known ?? ASSUMED_READY_MS]
    }),
  )
  const { servers } = newRun(
    storedPlan(stored.plan),
    instances.map(({ id }) => id),
  )
  const basis = all ? 'measured' : 'assumed'
  return { inJob: null, afterwards: { name: 'servers', ms: longestPath(servers, msOf), basis } }
}

/** Waves follow each other; inside one a server waits for those that it is after. Pauses are as long as they are. */
export function longestPath(
  servers: readonly {
    readonly instance: string
    readonly wave: number
    readonly after: readonly string[]
  }[],
  msOf: ReadonlyMap<string, number>,
): number {
  const byId = new Map(servers.map((one) => [one.instance, one]))
  const ends = new Map<string, number>()
  const beginOf = new Map<number, number>()
  const endOf = (instance: string): number => {
    const known = ends.get(instance)
    if (known !== undefined) return known
    const one = byId.get(instance)
    if (one === undefined) return 0
    const begin = Math.max(waveBegins(one.wave), ...one.after.map(endOf))
    const end = begin + (msOf.get(instance) ?? 0)
    ends.set(instance, end)
    return end
  }
  const waveBegins = (wave: number): number => {
    const known = beginOf.get(wave)
    if (known !== undefined) return known
    const before = servers.filter((one) => one.wave < wave).map(({ instance }) => endOf(instance))
    const begin = Math.max(0, ...before)
    beginOf.set(wave, begin)
    return begin
  }
  return Math.max(0, ...servers.map(({ instance }) => endOf(instance)))
}

/** How long the last start of each server took that succeeded. */
async function startTimes(
  db: Db,
  servers: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  const found = new Map<string, number>()
  for (let from = 0; from < servers.length; from += 500) {
    const rows = await db
      .selectFrom('operations')
      .select(['resource_id', 'begin_at', 'end_at'])
      .where('resource_type', '=', 'server')
      .where('resource_id', 'in', servers.slice(from, from + 500))
      .where('kind', '=', 'server.start')
      .where('status', '=', 'succeeded')
      .orderBy('ordinal')
      .execute()
    for (const { resource_id, begin_at, end_at } of rows) {
      found.set(resource_id, Math.max(0, (end_at ?? 0) - (begin_at ?? 0)))
    }
  }
  return found
}

// ---------------------------------------------------------------- the copy

/** Copies that were smaller say more about the way there and back than about the speed. */
const RATE_BYTES_MIN = 8 * 1024 * 1024

/** Bytes that are going to be copied at most, and how long that takes by the rates of the last copies between the same sites. */
async function copyTime(
  db: Db,
  { agents }: Sources,
  group: ProtectionGroupRow,
  action: ForecastAction,
  record: Ownership | null,
): Promise<TimePart[]> {
  if (action !== 'start' && action !== 'reprotect') return []
  const sites = [group.source_az, group.target_az]
  const rate = await copyRate(db, agents, sites)
  if (rate === null) return []
  const bytes = record?.alone?.bytes ?? (action === 'start' ? await sizeOf(db, group.id) : null)
  if (bytes === null) return []
  return [{ name: 'copy', ms: Math.ceil((bytes / rate) * 1_000), basis: 'measured' }]
}

async function sizeOf(db: Db, group: string): Promise<number> {
  const pairs = await pairsOfGroup(db, group)
  let bytes = 0
  for (let from = 0; from < pairs.length; from += 500) {
    const rows = await db
      .selectFrom('volumes')
      .select('size_gb')
      .where(
        'id',
        'in',
        pairs.slice(from, from + 500).map((pair) => pair.source_volume),
      )
      .execute()
    for (const { size_gb } of rows) bytes += size_gb * 1024 ** 3
  }
  return bytes
}

/** Bytes per second, of the last copy of each session between these sites that sent enough; null: there was none. */
async function copyRate(
  db: Db,
  agents: AgentRegistry,
  sites: readonly string[],
): Promise<number | null> {
  const sent = new Map<string, number>()
  for (const { report } of agents.list()) {
    if (!sites.includes(report.site)) continue
    for (const { session, copy_sent_bytes, role } of report.sessions) {
      if (role === 'writer' && copy_sent_bytes >= RATE_BYTES_MIN) sent.set(session, copy_sent_bytes)
    }
  }
  const sessions = [...sent.keys()].slice(0, RUNS_MAX)
  if (sessions.length === 0) return null
  const changes = await db
    .selectFrom('ownership_changes')
    .select(['session', 'kind', 'at'])
    .where('session', 'in', sessions)
    .orderBy('session')
    .orderBy('epoch')
    .execute()
  const rates = sessions.flatMap((session) => {
    const all = changes.filter((one) => one.session === session)
    const rise = all.findLastIndex(({ kind }) => kind === 'rise')
    const [begin, end] = [all[rise - 1]?.at, all[rise]?.at]
    if (begin === undefined || end === undefined || end <= begin) return []
    return [((sent.get(session) ?? 0) * 1_000) / (end - begin)]
  })
  return rates.length === 0 ? null : median(rates)
}
