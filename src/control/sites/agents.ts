import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import { bit } from '#control/store/bit.ts'
import type { Store } from '#control/store/store.ts'
import type { Report, SessionStatus } from '#wire/site/witness.ts'

/** What an agent last said, and how long ago. */
export interface AgentView {
  readonly report: Report
  /** Milliseconds since the control plane got it. */
  readonly ageMs: number
}

export interface SessionView {
  readonly status: SessionStatus
  readonly ageMs: number
}

/** The agents as they last reported. Nothing here proves anything about now: decisions are the witness's. */
export interface AgentRegistry {
  /** The agent of `site` that reported last; null when none ever has. */
  at(site: string): AgentView | null
  list(): readonly AgentView[]
  /** What `site` last said about `session`; null when its last report does not have it. */
  session(session: string, site: string): SessionView | null
  /**
   * True when an agent of `site` reported within the configured silence. A control plane that has just started was
   * silent itself: it takes no site that it knows for silent before it has listened that long.
   */
  heard(site: string): boolean
}

/* Reports come every second from each agent. They are kept in memory; the table has them so that a restarted control plane knows
 * where the agents are, and so that several control planes on one database know what the others heard. */

export interface AgentBook extends AgentRegistry {
  receive(report: Report): Promise<void>
  /** Reads what is stored: at the start, and again and again on a shared database. */
  refresh(): Promise<void>
}

/** On a database of our own an unchanged agent is written this often: only a restart reads it. */
const STORE_EVERY_MS = 10_000

interface Entry {
  readonly report: Report
  /** Those of the report by id: a list of a thousand groups asks for each of them. */
  readonly sessions: ReadonlyMap<string, SessionStatus>
  /** CLOCK_BOOTTIME here when it came. */
  readonly atBootMs: number
  storedBootMs: number
}

export function createAgentBook(options: {
  readonly store: Store
  readonly clock: Clock
  /** An agent silent for longer counts as not heard. */
  readonly silenceMs: number
  readonly log: Log
}): AgentBook {
  const { store, clock, silenceMs, log } = options
  const entries = new Map<string, Entry>()
  const listeningSinceMs = clock.bootMs()
  const ageOf = (entry: Entry) => Math.max(0, clock.bootMs() - entry.atBootMs)
  const view = (entry: Entry): AgentView => ({ report: entry.report, ageMs: ageOf(entry) })

  const freshest = (site: string, has: (entry: Entry) => boolean): Entry | null => {
    let best: Entry | null = null
    for (const entry of entries.values()) {
      if (entry.report.site !== site || !has(entry)) continue
      if (best === null || entry.atBootMs > best.atBootMs) best = entry
    }
    return best
  }

  return {
    at(site) {
      const entry = freshest(site, () => true)
      return entry === null ? null : view(entry)
    },
    list: () => [...entries.values()].map(view),
    session(session, site) {
      const entry = freshest(site, ({ sessions }) => sessions.has(session))
      const status = entry?.sessions.get(session)
      return entry === null || status === undefined ? null : { status, ageMs: ageOf(entry) }
    },
    heard(site) {
      const entry = freshest(site, () => true)
      if (entry === null) return false
      return Math.min(ageOf(entry), clock.bootMs() - listeningSinceMs) <= silenceMs
    },
    async receive(report) {
      const key = keyOf(report)
      const known = entries.get(key)
      if (known === undefined || known.report.run_id !== report.run_id) {
        const { site, agent, run_id, boot_id, version } = report
        log.info({ site, agent, run_id, boot_id, version }, 'an agent reports for the first time')
      }
      const atBootMs = clock.bootMs()
      const entry = {
        report,
        sessions: sessionsOf(report),
        atBootMs,
        storedBootMs: known?.storedBootMs ?? Number.NEGATIVE_INFINITY,
      }
      entries.set(key, entry)
      const due = store.shared || atBootMs - entry.storedBootMs >= STORE_EVERY_MS
      if (!due && known !== undefined && whereabouts(known.report) === whereabouts(report)) return
      await storeReport(store, report, clock.wallMs())
      entry.storedBootMs = atBootMs
    },
    async refresh() {
      const rows = await store.db.selectFrom('agents').select(['report', 'last_seen_at']).execute()
      for (const row of rows) {
        const report = fromJson<Report>(row.report)
        const atBootMs = clock.bootMs() - Math.max(0, clock.wallMs() - row.last_seen_at)
        const known = entries.get(keyOf(report))
        if (known !== undefined && known.atBootMs >= atBootMs) continue
        const sessions = sessionsOf(report)
        entries.set(keyOf(report), { report, sessions, atBootMs, storedBootMs: atBootMs })
      }
    },
  }
}

const sessionsOf = ({ sessions }: Report): ReadonlyMap<string, SessionStatus> =>
  new Map(sessions.map((status) => [status.session, status]))

const keyOf = ({ site, agent }: Report): string => `${site}/${agent}`

/** What a restarted control plane has to know at once. */
const whereabouts = (report: Report): string =>
  toJson([
    report.boot_id,
    report.run_id,
    report.command_address,
    report.link_address,
    report.nbd_unix,
    report.nbd_tcp,
    report.nbd_tls,
  ])

async function storeReport(store: Store, report: Report, now: number): Promise<void> {
  const row = {
    boot_id: report.boot_id,
    run_id: report.run_id,
    version: report.version,
    command_address: report.command_address,
    link_address: report.link_address,
    nbd_unix: report.nbd_unix,
    nbd_tcp: report.nbd_tcp,
    nbd_tls: bit(report.nbd_tls),
    report: toJson(report),
    last_seen_at: now,
  }
  await store.write(async (tx) => {
    await tx
      .insertInto('agents')
      .values({ site: report.site, agent: report.agent, first_seen_at: now, ...row })
      .onConflict((conflict) => conflict.columns(['site', 'agent']).doUpdateSet(row))
      .execute()
  })
}
