import type { Clock } from '#base/clock.ts'
import { type Fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { rounds } from '#base/rounds.ts'
import {
  faultOf,
  readServer,
  SERVER_RESOURCE,
  type ServerFault,
  serverStatus,
  serverTask,
  takeDiskOut,
  updateServer,
} from '#control/resources/servers.ts'
import type { AgentRegistry, AgentView } from '#control/sites/agents.ts'
import { SITE_REFUSED, SITE_UNREACHABLE, type SiteClient } from '#control/sites/client.ts'
import { toJson } from '#control/store/json.ts'
import type { Queries, Store, Transaction } from '#control/store/store.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import { statusAfterReport } from '#domain/server.ts'
import type { ServerBrief } from '#wire/site/servers.ts'
import { defineServer } from './definitions/servers/server-definition.ts'
import { deleteServer } from './definitions/servers/server-deletion.ts'
import { released } from './definitions/servers/server-disks.ts'

/* Keeps the rows of servers and the guests at the sites together, from the reports of the agents.
 *
 *   a guest was switched on or off, or died           its row says so: power, and the status that fits
 *   a site has an older definition, or none            it is given the present one
 *   a site has a later definition than the row says    the row is of a backup: its definition gets a number above
 *   a site has a server that was deleted                it is removed again
 *   a disk is leaving and no operation looks after it   it is free when its site says that no guest has it
 *
 * A site that is not heard keeps its rows as they are. Reports are about the past: one that was under way while an operation ended
 * knows less than the row. So a report counts when the site says that the power became so after what the row has, by the site's
 * own clock; or when it came well after the row was changed, so that a clock that was set back delays the truth, and no more.
 *
 * Reports come every second and mostly say what is known. Then a round costs one query for each site and no transaction.
 */

export interface PowerSyncOptions {
  readonly store: Store
  readonly clock: Clock
  readonly log: Log
  readonly agents: AgentRegistry
  readonly sites: SiteClient
  /** Pause between two rounds. Default 500 ms. */
  readonly everyMs?: number
}

export interface PowerSync {
  start(): void
  /** Resolves when the round under way has ended. */
  stop(): Promise<void>
  /** One round now; for tests. */
  round(): Promise<void>
}

const EVERY_MS = 500
/** Longer than a report can be under way. */
const LATE_MS = 5_000
const COMMAND_MS = 5_000
/** Definitions given to one site in one round: others wait for the next. */
const DEFINITIONS_MAX = 50
/** A site that refused a definition is asked again after this time. */
const REFUSED_PAUSE_MS = 15_000
const STRAY_REPORTS = 4

/** The columns that reports are compared with. */
type Known = Pick<
  ServerRow,
  'id' | 'status' | 'task' | 'generation' | 'power' | 'power_at' | 'fault' | 'updated_at'
>

export function createPowerSync(options: PowerSyncOptions): PowerSync {
  const { store, clock, log, agents, sites, everyMs = EVERY_MS } = options
  /** The last report of each site that was worked through. */
  const seen = new Map<string, AgentView['report']>()
  /** Servers that the report before found behind: one report may be older than the definition. */
  const lagging = new Map<string, ReadonlySet<string>>()
  /** By site, servers that no row knows, and in how many reports in a row they stood. */
  const strays = new Map<string, ReadonlyMap<string, number>>()
  /** CLOCK_BOOTTIME before which a server is not defined again. */
  const paused = new Map<string, number>()
  const looks = rounds(clock, everyMs, round, (error) => {
    log.error({ err: error }, 'servers were not brought together with the reports')
  })

  async function round(): Promise<void> {
    const names = new Set(agents.list().map(({ report }) => report.site))
    await Promise.all([...names].map((site) => syncSite(site)))
  }

  async function syncSite(site: string): Promise<void> {
    const view = agents.at(site)
    if (view === null || view.report.servers === undefined || !agents.heard(site)) return
    if (seen.get(site) === view.report) return
    const briefs = new Map(view.report.servers.map((brief) => [brief.server, brief]))
    const receivedMs = clock.wallMs() - view.ageMs
    const rows = await knownAt(store.db, site)
    await settleStrays(site, rows, briefs)
    const told = rows.filter((row) => changeBy(row, briefs.get(row.id), receivedMs) !== null)
    if (told.length > 0) await record(told, briefs, receivedMs)
    if (view.report.compute?.driver !== 'none') await defineAt(site, rows, briefs)
    seen.set(site, view.report)
  }

  /**
   * Servers that no row knows. One that was deleted here was overtaken by an older order on its way to the site, and is removed again. Of
   * others nobody knows, as after a restore of an older backup: they are left alone, their disks may be all there is.
   */
  async function settleStrays(
    site: string,
    rows: readonly Known[],
    briefs: ReadonlyMap<string, ServerBrief>,
  ): Promise<void> {
    const known = new Set(rows.map(({ id }) => id))
    const before = strays.get(site)
    const now = new Map<string, number>()
    for (const id of briefs.keys()) if (!known.has(id)) now.set(id, (before?.get(id) ?? 0) + 1)
    strays.set(site, now)
    for (const [server, reports] of now) {
      // A few reports may be older than the deletion.
      if (reports % STRAY_REPORTS !== 0) continue
      if (await wasDeleted(store.db, server)) await removeAgain(site, server)
      else if (reports === STRAY_REPORTS) log.warn({ site, server }, 'nobody knows this server')
    }
  }

  async function removeAgain(site: string, server: string): Promise<void> {
    try {
      await sites.command(site, 'server.remove', { server }, { timeoutMs: COMMAND_MS })
      log.warn({ site, server }, 'a server that was deleted is removed from its site again')
    } catch (error) {
      if (!isFault(error)) throw error
      log.warn({ err: error, site, server }, 'a server that was deleted is still at its site')
    }
  }

  async function record(
    rows: readonly Known[],
    briefs: ReadonlyMap<string, ServerBrief>,
    receivedMs: number,
  ): Promise<void> {
    await store.write(async (tx) => {
      const busy = await busyServers(
        tx,
        rows.map(({ id }) => id),
      )
      for (const { id } of rows) {
        const row = await readServer(tx, id)
        const brief = briefs.get(id)
        if (row === undefined || busy.has(id)) continue
        const change = changeBy(row, brief, receivedMs)
        if (change === null) continue
        const launched_at = row.launched_at ?? (change.status === 'active' ? clock.wallMs() : null)
        await updateServer(tx, id, { ...change, launched_at }, clock.wallMs())
      }
    })
  }

  /** Gives definitions that did not arrive, and ends detachments that nobody looks after. */
  async function defineAt(
    site: string,
    rows: readonly Known[],
    briefs: ReadonlyMap<string, ServerBrief>,
  ): Promise<void> {
    const leaving = await leavingDisks(store.db, site)
    const nowMs = clock.bootMs()
    for (const [id, untilMs] of paused) if (untilMs <= nowMs) paused.delete(id)
    const behind = rows.filter(
      (row) =>
        isDefined(row) &&
        (leaving.has(row.id) || (briefs.get(row.id)?.generation ?? 0) < row.generation),
    )
    const before = lagging.get(site)
    lagging.set(site, new Set(behind.map(({ id }) => id)))
    const wanted = behind.filter(({ id }) => before?.has(id) === true && !paused.has(id))
    const some = wanted.slice(0, DEFINITIONS_MAX).map(({ id }) => id)
    if (some.length === 0) return
    const busy = await busyServers(store.db, some)
    for (const id of some) {
      if (busy.has(id) || looks.stopping) continue
      try {
        await defineAgain(site, id, leaving.get(id) ?? [])
      } catch (error) {
        if (!isFault(error)) throw error
        log.warn({ err: error, server: id, site }, 'a server was not defined again')
        if (isFault(error, SITE_UNREACHABLE)) return
        if (isFault(error, SITE_REFUSED) && !briefs.has(id)) await recordLost(id, error)
        paused.set(id, clock.bootMs() + REFUSED_PAUSE_MS)
      }
    }
  }

  /** Its site has no such server and does not take it: whatever the row said of it, nobody runs it. */
  async function recordLost(id: string, { code, message }: Fault): Promise<void> {
    await store.write(async (tx) => {
      const row = await readServer(tx, id)
      if (row === undefined || row.task !== null || !isDefined(row)) return
      const fault: ServerFault = { code, message, at: clock.wallMs(), passing: true }
      const lost = { status: 'error', power: 'unknown', fault: toJson(fault) }
      await updateServer(tx, id, lost, clock.wallMs())
    })
  }

  async function defineAgain(site: string, id: string, leaving: readonly string[]): Promise<void> {
    const info = await defineServer({ store, sites }, id, { timeoutMs: COMMAND_MS })
    const after = await readServer(store.db, id)
    if (after === undefined || after.task === 'deleting') {
      // A deletion passed by, and may have been at the site first.
      await sites.command(site, 'server.remove', { server: id }, { timeoutMs: COMMAND_MS })
      return
    }
    const free = leaving.filter((volume) => released(info, volume))
    log.info({ server: id, generation: info.generation, free }, 'a server was defined again')
    if (free.length === 0) return
    await store.write(async (tx) => {
      for (const volume of free) {
        const disk = await tx
          .selectFrom('server_disks')
          .select('state')
          .where('server', '=', id)
          .where('volume', '=', volume)
          .executeTakeFirst()
        const looked = (await busyServers(tx, [id])).has(id)
        if (disk?.state === 'detaching' && !looked) {
          await takeDiskOut(tx, id, volume, clock.wallMs())
        }
      }
    })
  }

  return {
    start: () => looks.start(),
    stop: () => looks.stop(),
    round,
  }
}

async function knownAt(db: Queries, site: string): Promise<Known[]> {
  return await db
    .selectFrom('servers')
    .select(['id', 'status', 'task', 'generation', 'power', 'power_at', 'fault', 'updated_at'])
    .where('az', '=', site)
    .orderBy('id')
    .execute()
}

async function wasDeleted(db: Queries, server: string): Promise<boolean> {
  const row = await db
    .selectFrom('operations')
    .select('id')
    .where('resource_type', '=', SERVER_RESOURCE)
    .where('resource_id', '=', server)
    .where('kind', '=', deleteServer.name)
    .where('status', '=', 'succeeded')
    .executeTakeFirst()
  return row !== undefined
}

/** Servers with disks that are on their way out. */
async function leavingDisks(db: Queries, site: string): Promise<Map<string, string[]>> {
  const rows = await db
    .selectFrom('server_disks')
    .innerJoin('servers', 'servers.id', 'server_disks.server')
    .select(['server_disks.server', 'server_disks.volume'])
    .where('servers.az', '=', site)
    .where('server_disks.state', '=', 'detaching')
    .execute()
  const found = new Map<string, string[]>()
  for (const { server, volume } of rows) {
    found.set(server, [...(found.get(server) ?? []), volume])
  }
  return found
}

/** Those of `servers` that an operation works on, or will. */
async function busyServers(
  db: Queries | Transaction,
  servers: readonly string[],
): Promise<Set<string>> {
  const rows = await db
    .selectFrom('operations')
    .select('resource_id')
    .where('resource_type', '=', SERVER_RESOURCE)
    .where('status', 'in', ['pending', 'running'])
    .execute()
  const all = new Set(rows.map((row) => row.resource_id))
  return new Set(servers.filter((id) => all.has(id)))
}

/** Its agent has been given, or should have, a definition. One that could not be made never was. */
const isDefined = (row: Known): boolean =>
  row.task === null &&
  (row.status === 'active' || row.status === 'stopped' || wholeFault(row) !== null)

const wholeFault = (row: Pick<Known, 'status' | 'fault'>): ServerFault | null => {
  const fault = row.fault === null ? null : faultOf({ fault: row.fault })
  return row.status === 'error' && fault?.passing === true ? fault : null
}

/** What a report changes of a row; null: nothing. Exported for its test. */
export function changeBy(
  row: Known,
  brief: ServerBrief | undefined,
  receivedMs: number,
): Partial<Pick<ServerRow, 'status' | 'power' | 'power_at' | 'fault' | 'generation'>> | null {
  if (brief === undefined) return null
  // Nobody else numbers definitions: the rows are of a backup, and forgot some.
  const later: { generation?: number } =
    brief.generation > row.generation ? { generation: brief.generation + 1 } : {}
  const sinceMs = Math.round(brief.power_since)
  if (sinceMs < row.power_at && receivedMs < row.updated_at + LATE_MS) return null
  const facts = { status: serverStatus(row), task: serverTask(row) }
  const status = statusAfterReport(facts, brief.power, wholeFault(row) !== null)
  const same = brief.power === row.power && sinceMs === row.power_at
  if (status === null && same && later.generation === undefined) return null
  const power = { power: brief.power, power_at: sinceMs, ...later }
  if (status === null) return power
  return { ...power, status, fault: faultOfEnd(status, brief) }
}

/** A guest that ended by itself may have said why. */
function faultOfEnd(status: string, { reason, power_since }: ServerBrief): string | null {
  if (status !== 'stopped' || reason === null) return null
  const fault: ServerFault = {
    code: 'GUEST_STOPPED',
    message: reason,
    at: Math.round(power_since),
    passing: true,
  }
  return toJson(fault)
}
