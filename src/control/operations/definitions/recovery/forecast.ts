import type { Clock } from '#base/clock.ts'
import { drServer, productionServer } from '#control/resources/instances.ts'
import { drAz, pairsOfGroup, productionAz, readGroup } from '#control/resources/groups.ts'
import { findPlan, lastReadyTimes, readyTimes } from '#control/resources/recovery.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import { fromJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import { freezesFirst } from '#domain/failover.ts'
import {
  type Forecast,
  type GroupAction,
  learnConstant,
  longestPath,
  measure,
  type Sample,
  SAMPLES_MAX,
  sumUp,
  switchPart,
  type TimePart,
  waitPart,
} from '#domain/forecast.ts'
import type { Ownership } from '#domain/ownership.ts'
import { newRun } from '#domain/recovery-plan.ts'
import type { StepContext } from '../../operation.ts'
import { addEntities, findOperation } from '../../records.ts'
import { switchingInstances } from '../instances/instance-identity.ts'
import { storedPlan } from './plan-format.ts'

/* How long an action on a group is going to take: what the rules of src/domain/forecast.ts are given. Measured are the last operations of the
 * same kind that succeeded, in this region, under like circumstances: production heard, or silent. */

interface Sources {
  readonly agents: AgentRegistry
  readonly clock: Clock
}
type Db = Queries | Transaction

const KINDS: Readonly<Record<GroupAction, string>> = {
  start: 'group.start',
  reprotect: 'group.reprotect',
  stop: 'group.stop',
  reverse: 'group.reverse',
  failover: 'group.failover',
  delete: 'group.delete',
  drill: 'drill.create',
}

/** Seen on an idle machine with small groups; only where nothing was measured yet. A drill boots servers: that is not guessed. */
const ASSUMED_MS: Readonly<Record<GroupAction, number | null>> = {
  start: 600,
  reprotect: 600,
  stop: 200,
  reverse: 800,
  failover: 700,
  delete: 100,
  drill: null,
}
/** Of a server that nobody has started here, where none was ever started. */
const ASSUMED_START_MS = 3_000
const ASSUMED_READY_MS = 15_000

/** `db`: of a transaction that only reads. `record`: of the witness, asked before that: a read inside holds no second connection. */
export async function forecastOf(
  db: Db,
  sources: Sources,
  group: ProtectionGroupRow,
  record: Ownership | null,
  action: GroupAction,
  force = false,
): Promise<Forecast> {
  const heard = sources.agents.heard(productionAz(group))
  const kind = KINDS[action]
  const failsOver = action === 'failover'
  const steady = failsOver ? measure((await samplesOf(db, kind, true)).map(steadyOf)) : null
  const samples = await samplesOf(db, kind, failsOver ? heard : null)
  const waits =
    failsOver && record !== null && !heard
      ? waitsOf(sources, group, record, force, samples, steady?.medianMs ?? null)
      : []
  const servers = await serverTimes(db, group, action)
  return sumUp(
    waits,
    switchPart(samples, steady?.medianMs ?? null, ASSUMED_MS[action]),
    servers.inJob,
    [
      ...(servers.afterwards === null ? [] : [servers.afterwards]),
      ...(await copyTime(db, sources, group, action, record)),
    ],
  )
}

/**
 * Puts the forecast beside the operation, so that it can be compared with what it took. In `act` of an early step and in a transaction of its
 * own: nothing that is only foretold stands in the way of what is done, and an error inside a transaction would end that. The first word
 * counts: later tries know more.
 */
export async function foretell(
  ctx: StepContext<unknown>,
  action: GroupAction,
  force = false,
): Promise<void> {
  const { store, agents, witness, log } = ctx.services
  try {
    const group = await readGroup(store.db, ctx.resourceId)
    if (group === undefined) return
    // The published `start` stands for both, and so do their steps.
    const wanted = action === 'start' && group.status === 'reprotecting' ? 'reprotect' : action
    const heard = agents.heard(productionAz(group))
    const record = await witness.record(group.id)
    const { totalMs, p90Ms, parts } = await store.read((db) =>
      forecastOf(db, ctx.services, group, record, wanted, force),
    )
    await store.write(async (tx) => {
      const row = await findOperation(tx, ctx.id)
      if (row === undefined || 'forecast_ms' in fromJson<object>(row.entities)) return
      await addEntities(tx, ctx.id, {
        forecast_ms: totalMs,
        forecast_p90_ms: p90Ms,
        forecast: parts,
        production_heard: heard,
      })
    })
  } catch (error) {
    ctx.signal.throwIfAborted()
    log.error({ err: error, operation: ctx.id }, 'the operation has no forecast')
  }
}

// ---------------------------------------------------------------- waits

/** What a silent production site is waited for. */
function waitsOf(
  { agents, clock }: Sources,
  group: ProtectionGroupRow,
  record: Ownership,
  force: boolean,
  samples: readonly Sample[],
  steadyMs: number | null,
): TimePart[] {
  const parts: TimePart[] = []
  const mayHoldLease = freezesFirst(record, drAz(group), force) || record.state === 'frozen'
  if (mayHoldLease && record.lease !== null) {
    const endedMs = clock.bootMs() - record.lease.endsBootMs
    const part = waitPart('lease_wait', endedMs, learnConstant('lease_wait', samples, steadyMs))
    // The lease itself is known, and what the witness adds to it is little beside it.
    parts.push({ ...part, basis: 'known' })
  }
  const dr = agents.session(group.id, drAz(group))
  if (record.state === 'in_sync' && dr !== null) {
    const since = dr.status.out_of_touch_ms
    const noted = since === null ? 0 : clock.wallMs() - since
    const silentMs = Math.max(noted, (dr.status.peer_silence_ms ?? 0) + dr.ageMs)
    const learned = learnConstant('contact_wait', samples, steadyMs)
    parts.push(waitPart('contact_wait', silentMs, learned))
  }
  return parts
}

// ---------------------------------------------------------------- measured

const WAITING_STEPS: ReadonlySet<string> = new Set(['failover_record', 'open_dr', 'ask_consent'])
/** Counted apart, or of others: a drill's turn is when enough others have been made. */
const LEFT_OUT_STEPS: ReadonlySet<string> = new Set(['start_servers', 'turn'])

const steadyOf = ({ waitingMs }: Sample): number => waitingMs

/** Operations looked through for those under like circumstances. */
const LOOKED_THROUGH_MAX = 200

/** Of the last operations of this kind that succeeded. `heard`: only those with production heard, or silent; null: all. */
async function samplesOf(db: Db, kind: string, heard: boolean | null): Promise<readonly Sample[]> {
  const operations = await db
    .selectFrom('operations')
    .select(['id', 'begin_at', 'entities'])
    .where('kind', '=', kind)
    .where('status', '=', 'succeeded')
    .orderBy('ordinal', 'desc')
    .limit(heard === null ? SAMPLES_MAX : LOOKED_THROUGH_MAX)
    .execute()
  const like = operations
    .map(({ entities, ...one }) => ({ ...one, told: fromJson<Told>(entities) }))
    .filter(({ told }) => heard === null || told.production_heard === heard)
    .slice(0, SAMPLES_MAX)
  if (like.length === 0) return []
  const steps = await db
    .selectFrom('operation_steps')
    .select(['operation', 'name', 'end_at'])
    .where(
      'operation',
      'in',
      like.map(({ id }) => id),
    )
    .orderBy('operation')
    .orderBy('step')
    .execute()
  return like.map(({ id, begin_at, told }) => {
    let [fromMs, waitingMs, workingMs] = [begin_at ?? 0, 0, 0]
    for (const { operation, name, end_at } of steps) {
      if (operation !== id) continue
      // A wall clock may have been set back meanwhile.
      const tookMs = Math.max(0, end_at - fromMs)
      if (WAITING_STEPS.has(name)) waitingMs += tookMs
      else if (!LEFT_OUT_STEPS.has(name)) workingMs += tookMs
      fromMs = end_at
    }
    const waits = (told.forecast ?? []).flatMap(({ name, ms, constantMs }) =>
      (name === 'lease_wait' || name === 'contact_wait') && constantMs !== undefined
        ? [{ name, ms, constantMs }]
        : [],
    )
    return { waitingMs, workingMs, waits }
  })
}

/** What `foretell` has put beside an operation; operations of older releases have less. */
interface Told {
  readonly production_heard?: boolean
  readonly forecast?: readonly Pick<TimePart, 'name' | 'ms' | 'constantMs'>[]
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
  action: GroupAction,
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
  const anyStart = measure(await lastStarts(db))
  const stored = await findPlan(db, group.id)
  if (stored === undefined) {
    const of = (elseMs: number | undefined) =>
      Math.max(...own.map((_, index) => startOf(index) ?? elseMs ?? ASSUMED_START_MS))
    const all = own.every((_, index) => startOf(index) !== undefined)
    return {
      inJob: serversPart(of(anyStart?.medianMs), anyStart?.p90Ms, all || anyStart !== null),
      afterwards: null,
    }
  }
  const ready = await lastReadyTimes(db, [...own, ...other])
  const readyOf = (index: number) =>
    ready.get(own[index] ?? '') ?? ready.get(other[index] ?? '') ?? startOf(index)
  const anyReady = measure(await readyTimes(db, SAMPLES_MAX))
  const { servers } = newRun(
    storedPlan(stored.plan),
    instances.map(({ id }) => id),
  )
  const path = (msOf: (index: number) => number) =>
    longestPath(servers, new Map(instances.map(({ id }, index) => [id, msOf(index)])))
  const ms = path((index) => readyOf(index) ?? anyReady?.medianMs ?? ASSUMED_READY_MS)
  const p90 = anyReady?.p90Ms
  const p90Ms = p90 === undefined ? undefined : path((index) => Math.max(readyOf(index) ?? 0, p90))
  const all = own.every((_, index) => readyOf(index) !== undefined)
  return { inJob: null, afterwards: serversPart(ms, p90Ms, all || anyReady !== null) }
}

const serversPart = (ms: number, p90Ms: number | undefined, measured: boolean): TimePart => ({
  name: 'servers',
  ms,
  p90Ms: p90Ms === undefined ? null : Math.max(ms, p90Ms),
  basis: measured ? 'measured' : 'assumed',
})

/** How long the newest starts of any servers took. */
async function lastStarts(db: Db): Promise<readonly number[]> {
  const rows = await db
    .selectFrom('operations')
    .select(['begin_at', 'end_at'])
    .where('kind', '=', 'server.start')
    .where('status', '=', 'succeeded')
    .orderBy('ordinal', 'desc')
    .limit(SAMPLES_MAX)
    .execute()
  return rows.map(({ begin_at, end_at }) => Math.max(0, (end_at ?? 0) - (begin_at ?? 0)))
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
  action: GroupAction,
  record: Ownership | null,
): Promise<TimePart[]> {
  if (action !== 'start' && action !== 'reprotect') return []
  const sites = [group.source_az, group.target_az]
  const rate = await copyRate(db, agents, sites)
  if (rate === null) return []
  const bytes = record?.alone?.bytes ?? (action === 'start' ? await sizeOf(db, group.id) : null)
  if (bytes === null) return []
  const msAt = (bytesPerSecond: number) => Math.ceil((bytes / bytesPerSecond) * 1_000)
  const slow = rate.slowest
  return [{ name: 'copy', ms: msAt(rate.median), p90Ms: msAt(slow), basis: 'measured' }]
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
): Promise<{ readonly median: number; readonly slowest: number } | null> {
  const sent = new Map<string, number>()
  for (const { report } of agents.list()) {
    if (!sites.includes(report.site)) continue
    for (const { session, copy_sent_bytes, role } of report.sessions) {
      if (role === 'writer' && copy_sent_bytes >= RATE_BYTES_MIN) sent.set(session, copy_sent_bytes)
    }
  }
  const sessions = [...sent.keys()].slice(0, SAMPLES_MAX)
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
  const median = measure(rates)?.medianMs
  return median === undefined ? null : { median, slowest: Math.min(...rates) }
}
