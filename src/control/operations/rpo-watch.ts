import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import { rounds } from '#base/rounds.ts'
import { listAllGroups } from '#control/resources/groups.ts'
import { syncGistsOf } from '#control/resources/protection-lists.ts'
import { forgetRpoPoints, rememberRpoPoint } from '#control/resources/rpo.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import type { Store } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import type { SyncView } from '#domain/sync-view.ts'
import { loadSyncViews } from './definitions/protection/sync-views.ts'

/* Remembers how many pairs of each project were behind, so that somebody can ask for last month.
 *
 * Replication is synchronous: the recovery point that a pair promises is zero. A pair is behind while its protection is on and its DR side is
 * not known to hold everything: a copy is under way, the link is down, or a site is silent. Pairs whose protection is off, or ended with
 * a failover, promise nothing and are not counted.
 *
 * It looks every few seconds and keeps, for each five minutes, the most that any look found. A stretch without a record is one in which
 * nobody looked: no record never means that all was well. After its start it waits until every site has had the time to report, for what it
 * has not heard yet is not known to be behind.
 */
export interface RpoWatchOptions {
  readonly store: Store
  readonly clock: Clock
  readonly log: Log
  readonly agents: AgentRegistry
  /** A report older than this says nothing about the present, milliseconds. */
  readonly agentSilenceMs: number
  /** Pause between two looks. Default 10 s. */
  readonly everyMs?: number
}

export interface RpoWatch {
  start(): void
  /** Resolves when the look under way has ended. */
  stop(): Promise<void>
  /** One look now, however short ago the start was; for tests. */
  look(): Promise<void>
}

const EVERY_MS = 10_000
/** Length of a stretch that has one record. */
export const RPO_POINT_MS = 300_000
/** 288 records a day and project, of 150 bytes. */
const KEEP_MS = 30 * 24 * 3_600_000
const FORGET_EVERY_MS = 3_600_000
/** Groups judged without letting others have a turn. */
const GROUPS_AT_ONCE = 100

export function createRpoWatch(options: RpoWatchOptions): RpoWatch {
  const { store, clock, log, agentSilenceMs, everyMs = EVERY_MS } = options
  /** What the database has of the present stretch, by project: most looks find what is known and write nothing. */
  const known = new Map<string, { readonly pointAt: number; readonly behind: number }>()
  let forgottenBootMs = Number.NEGATIVE_INFINITY
  const looks = rounds(clock, everyMs, look, (error) => {
    log.warn({ err: error }, 'recovery points were not recorded')
  })

  async function look(): Promise<void> {
    const nowMs = clock.wallMs()
    const pointAt = Math.floor(nowMs / RPO_POINT_MS) * RPO_POINT_MS
    for (const [project, behind] of await countBehind()) {
      const last = known.get(project)
      if (last?.pointAt === pointAt && last.behind >= behind) continue
      await store.write((tx) => rememberRpoPoint(tx, { project, pointAt, behind }, nowMs))
      known.set(project, { pointAt, behind })
    }
    if (clock.bootMs() - forgottenBootMs < FORGET_EVERY_MS) return
    await store.write((tx) => forgetRpoPoints(tx, nowMs - KEEP_MS))
    forgottenBootMs = clock.bootMs()
  }

  /** By project; those without a pair that is to be protected are left out. */
  async function countBehind(): Promise<ReadonlyMap<string, number>> {
    const found = new Map<string, number>()
    const groups = (await listAllGroups(store.db)).filter((group) => group.form === 'sdrs')
    for (let at = 0; at < groups.length; at += GROUPS_AT_ONCE) {
      const some = groups.slice(at, at + GROUPS_AT_ONCE)
      const views = await viewsOf(some)
      for (const { id, project } of some) {
        const behind = behindIn(views.get(id))
        if (behind !== null) found.set(project, (found.get(project) ?? 0) + behind)
      }
      // The database answers at once; without this a thousand groups would be judged in one turn.
      await new Promise<void>((resolve) => {
        clock.after(0, resolve)
      })
    }
    return found
  }

  async function viewsOf(groups: readonly ProtectionGroupRow[]) {
    return await store.read(async (db) => {
      const pairs = await syncGistsOf(
        db,
        groups.map(({ id }) => id),
      )
      return await loadSyncViews(db, options, groups, pairs)
    })
  }

  return {
    start: () => looks.start(2 * agentSilenceMs),
    stop: () => looks.stop(),
    look,
  }
}

/** Null: nothing is promised. */
export function behindIn(view: SyncView | undefined): number | null {
  if (view === undefined || view.fact === 'idle' || view.pairs.size === 0) return null
  return [...view.pairs.values()].filter(
    ({ status }) => status === 'inactive' || status === 'copying',
  ).length
}
